"""R@10 and milliseconds against the number of beams, with and without planning.

python benchmarks/planning.py --index=runs/NAME/index --data_dir=FOLDER
  --output=planning.json

The index ranks candidates as it was saved, with the documents that it was saved
to score; for the numbers of the README --generative_weight=.005
--documents_scored=180. Programs take turns, and what encoding the queries
takes in each turn is left out. On one core (XLA_FLAGS=
"--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1") processor
time is what the clock would say on a machine without other work.
"""

import argparse
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from interleaved import measure

from gr_jax import entry

BEAMS = (10, 20, 50, 100, 300, 1000)
# Documents looked at beneath a prefix; 0 is without planning.
DOCUMENTS = (0, 4, 8)


def recall_at_10(
  searcher: Any, queries: Sequence[str], relevant: Sequence[set[str]]
) -> float:
  """Mean share of the relevant documents among the first ten.

  Args:
    searcher: a Searcher.
    queries: texts.
    relevant: ids of each query's documents.
  """
  ids = searcher.document_ids
  found = searcher.search_batch(queries, 10).documents_BC.tolist()
  shares = [
    len({ids[place] for place in row if place >= 0} & wanted) / len(wanted)
    for row, wanted in zip(found, relevant, strict=True)
  ]
  return float(np.mean(shares))


def milliseconds(
  searchers: Mapping[str, Any], queries: Sequence[str], turns: int
) -> dict[str, dict[str, float]]:
  """Of a query's search, above its encoding: medians over the turns."""
  encoder = next(iter(searchers.values()))
  programs = {
    name: lambda _, searcher=searcher: searcher.search_batch(queries, 10)
    for name, searcher in searchers.items()
  }
  times = measure({'': lambda _: encoder.encode(queries), **programs}, turns)
  result: dict[str, dict[str, float]] = {name: {} for name in searchers}
  kinds = {'clock': times.clock, 'processor': times.processor}
  for kind, each in kinds.items():
    for name in searchers:
      above = [
        (whole - encoding) / len(queries)
        for whole, encoding in zip(each[name], each[''], strict=True)
      ]
      result[name][kind] = statistics.median(above)
  return result


def settings_of(beams: int, documents: int, weight: float) -> dict[str, Any]:
  """What differs from the settings of the index."""
  changes: dict[str, Any] = {'beams': beams}
  if documents:
    changes |= {'planning_weight': weight, 'planning_documents': documents}
  return changes


def asked_in(
  data_dir: pathlib.Path, split: str
) -> tuple[list[str], list[set[str]]]:
  """Texts of a split's queries, and the ids of the documents of each."""
  from gr_jax.data.collection import Collection

  collection = Collection(data_dir)
  wanted: dict[str, set[str]] = {}
  for judgement in collection.judgements(split):
    if judgement.relevance > 0:
      wanted.setdefault(judgement.query_id, set()).add(judgement.document_id)
  asked = [query for query in collection.queries() if query.id in wanted]
  return [each.text for each in asked], [wanted[each.id] for each in asked]


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--index', type=pathlib.Path, required=True)
  parser.add_argument('--data_dir', type=pathlib.Path, required=True)
  parser.add_argument('--split', default='dev')
  parser.add_argument('--beams', type=int, nargs='+', default=BEAMS)
  parser.add_argument('--documents', type=int, nargs='+', default=DOCUMENTS)
  parser.add_argument('--planning_weight', type=float, default=80.0)
  parser.add_argument('--documents_scored', type=int)
  parser.add_argument('--generative_weight', type=float)
  parser.add_argument('--turns', type=int, default=20)
  parser.add_argument('--output', type=pathlib.Path)
  return parser


def main(arguments: list[str]) -> int:
  """Measures, prints and writes."""
  flags = _parser().parse_args(arguments)
  from gr_jax.retrieval.opening import open_searcher

  common: dict[str, Any] = {'batch_sizes': (8,)}
  if flags.documents_scored is not None:
    common['documents_scored'] = flags.documents_scored
  if flags.generative_weight is not None:
    common['fusion'] = 'log_linear'
    common['generative_weight'] = flags.generative_weight
  texts, wanted = asked_in(flags.data_dir, flags.split)
  searchers = {
    f'{beams} beams, {documents} documents': open_searcher(
      flags.index,
      changes=common | settings_of(beams, documents, flags.planning_weight),
    )
    for beams in flags.beams
    for documents in flags.documents
  }
  rows = milliseconds(searchers, texts[:64], flags.turns)
  for name, searcher in searchers.items():
    row = rows[name]
    row['R@10'] = recall_at_10(searcher, texts, wanted)
    print(
      f'{name:28} R@10 {row["R@10"]:.4f}  processor {row["processor"]:7.2f}'
      f'  clock {row["clock"]:7.2f} ms a query',
      flush=True,
    )
  if flags.output:
    flags.output.write_text(json.dumps(rows, indent=1) + '\n', 'utf-8')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
