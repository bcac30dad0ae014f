"""The table that a person reads and the results.json that a program reads."""

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gr_jax.evaluation.identifiers import IdentifierStatistics
from gr_jax.evaluation.metrics import NAMES, paired_bootstrap
from gr_jax.evaluation.protocol import Measured

# Row names, which later programs look up in results.json.
BM25 = 'BM25'
DENSE = 'exact dense'
DENSE_ONLY = 'exact dense (InfoNCE alone)'
GR_JAX = 'gr_jax'
RANDOM_IDS = 'random IDs'

_PACKAGES = (
  'gr_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'bm25s', 'PyStemmer',
  'ir_measures',
)  # fmt: skip
_HEADINGS = (
  'system',
  *(name.replace('RR@', 'MRR@') for name in NAMES),
  'docs scored/query',
  'code scores/query',
  'queries/s',
)


# Groups of queries that halve them, and what their table says.
_HALVES = ('near', 'far')
_SEEN_HEAD = (
  'Queries by whether training saw their relevant documents (mixed: some of '
  'them)'
)
_HALVES_HEAD = (
  'Queries by how near they are to a query that was trained on: the nearer '
  'half and the other'
)


@dataclasses.dataclass(frozen=True)
class Setting:
  """What was measured, on what, by which command.

  Attributes:
    dataset: name of the collection.
    split: of the queries.
    documents: in the corpus.
    command: the command line that reproduces the numbers.
    seed: of the run.
    corpus_sha256: of the corpus file's contents.
    search: beams, documents scored for a query at most, how the parts of a
      final score are joined, and their weights.
  """

  dataset: str
  split: str
  documents: int
  command: str
  seed: int
  corpus_sha256: str
  search: Mapping[str, int | float | str]


def slug(name: str) -> str:
  """A row's name as it stands in the names of files."""
  words = ''.join(c if c.isalnum() else ' ' for c in name.lower())
  return '_'.join(words.split())


def versions() -> dict[str, str]:
  """Versions of Python and of the packages that the numbers depend on."""
  found = {'python': platform.python_version()}
  for package in _PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found[package] = 'not installed'
  return found


def _mean(values_B: np.ndarray) -> float:
  return float(np.mean(values_B))


def _row(measured: Measured) -> dict[str, object]:
  return {
    'name': measured.name,
    **measured.scores.means(),
    'documents_scored_per_query': _mean(measured.rankings.documents_scored_B),
    'code_scores_per_query': _mean(measured.rankings.code_scores_B),
    'queries_per_second': measured.queries_per_second,
  }


def _best_dense(systems: Sequence[Measured]) -> Measured | None:
  dense = [system for system in systems if system.name in (DENSE, DENSE_ONLY)]
  return max(dense, key=lambda s: s.scores.means()['R@10'], default=None)


def _ours(systems: Sequence[Measured]) -> Measured | None:
  return next((system for system in systems if system.name == GR_JAX), None)


def _group_means(system: Measured, mask_B: np.ndarray) -> dict[str, float]:
  """The means over the queries of a group."""
  values = system.scores.values.items()
  return {name: _mean(values_B[mask_B]) for name, values_B in values}


def _group_results(
  systems: Sequence[Measured], groups: Mapping[str, np.ndarray]
) -> dict[str, object]:
  """Measures of all systems for each group of queries."""
  return {
    name: {
      'queries': int(mask_B.sum()),
      'systems': [
        {'name': system.name, **_group_means(system, mask_B)}
        for system in systems
      ],
    }
    for name, mask_B in groups.items()
  }


def _comparisons(
  systems: Sequence[Measured], seed: int
) -> list[dict[str, object]]:
  """R@10 of gr_jax less that of each other system, with 95 % intervals."""
  ours = _ours(systems)
  if ours is None:
    return []
  rows = []
  for other in systems:
    if other is not ours:
      difference = paired_bootstrap(
        ours.scores.values['R@10'], other.scores.values['R@10'], seed
      )
      rows.append(
        {
          'measure': 'R@10',
          'system': GR_JAX,
          'less': other.name,
          **dataclasses.asdict(difference),
        }
      )
  return rows


def results(
  setting: Setting,
  systems: Sequence[Measured],
  id_space: IdentifierStatistics,
  groups: Mapping[str, np.ndarray],
) -> dict[str, object]:
  """The contents of results.json.

  Args:
    setting: what was measured.
    systems: rows of the table, which answered the same queries.
    id_space: of the main run's index.
    groups: of queries, see seen_new.query_groups and near_far.halves.

  Returns:
    Plain values, ready for JSON.
  """
  scores = systems[0].scores
  identifiers = {
    # JSON has no tuples.
    name: list(value) if isinstance(value, tuple) else value
    for name, value in dataclasses.asdict(id_space).items()
  }
  return {
    **dataclasses.asdict(setting),
    'queries': len(scores.query_ids),
    'queries_without_relevant': scores.without_relevant,
    'systems': [_row(system) for system in systems],
    'groups': _group_results(systems, groups),
    'comparisons': _comparisons(systems, setting.seed),
    'id_space': identifiers,
    'versions': versions(),
  }


def write_results(path: Path, contents: dict[str, object]) -> None:
  """Writes JSON by an atomic rename; NaN is refused, it is no JSON."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.tmp')
  text = json.dumps(contents, indent=2, ensure_ascii=False, allow_nan=False)
  partial.write_text(text + '\n', encoding='utf-8')
  os.replace(partial, path)


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.rjust(width) if column else cell.ljust(width)
      for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]


def _speed(rate: float) -> str:
  return f'{rate:,.0f}' if rate >= 10 else f'{rate:.2g}'


def _system_lines(systems: Sequence[Measured]) -> list[str]:
  rows = [list(_HEADINGS)]
  for system in systems:
    row = _row(system)
    rows.append(
      [
        system.name,
        *(f'{row[name]:.3f}' for name in NAMES),
        f'{row["documents_scored_per_query"]:,.1f}',
        f'{row["code_scores_per_query"]:,.0f}',
        _speed(system.queries_per_second),
      ]
    )
  return _align(rows)


def _share_line(systems: Sequence[Measured], documents: int) -> list[str]:
  """How much of exact dense search is reached, at what share of its work."""
  ours = _ours(systems)
  dense = _best_dense(systems)
  if ours is None or dense is None:
    return []
  reference = dense.scores.means()['R@10']
  if reference == 0:
    return []
  reached = ours.scores.means()['R@10'] / reference
  scored = _mean(ours.rankings.documents_scored_B) / documents
  line = (
    f'{GR_JAX} reaches {reached:.1%} of the R@10 of {dense.name} and scores '
    f'{scored:.1%} of the documents.'
  )
  return [line]


def _group_lines(
  systems: Sequence[Measured], groups: Mapping[str, np.ndarray]
) -> list[str]:
  """The tables of groups, for each way of telling queries apart."""
  seen = {name: groups[name] for name in groups if name not in _HALVES}
  halves = {name: groups[name] for name in groups if name in _HALVES}
  return [
    *_grouping_lines(systems, seen, _SEEN_HEAD, 'relevant documents'),
    *_grouping_lines(systems, halves, _HALVES_HEAD, 'training queries'),
  ]


def _grouping_lines(
  systems: Sequence[Measured],
  groups: Mapping[str, np.ndarray],
  head: str,
  column: str,
) -> list[str]:
  """The measures of each group, and what is reached of exact dense search."""
  if not groups:
    return []
  rows = [[column, 'queries', *_HEADINGS[: 1 + len(NAMES)]]]
  shares = []
  ours, dense = _ours(systems), _best_dense(systems)
  for group, mask_B in groups.items():
    for system in systems:
      means = _group_means(system, mask_B)
      cells = [f'{means[name]:.3f}' for name in NAMES]
      rows.append([group, f'{int(mask_B.sum()):,}', system.name, *cells])
    reference = _group_means(dense, mask_B)['R@10'] if dense else 0
    if ours and reference:
      reached = _group_means(ours, mask_B)['R@10'] / reference
      shares.append(
        f'{group}: {GR_JAX} reaches {reached:.1%} of the R@10 of {dense.name}.'
      )
  return [head, '', *_align(rows), '', *shares, '']


def _identifier_lines(id_space: IdentifierStatistics) -> list[str]:
  per_id = id_space.documents_per_id
  positions = ' '.join(f'{value:.3f}' for value in id_space.position_entropy)
  shared = (
    f'mean {per_id["mean"]:.2f}, p99 {per_id["p99"]:.0f}, max {per_id["max"]}'
  )
  lines = [
    ('identifiers', f'{id_space.identifiers:,} in use'),
    ('uniqueness', f'{id_space.uniqueness:.3f}'),
    ('position entropy', positions),
    ('sequence entropy', f'{id_space.sequence_entropy:.3f}'),
    ('documents per ID', shared),
    ('dead codes', str(id_space.dead_codes)),
    ('Gini', f'{id_space.gini:.3f}'),
  ]
  return [f'{name:<18}{value}' for name, value in lines]


def table(
  setting: Setting,
  systems: Sequence[Measured],
  id_space: IdentifierStatistics,
  groups: Mapping[str, np.ndarray],
) -> str:
  """What a person reads: a row for each system, then the ID space.

  Args:
    setting: what was measured.
    systems: rows of the table, which answered the same queries.
    id_space: of the main run's index.
    groups: of queries, see seen_new.query_groups and near_far.halves.

  Returns:
    Lines without a last newline.
  """
  scores = systems[0].scores
  head = (
    f'{setting.dataset}, {setting.split}: {setting.documents:,} documents, '
    f'{len(scores.query_ids):,} queries'
  )
  if scores.without_relevant:
    head += f' ({scores.without_relevant:,} without a relevant document)'
  return '\n'.join(
    [
      head,
      '',
      *_system_lines(systems),
      '',
      *_share_line(systems, setting.documents),
      '',
      *_group_lines(systems, groups),
      'ID space',
      *_identifier_lines(id_space),
    ]
  )
