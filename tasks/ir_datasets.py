"""Tasks on any collection that the ir_datasets package knows by an id.

The collection is written once as a folder in the BEIR layout, so that one
validating reader serves every source and evaluation finds the same queries.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gr_jax.data.folders import new_folder
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.data.text_examples import make_plan
from gr_jax.data.vocabularies import Vocabulary
from gr_jax.types import UserError, near_miss

if TYPE_CHECKING:
  import seqio

_HEADER = 'query-id\tcorpus-id\tscore\n'
_SPLITS = {
  'train': ('train',),
  'dev': ('dev', 'validation'),
  'test': ('test',),
}
# Collections whose splits have names of their own. MS MARCO's official test is
# hidden: what is published is MRR@10 on the 6,980 queries of dev/small, the
# test here; dev/2 is another draw from dev. Training queries without judgements
# are left out.
_NAMED_SPLITS = {
  'msmarco-passage': {
    'train': 'msmarco-passage/train/judged',
    'dev': 'msmarco-passage/dev/2',
    'test': 'msmarco-passage/dev/small',
  },
}
_TEXT_FIELDS = ('text', 'body', 'abstract', 'contents', 'description')


def ir_datasets_tasks(
  dataset_ids: Mapping[str, str],
  directory: str | pathlib.Path,
  settings: PreparationSettings,
  vocabulary: Vocabulary,
) -> 'dict[str, seqio.Task]':
  """Makes the Tasks, writing the collection first where it is missing.

  Args:
    dataset_ids: ir_datasets ids by split, for instance {'train':
      'beir/scifact/train', 'test': 'beir/scifact/test'}.
    directory: of the collection.
    settings: their `data_dir` is set from `directory`.
    vocabulary: for queries and documents.

  Returns:
    Tasks by source name, as `tasks.beir.beir_tasks`.

  Raises:
    UserError: for an unknown id.
  """
  # Here: the collection is written before anything takes TensorFlow's seconds.
  from gr_jax.tasks.beir import beir_tasks

  directory = pathlib.Path(directory)
  if not directory.exists():
    write_ir_datasets(
      {split: _load(name) for split, name in dataset_ids.items()}, directory
    )
  settings = dataclasses.replace(settings, data_dir=str(directory))
  ids_path = directory.with_name(f'{directory.name}.document_ids.txt')
  return beir_tasks(make_plan(settings, ids_path), vocabulary)


def write_collection(name: str, directory: str | pathlib.Path) -> None:
  """Writes a collection by its id with the splits that it has.

  Args:
    name: as 'beir/scifact'; NAME/train, NAME/dev (or NAME/validation) and
      NAME/test become the splits, and without a NAME/test the judgements of
      NAME itself are the test. 'msmarco-passage' has splits of its own.
    directory: where.

  Raises:
    UserError: for an unknown id, one without judgements, or a failed download.
  """
  whole = _load(name)
  named = _NAMED_SPLITS.get(name, {})
  found = {split: _load(part) for split, part in named.items()}
  for split, endings in _SPLITS.items():
    for ending in endings:
      part = _registered(f'{name}/{ending}')
      if part is not None and split not in found and _is_judged(part):
        found[split] = part
  if 'test' not in found and _is_judged(whole):
    found['test'] = whole
  if not found:
    raise UserError(f'ir_datasets:{name} has no judged queries{_judged(name)}')
  try:
    write_ir_datasets(found, directory)
  # What requests raises are OSErrors.
  except (OSError, RuntimeError) as error:
    # ir_datasets lists every attempt behind its reason.
    reason = error.args[0] if isinstance(error, RuntimeError) else error
    raise UserError(
      f'ir_datasets:{name} could not be fetched and written: {reason}'
    ) from error


def _judged(name: str) -> str:
  """'; these parts have: ...', where there are such."""
  import ir_datasets

  parts = [key for key in ir_datasets.registry if key.startswith(f'{name}/')]
  judged = [key for key in parts if _is_judged(ir_datasets.load(key))]
  return f'; these parts have: {", ".join(judged[:8])}' if judged else ''


def write_ir_datasets(
  datasets: Mapping[str, object], directory: str | pathlib.Path
) -> None:
  """Writes dataset objects as one folder in the BEIR layout, by one rename.

  Args:
    datasets: ir_datasets objects by split; they share their documents, which
      are taken from the first. A query that is judged for the test is left
      out of 'dev', where models are chosen.
    directory: where.

  Raises:
    UserError: when an object has no documents, queries or judgements.
  """
  for split, dataset in datasets.items():
    for has in ('has_docs', 'has_queries', 'has_qrels'):
      if not getattr(dataset, has)():
        raise UserError(
          f'the ir_datasets object of {split!r} has no '
          f'{has.removeprefix("has_")}; name one that has'
        )
  tested = set()
  if {'dev', 'test'} <= datasets.keys():
    tested = {row.query_id for row in datasets['test'].qrels_iter()}
  with new_folder(directory) as work:
    (work / 'qrels').mkdir()
    _write_corpus(next(iter(datasets.values())), work / 'corpus.jsonl')
    _write_queries(datasets.values(), work / 'queries.jsonl')
    for split, dataset in datasets.items():
      with (work / 'qrels' / f'{split}.tsv').open('w') as file:
        file.write(_HEADER)
        for row in dataset.qrels_iter():
          if split == 'dev' and row.query_id in tested:
            continue
          # TREC's negative grades mark junk; here that is no relevance.
          grade = max(0, row.relevance)
          file.write(f'{row.query_id}\t{row.doc_id}\t{grade}\n')


def _load(name: str):
  found = _registered(name)
  if found is None:
    import ir_datasets

    known = list(ir_datasets.registry)
    raise UserError(f'ir_datasets has no {name!r}{near_miss(name, known)}')
  return found


def _registered(name: str):
  """The dataset of an id, None when there is no such id."""
  try:
    import ir_datasets
  except ImportError as error:
    raise UserError(
      "ir_datasets is not installed: pip install 'gr_jax[datasets]'"
    ) from error
  try:
    return ir_datasets.load(name)
  except KeyError:
    return None


def _is_judged(dataset) -> bool:
  return dataset.has_docs() and dataset.has_queries() and dataset.has_qrels()


def _write_corpus(dataset, path: pathlib.Path) -> None:
  with path.open('w', encoding='utf-8') as file:
    for document in dataset.docs_iter():
      fields = document._asdict()
      record = {
        '_id': fields.pop('doc_id'),
        'title': fields.pop('title', '') or '',
        'text': _text(fields),
      }
      file.write(json.dumps(record, ensure_ascii=False) + '\n')


def _text(fields: dict) -> str:
  """The main text of a document, else all its strings together."""
  for name in _TEXT_FIELDS:
    if isinstance(fields.get(name), str):
      return fields[name]
  return ' '.join(value for value in fields.values() if isinstance(value, str))


def _write_queries(datasets, path: pathlib.Path) -> None:
  written = set()
  with path.open('w', encoding='utf-8') as file:
    for dataset in datasets:
      for query in dataset.queries_iter():
        if query.query_id not in written:
          written.add(query.query_id)
          record = {'_id': query.query_id, 'text': query.default_text()}
          file.write(json.dumps(record, ensure_ascii=False) + '\n')
