"""Documents to pseudo-queries: sources, filters, shards, manifest."""

import contextlib
import importlib.metadata
import json
import pathlib
import platform
import shutil
from collections.abc import Sequence

from gr_jax import locks, processes
from gr_jax.data import pseudo_query_folder
from gr_jax.data.collection import Collection
from gr_jax.data.documents import Position
from gr_jax.data.folders import new_folder
from gr_jax.progress import Pace
from gr_jax.querygen.candidates import Candidate
from gr_jax.querygen.duplicates import Across
from gr_jax.querygen.opening import Opened, open_all
from gr_jax.querygen.query_settings import QueryGenerationSettings
from gr_jax.querygen.shards import (
  ShardFolder,
  differences,
  read_queries,
  write_queries,
)
from gr_jax.settings import to_json
from gr_jax.types import Document, UserError

# Raised whenever the same inputs would give other queries.
FORMAT = 3
# Whose versions the manifest names: what draws, cuts or computes queries.
_PACKAGES = (
  *('gr_jax', 'jax', 'jaxlib', 'numpy', 'tokenizers', 'bm25s', 'PyStemmer'),
  *('sentencepiece', 'transformers', 'torch'),
)
# Settings that say where something lies or is computed: what lies there counts.
_PLACES = (
  *('data_dir', 'output', 'path', 'folder', 'run', 'ranker', 'encoder'),
  'mesh',
)


def generate_queries(settings: QueryGenerationSettings) -> dict:
  """Writes the pseudo-queries of a collection.

  Several processes call it together and share the shards; one that was
  interrupted goes on where it was.

  Args:
    settings: with a folder `output` that is not there, or of these settings.

  Returns:
    The manifest.

  Raises:
    UserError: for bad input, or an output of other settings.
  """
  output = pathlib.Path(settings.output).absolute()
  doing = f'generating {output}'
  lock = locks.held(_beside(output, 'lock'), doing, 'choose another OUTPUT')
  with contextlib.ExitStack() as stack:
    processes.first(lambda: stack.enter_context(lock))
    stack.enter_context(
      locks.full_disk_named(output.parent, doing, 'choose another OUTPUT')
    )
    opened = open_all(settings, _beside(output, 'vectors'))
    inputs = _inputs(settings, opened)
    there = processes.first(lambda: _is_there(output, inputs))
    if not there:
      opened.begin()
      positions = opened.corpus.collection.positions(
        settings.documents_per_shard
      )
      shards = ShardFolder(_beside(output, 'shards'), len(positions))
      missing = processes.first(lambda: shards.begin(inputs))
      mine = missing[processes.index() :: processes.count()]
      _make(settings, opened, shards, positions, mine)
      processes.meet()
      processes.first(
        lambda: _finish(settings, opened, shards, len(positions), inputs)
      )
    # A kill right after the end leaves them, too.
    processes.first(lambda: _tidy(output))
  return pseudo_query_folder.read_manifest(output)


def _inputs(settings: QueryGenerationSettings, opened: Opened) -> dict:
  """All that the queries depend on."""
  return {
    'settings': _without_places(to_json(settings)),
    'collection': opened.corpus.collection.fingerprint(),
    'provenance': opened.provenance(),
    'format': FORMAT,
  }


def _without_places(asked):
  """Settings as JSON data without those of `_PLACES`."""
  if isinstance(asked, dict):
    return {
      name: _without_places(value)
      for name, value in asked.items()
      if name not in _PLACES
    }
  if isinstance(asked, list):
    return [_without_places(value) for value in asked]
  return asked


def _is_there(output: pathlib.Path, inputs: dict) -> bool:
  """Whether the queries are there; refuses those of other inputs."""
  if not output.exists():
    return False
  found = pseudo_query_folder.read_manifest(output)['inputs']
  # As JSON has it: lists for tuples.
  if other := differences(found, json.loads(json.dumps(inputs))):
    raise UserError(
      f'{output} holds queries of another {", ".join(other)}: choose another '
      'OUTPUT, or delete that folder'
    )
  return True


def _make(
  settings: QueryGenerationSettings,
  opened: Opened,
  shards: ShardFolder,
  positions: Sequence[Position],
  mine: Sequence[int],
) -> None:
  """Makes the shards of this process."""
  size = settings.documents_per_shard
  collection = Collection(
    settings.data_dir,
    settings.max_bad_records,
    opened.corpus.collection.bad_records,
  )
  total, done = len(opened.corpus.collection.document_index()), 0
  asked = sum(min(size, total - number * size) for number in mine)
  with Pace(asked, 'document') as pace:
    for number in mine:
      documents = list(collection.documents(positions[number], size))
      rows, counts = [], {}
      for start in range(0, len(documents), opened.together):
        part = documents[start : start + opened.together]
        first = number * size + start
        rows += _queries_of(opened, part, first, counts)
        done += len(part)
        pace.show(done, done / asked)
      shards.save(number, rows, counts)


def _queries_of(
  opened: Opened, documents: Sequence[Document], first: int, counts: dict
) -> list[tuple[str, list[str]]]:
  """Queries of documents that follow each other.

  Args:
    opened: sources and filters.
    documents: of the corpus.
    first: row of the first one.
    counts: what came and was left is added to it.
  """
  _add(counts, 'documents', len(documents))
  candidates: list[list[Candidate]] = [[] for _ in documents]
  for number, source in enumerate(opened.sources):
    found = source.queries(documents, first)
    _add(counts, f'source {number}:{source.name}', sum(map(len, found)))
    for own, new in zip(candidates, found, strict=True):
      own += new
  leaks = opened.leaks
  before = (leaks.equal, leaks.near) if leaks else (0, 0)
  for each in opened.filters:
    candidates = each.keep(documents, candidates, first)
    _add(counts, f'after {each.name}', sum(map(len, candidates)))
  if leaks:
    _add(counts, 'leaks equal', leaks.equal - before[0])
    _add(counts, 'leaks nearly equal', leaks.near - before[1])
  return [
    (document.id, [' '.join(candidate.text.split()) for candidate in own])
    for document, own in zip(documents, candidates, strict=True)
  ]


def _add(counts: dict, name: str, count: int) -> None:
  counts[name] = counts.get(name, 0) + count


def _finish(
  settings: QueryGenerationSettings,
  opened: Opened,
  shards: ShardFolder,
  count: int,
  inputs: dict,
) -> None:
  """Puts all shards where they belong, and writes the manifest."""
  output = pathlib.Path(settings.output).absolute()
  threshold = settings.duplicates.across
  across = (
    Across(threshold, opened.corpus.frequencies) if threshold <= 1 else None
  )
  counts = shards.counts()
  queries = with_queries = 0
  with new_folder(output) as folder:
    for number in range(count):
      rows = []
      for document_id, texts in read_queries(shards.path(number)):
        kept = across.keep(texts) if across else texts
        rows.append((document_id, kept))
        queries += len(kept)
        with_queries += bool(kept)
      name = pseudo_query_folder.file_name(number)
      write_queries(folder / name, rows)
    if across:
      counts[f'after {across.name}'] = queries
    leaks = opened.leaks
    contents = {
      'inputs': inputs,
      'documents': counts.pop('documents'),
      # In the order in which queries come through.
      'yield': [
        {'stage': name, 'queries': passed} for name, passed in counts.items()
      ],
      'queries': queries,
      'documents_with_queries': with_queries,
      'held_out_queries': leaks.held_out if leaks else 0,
      'versions': _versions(),
    }
    pseudo_query_folder.write_manifest(folder, contents)


def _beside(output: pathlib.Path, what: str) -> pathlib.Path:
  return output.with_name(f'.{output.name}.{what}')


def _tidy(output: pathlib.Path) -> None:
  for what in ('shards', 'vectors'):
    shutil.rmtree(_beside(output, what), ignore_errors=True)


def _versions() -> dict[str, str]:
  found = {'python': platform.python_version()}
  for package in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[package] = importlib.metadata.version(package)
  return dict(sorted(found.items()))


def summary(manifest: dict) -> str:
  """What came from where and what was left, a line each."""
  head = (
    f'{manifest["queries"]:,} queries for '
    f'{manifest["documents_with_queries"]:,} of {manifest["documents"]:,} '
    f'documents ({manifest["held_out_queries"]:,} queries of the collection '
    'held out)'
  )
  lines = [head]
  before = 0
  for step in manifest['yield']:
    name, count = step['stage'], step['queries']
    if name.startswith('source'):
      before += count
      lines.append(f'  {name}: {count:,}')
    elif name.startswith('after'):
      share = count / max(before, 1)
      lines.append(f'  {name}: {count:,} ({share:.1%} of what came to it)')
      before = count
    elif name.startswith('leaks'):
      lines.append(f'  {name}: {count:,}')
  return '\n'.join(lines)
