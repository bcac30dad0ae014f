"""Recall by the place of the wanted documents in the ID space."""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gr_jax.data import qrels
from gr_jax.data.prepared import PreparedData
from gr_jax.evaluation.prefixes import PrefixTree
from gr_jax.evaluation.run_files import read_run
from gr_jax.types import Judgement

DEPTH = 10
_RUN_SUFFIX = '.trec'
_OURS = 'gr_jax'
# Examples of these kinds are queries; the others are made from the text, the
# same number of each document.
_QUERY_SOURCES = ('labelled', 'pseudo')
# First numbers of training queries of the groups.
_QUERY_GROUPS = (0, 1, 3, 10)


class _AnyId:
  """Holds every id: what the index does not know is left out later."""

  def __contains__(self, name: object) -> bool:
    return True


def find_runs(folder: pathlib.Path) -> tuple[str, dict[str, pathlib.Path]]:
  """The run files of one split, test where there is one.

  Args:
    folder: where evaluation writes NAME.SPLIT.trec.

  Returns:
    The split and {system: file}, ours first; ('', {}) when there are none.
  """
  found: dict[str, dict[str, pathlib.Path]] = {}
  for path in sorted(folder.glob(f'*{_RUN_SUFFIX}')):
    system, _, split = path.name.removesuffix(_RUN_SUFFIX).partition('.')
    if split:
      found.setdefault(split, {})[system] = path
  if not found:
    return '', {}
  split = 'test' if 'test' in found else min(found)
  systems = found[split]
  names = sorted(systems, key=lambda name: (name != _OURS, name))
  return split, {name: systems[name] for name in names}


def read_relevant(directory: pathlib.Path, split: str) -> list[Judgement]:
  """The relevant documents of a split; evaluation has refused what is bad.

  Args:
    directory: of a collection.
    split: of its judgements.

  Returns:
    Judgements of relevance 1 and up; none when the file is not there.
  """
  paths = qrels.find_splits(directory / 'qrels').get(split, [])
  everything = _AnyId()
  return [
    judgement
    for path in paths[:1]
    for judgement in qrels.read_judgements(
      path, everything, everything, lambda *bad: None
    )
    if judgement.relevance > 0
  ]


def rows_of(
  wanted: Iterable[str], document_ids: Sequence[str]
) -> dict[str, int]:
  """Rows of some documents, without a table of all."""
  wanted = set(wanted)
  return {name: row for row, name in enumerate(document_ids) if name in wanted}


def training_queries(
  prepared: PreparedData, document_ids: Sequence[str]
) -> np.ndarray:
  """How many training queries each of some documents has.

  Args:
    prepared: the examples that the run was trained on.
    document_ids: the documents asked for.

  Returns:
    A count for each; 0 for documents that training did not know.
  """
  counts_N = np.zeros(len(prepared.document_ids), np.int64)
  for name in _QUERY_SOURCES:
    if name in prepared.sources:
      counts_N += np.bincount(
        prepared.sources[name].document_indices, minlength=len(counts_N)
      )
  rows = rows_of(document_ids, prepared.document_ids)
  return np.array(
    [counts_N[rows[name]] if name in rows else 0 for name in document_ids]
  )


def size_groups(
  tree: PrefixTree, length: int, rows_P: np.ndarray
) -> tuple[np.ndarray, list[str]]:
  """Thirds of all documents by the size of their prefix, for some of them.

  Args:
    tree: of all identifiers.
    length: of the prefix.
    rows_P: the documents to group.

  Returns:
    [P] group numbers, and the groups' names.
  """
  counts = tree.counts(length)
  # The size at which a third, two thirds of all documents lie.
  sizes_N = np.sort(np.repeat(counts, counts))
  low, high = sizes_N[len(sizes_N) // 3], sizes_N[2 * len(sizes_N) // 3]
  size_P = counts[tree.members(length)[rows_P]]
  groups_P = (size_P > low).astype(np.int64) + (size_P > high)
  return groups_P, [
    f'small: up to {low:,}',
    f'middle: {low + 1:,} to {high:,}',
    f'large: {high + 1:,} to {int(counts.max()):,}',
  ]


def query_groups(queries_P: np.ndarray) -> tuple[np.ndarray, list[str]]:
  """Groups documents by how many training queries they have."""
  groups_P = np.searchsorted(_QUERY_GROUPS, queries_P, side='right') - 1
  names = [
    f'{first}' if after == first + 1 else f'{first} to {after - 1}'
    for first, after in itertools.pairwise(_QUERY_GROUPS)
  ]
  return groups_P, [*names, f'{_QUERY_GROUPS[-1]} and more']


def recall_by_group(
  query_P: np.ndarray, hit_P: np.ndarray, group_P: np.ndarray, groups: int
) -> list[dict[str, float] | None]:
  """Recall of the relevant documents of each group.

  A pair of a query and a relevant document counts 1 / relevant documents of
  the query, so that all groups together give the usual recall.

  Args:
    query_P: number of the query of each pair.
    hit_P: whether the document was found.
    group_P: the group of each pair.
    groups: how many there are.

  Returns:
    For each group 'recall', 'margin' (half of the 95 % interval, from the
    variance of a ratio over queries), 'pairs' and 'queries'; None if empty.
  """
  queries = int(query_P.max()) + 1
  weight_P = 1 / np.bincount(query_P)[query_P]
  rows: list[dict[str, float] | None] = []
  for group in range(groups):
    inside = group_P == group
    if not inside.any():
      rows.append(None)
      continue
    weights_B = np.bincount(query_P[inside], weight_P[inside], queries)
    found_B = np.bincount(query_P[inside], (weight_P * hit_P)[inside], queries)
    recall = found_B.sum() / weights_B.sum()
    spread = np.sqrt(np.sum((found_B - recall * weights_B) ** 2))
    rows.append(
      {
        'recall': float(recall),
        'margin': float(1.96 * spread / weights_B.sum()),
        'pairs': int(inside.sum()),
        'queries': int(np.sum(weights_B > 0)),
      }
    )
  return rows


def _hits(
  run: Mapping[str, Mapping[str, float]], relevant: Sequence[Judgement]
) -> np.ndarray:
  """Whether each relevant document is among the first ten of its query."""
  # Sorting keeps the order of ties, which is that of the file.
  first = {
    query: set(sorted(scores, key=scores.get, reverse=True)[:DEPTH])
    for query, scores in run.items()
  }
  return np.array(
    [j.document_id in first.get(j.query_id, ()) for j in relevant], float
  )


def recall_report(
  tree: PrefixTree,
  document_ids: Sequence[str],
  runs: Mapping[str, pathlib.Path],
  relevant: Sequence[Judgement],
  prepared: PreparedData | None,
) -> dict[str, object] | None:
  """Recall@10 of every system by prefix size and by training queries.

  Args:
    tree: of all identifiers.
    document_ids: the id of each document row.
    runs: run file of each system.
    relevant: relevant documents of the split.
    prepared: what training saw, None when it is not there.

  Returns:
    'systems', and 'groupings' {'name', 'groups', 'rows' a system}; None when
    the index holds none of the relevant documents.
  """
  rows = rows_of((j.document_id for j in relevant), document_ids)
  known = [j for j in relevant if j.document_id in rows]
  if not known:
    return None
  rows_P = np.array([rows[j.document_id] for j in known])
  numbers = {j.query_id: 0 for j in known}
  numbers = {query: number for number, query in enumerate(numbers)}
  query_P = np.array([numbers[j.query_id] for j in known])
  hits = {name: _hits(read_run(path), known) for name, path in runs.items()}
  half = (tree.positions + 1) // 2
  groupings = [
    (
      'Documents with the same first '
      + ('code' if length == 1 else f'{length} codes'),
      *size_groups(tree, length, rows_P),
    )
    for length in sorted({1, half})
  ]
  if prepared is not None:
    counts_P = training_queries(prepared, [j.document_id for j in known])
    groupings.append(
      ('Training queries of the document', *query_groups(counts_P))
    )
  return {
    'queries': len(numbers),
    'pairs': len(known),
    'unknown_documents': len(relevant) - len(known),
    'systems': list(runs),
    'groupings': [
      {
        'name': name,
        'groups': names,
        'rows': {
          system: recall_by_group(query_P, hit_P, group_P, len(names))
          for system, hit_P in hits.items()
        },
      }
      for name, group_P, names in groupings
    ],
  }
