"""Measures pseudo-queries: like human ones, finding their documents, varied.

python -m gr_jax.judge_queries --data_dir=FOLDER --queries=runs/pseudo
"""

import argparse
import json
import pathlib

from gr_jax import entry
from gr_jax.types import UserError


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.judge_queries',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument(
    '--data_dir', required=True, metavar='FOLDER', help='in the BEIR layout'
  )
  parser.add_argument(
    '--queries',
    required=True,
    metavar='PATH',
    help='JSON lines, or a folder that gr_jax.generate_queries wrote',
  )
  parser.add_argument(
    '--split',
    default='dev',
    help='whose queries people asked, to compare with (default: dev)',
  )
  parser.add_argument(
    '--sample',
    type=int,
    default=5000,
    metavar='N',
    help='queries that search with BM25, 0 for all (default: 5000)',
  )
  parser.add_argument('--seed', type=int, default=0, help='of the sample')
  entry.add_bad_records_flag(parser)
  parser.add_argument(
    '--output', metavar='PATH', help='JSON file of what was measured'
  )
  return parser


def judge(
  data_dir: pathlib.Path,
  queries: pathlib.Path,
  split: str = 'dev',
  sample: int = 5000,
  seed: int = 0,
  max_bad_records: int = 0,
) -> dict[str, object]:
  """Measures the pseudo-queries of a collection.

  Args:
    data_dir: of the collection.
    queries: file or folder.
    split: whose queries are compared with, in a collection that has splits.
    sample: queries that search, 0 for all.
    seed: of the sample.
    max_bad_records: of the collection that are left out.

  Returns:
    What querygen.quality.measure says.
  """
  from gr_jax.data.collection import Collection
  from gr_jax.data.pseudo_queries import read_pseudo_queries
  from gr_jax.querygen import quality

  collection = Collection(data_dir, max_bad_records)
  documents = list(collection.documents())
  of_document, human = {}, {}
  pairs = read_pseudo_queries(
    queries, collection.document_index(), collection.refuse
  )
  for document_id, text in pairs:
    of_document.setdefault(document_id, []).append(text)
  texts = {query.id: query.text for query in collection.queries()}
  # A corpus alone has queries that search and copy, and none to compare with.
  judged = collection.judgements(split) if collection.splits() else ()
  for judgement in judged:
    if judgement.relevance > 0:
      asked = human.setdefault(judgement.document_id, [])
      asked.append(texts[judgement.query_id])
  found = quality.measure(documents, of_document, human, sample, seed)
  return {'split': split, 'seed': seed, **found}


def main(arguments: list[str]) -> int:
  """The door: flags to one call."""
  flags = _parser().parse_args(arguments)
  if flags.sample < 0:
    raise UserError(f'--sample should be at least 0, got {flags.sample}')
  if flags.output and pathlib.Path(flags.output).is_dir():
    raise UserError(f'--output={flags.output} is a folder: name a file')
  found = judge(
    pathlib.Path(flags.data_dir),
    pathlib.Path(flags.queries),
    flags.split,
    flags.sample,
    flags.seed,
    flags.max_bad_records,
  )
  text = json.dumps(found, indent=1)
  print(text)
  if flags.output:
    path = pathlib.Path(flags.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{text}\n', 'utf-8')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
