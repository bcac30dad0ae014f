"""Opens a saved index for search: everything it needs is inside it."""

import dataclasses
import pathlib
import typing
from collections.abc import Mapping
from typing import Any

import jax

from gr_jax.data.vocabularies import Vocabulary, load_vocabulary
from gr_jax.index.index import Index
from gr_jax.index.reader import IndexReader
from gr_jax.index.snapshot import Snapshot
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher
from gr_jax.retrieval.sharded import over_local_devices
from gr_jax.settings import field_types, from_json, register, to_json
from gr_jax.types import UserError


def saved_settings(
  model: RetrieverConfig,
  search: SearchSettings,
  query_length: int,
  document_length: int,
  run: Mapping[str, Any],
) -> dict[str, Any]:
  """What an index remembers of the run that it comes from, as JSON data.

  Args:
    model: of the retriever.
    search: how the index is searched unless told otherwise.
    query_length: tokens of a query.
    document_length: tokens of a document, those inserted later as well.
    run: all settings of the run, for readers.
  """
  return {
    'model': to_json(model),
    'search': to_json(search),
    'query_length': query_length,
    'document_length': document_length,
    'run': dict(run),
  }


@dataclasses.dataclass(frozen=True)
class OpenedIndex:
  """An index with what made it.

  Attributes:
    index: the current version.
    model: the Retriever that wrote its identifiers.
    params: of the model.
    vocabulary: turns texts into tokens.
    saved: the contents of its settings.json.
  """

  index: Index
  model: Retriever
  params: Mapping[str, Any]
  vocabulary: Vocabulary
  saved: Mapping[str, Any]


def opened(index: Index) -> OpenedIndex:
  """What made a saved index, all of it inside it.

  Args:
    index: of a version.
  """
  vocabulary = load_vocabulary(index.vocabulary_directory)
  index.check_vocabulary(vocabulary)
  saved = index.settings()
  register_with_fields(RetrieverConfig)
  where = str(index.directory / 'settings.json')
  config = from_json(saved['model'], where)
  _check_codes(index, config)
  return OpenedIndex(
    index, Retriever(config), index.params(), vocabulary, saved
  )


def open_searcher(
  path: pathlib.Path,
  verify: bool = False,
  settings: SearchSettings | None = None,
  changes: Mapping[str, Any] | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> Searcher:
  """Opens an index for search, as it is now.

  Args:
    path: the folder of all versions.
    verify: check every byte first.
    settings: instead of those that were saved.
    changes: fields of SearchSettings that differ from those.
    mesh: devices that share the work, as Searcher has it.
  """
  snapshot = _readable(path, verify).snapshot
  return searcher_of(
    opened(snapshot.base), snapshot, settings, changes, mesh=mesh
  )


def open_on_all_devices(
  path: pathlib.Path, settings: SearchSettings
) -> Searcher:
  """Opens an index for search by all devices of this process.

  Args:
    path: the folder of all versions.
    settings: of a search by one device; see sharded.over_local_devices.
  """
  settings, mesh = over_local_devices(settings)
  return open_searcher(path, settings=settings, mesh=mesh)


def searcher_of(
  opened: OpenedIndex,
  snapshot: Snapshot,
  settings: SearchSettings | None = None,
  changes: Mapping[str, Any] | None = None,
  spare: int = 0,
  mesh: jax.sharding.Mesh | None = None,
) -> Searcher:
  """Searches an opened index.

  Args:
    opened: what the index was made with.
    snapshot: its documents.
    settings: instead of those that were saved.
    changes: fields of SearchSettings that differ from those.
    spare: documents that may come, as Searcher has it.
    mesh: devices that share the work, as Searcher has it.
  """
  return Searcher(
    snapshot,
    opened.model,
    opened.params,
    opened.vocabulary,
    opened.saved['query_length'],
    dataclasses.replace(
      settings or saved_search(opened.index), **(changes or {})
    ),
    spare,
    mesh,
  )


def _readable(path: pathlib.Path, verify: bool) -> IndexReader:
  """The reader of an index."""
  try:
    return IndexReader(path, verify)
  except PermissionError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}') from error


def saved_search(index: Index) -> SearchSettings:
  """How a saved index is searched unless told otherwise."""
  register_with_fields(SearchSettings)
  where = str(index.directory / 'settings.json')
  return from_json(index.settings()['search'], where)


def _check_codes(index: Index, config: RetrieverConfig) -> None:
  """Refuses identifiers of another shape than the model writes."""
  sizes = tuple(index.trie.code_sizes)
  if sizes != config.code_sizes:
    raise UserError(
      f'{index.directory} has identifiers of codes out of {sizes}, its model'
      f' writes {config.code_sizes}: build the index again'
    )


def register_with_fields(cls: type) -> None:
  """Registers settings and those that their fields are annotated with."""
  register(cls)
  for annotation in field_types(cls).values():
    for option in (annotation, *typing.get_args(annotation)):
      if isinstance(option, type) and dataclasses.is_dataclass(option):
        register_with_fields(option)
