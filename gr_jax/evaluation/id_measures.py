"""Measures of an identifier space beside its statistics, and what they mean.

How many documents share an ID against random IDs, what a beam pays for a step,
and whether each measure is as it should be.
"""

from collections.abc import Sequence

import numpy as np

from gr_jax.evaluation.identifiers import IdentifierStatistics
from gr_jax.evaluation.prefixes import PrefixTree

# Counts up to here have a bin of their own, then bins grow by the factor.
_SINGLE_BINS = 16
_BIN_FACTOR = 1.25
# Uniqueness that explains most of MRR (method.md, section 7).
UNIQUENESS = 0.9
ENTROPY = 0.97
# Documents of the fullest hundredth of IDs, over the mean.
P99_OVER_MEAN = 3.0
UTILISATION = 0.9


def expected_in_use(documents: int, log_cells: float) -> float:
  """IDs in use when documents draw theirs uniformly: S (1 - (1 - 1/S)^N).

  Args:
    documents: N.
    log_cells: log S of the S identifiers that there are.
  """
  share = np.exp(-log_cells)
  # Also where S itself is past the largest float.
  if documents * share < 1e-9:
    return float(documents)
  if log_cells <= 0:
    return 1.0
  return float(-np.expm1(documents * np.log1p(-share)) / share)


def _expected_occupancy(documents: int, log_cells: float) -> np.ndarray:
  """Expected number of IDs that hold 1, 2, ... documents (binomial)."""
  if log_cells <= 0:
    return np.append(np.zeros(documents - 1), 1.0)
  share = np.exp(-log_cells)
  mean = documents * share
  # Past twelve deviations nothing is left in double precision.
  top = min(documents, int(np.ceil(mean + 12 * np.sqrt(mean) + 50)))
  held = np.arange(1, top + 1)
  # P(k) / P(k - 1) = (N - k + 1) / k / (S - 1).
  log_ratio = (
    np.log((documents - held + 1) / held) - log_cells - np.log1p(-share)
  )
  log_none = documents * np.log1p(-share)
  return np.exp(log_cells + log_none + np.cumsum(log_ratio))


def _bin_edges(largest: int) -> np.ndarray:
  """First count of each bin, and the first one past the last bin."""
  edges = list(range(1, _SINGLE_BINS + 2))
  while edges[-1] <= largest:
    edges.append(max(edges[-1] + 1, round(edges[-1] * _BIN_FACTOR)))
  inside = [edge for edge in edges if edge <= largest]
  return np.array([*inside, edges[len(inside)]])


def occupancy(counts: np.ndarray, log_cells: float) -> list[dict[str, float]]:
  """How many IDs hold how many documents, beside uniform random IDs.

  Args:
    counts: documents of each ID (or prefix) in use.
    log_cells: log of the number of IDs that there are.

  Returns:
    Bins {'from', 'to', 'observed', 'expected'} of documents an ID, both ends
    included; 'expected' is the mean number of IDs over random draws.
  """
  expected = _expected_occupancy(int(counts.sum()), log_cells)
  # What random IDs do not have even once in a thousand draws is not shown.
  seen = np.flatnonzero(expected > 1e-3)
  reach = int(seen[-1]) + 1 if len(seen) else 1
  largest = max(int(counts.max()), reach)
  edges = _bin_edges(largest)
  observed, _ = np.histogram(counts, edges)
  cumulated = np.append(0, np.cumsum(expected))
  ends = np.minimum(edges - 1, len(expected))
  return [
    {
      'from': int(first),
      'to': int(after - 1),
      'observed': int(number),
      'expected': float(cumulated[end] - cumulated[start]),
    }
    for first, after, number, start, end in zip(
      edges[:-1], edges[1:], observed, ends[:-1], ends[1:], strict=True
    )
  ]


def decoding_cost(
  tree: PrefixTree, code_sizes: Sequence[int]
) -> list[dict[str, float]]:
  """What each step of the decoder finds in the trie.

  Args:
    tree: of all identifiers.
    code_sizes: K of each position.

  Returns:
    For each position: 'nodes' that a step may stand on, 'children' {mean,
    max} of a node, 'continuations': allowed codes at the node of a document
    drawn uniformly, and 'allowed', the same as a share of K.
  """
  steps = []
  for position, size in enumerate(code_sizes):
    children = tree.children(position)
    weights = tree.counts(position) / len(tree.order_N)
    continuations = float(weights @ children)
    steps.append(
      {
        'position': position,
        'nodes': len(children),
        'prefixes': int(children.sum()),
        'children': {
          'mean': float(children.mean()),
          'max': int(children.max()),
        },
        'continuations': continuations,
        'allowed': continuations / size,
      }
    )
  return steps


def allows_unique(documents: int, log_cells: float) -> bool:
  """Whether the space is so large that random IDs would be unique enough."""
  return expected_in_use(documents, log_cells) >= UNIQUENESS * documents


def verdicts(
  found: IdentifierStatistics, code_sizes: Sequence[int]
) -> list[dict[str, str | float]]:
  """Judges the measures that tell a healthy ID space from a collapsed one.

  Args:
    found: statistics of the space.
    code_sizes: K of each position.

  Returns:
    {'name', 'value', 'shown', 'wanted', 'status', 'why'} each; the status is
    'ok', 'warn', or 'n/a' where the measure says nothing about this space.
  """
  log_cells = float(np.sum(np.log(code_sizes)))
  unique = allows_unique(found.documents, log_cells)
  bucketed = not unique or found.uniqueness < UNIQUENESS
  per_id = found.documents_per_id
  ratio = per_id['p99'] / per_id['mean']
  # A code cannot be in use where there are fewer documents than codes.
  used = [
    share * size / min(size, found.documents)
    for share, size in zip(found.utilisation, code_sizes, strict=True)
  ]
  worst = int(np.argmin(used))
  return [
    _verdict(
      'Uniqueness', found.uniqueness, f'{found.uniqueness:.3f}',
      f'at least {UNIQUENESS}', found.uniqueness >= UNIQUENESS, unique,
      'Distinct IDs over documents. Documents of one ID cannot be told apart '
      'by the decoder.' if unique else
      'Distinct IDs over documents. The space is too small for an ID each: '
      'IDs are buckets by design, see documents per ID.',
    ),
    _verdict(
      'Whole-ID entropy', found.sequence_entropy,
      f'{found.sequence_entropy:.3f}', f'at least {ENTROPY}',
      found.sequence_entropy >= ENTROPY, True,
      'Entropy of whole IDs over the log of the number of IDs that there '
      'could be. Positions that copy each other lower this alone.',
    ),
    _verdict(
      'Documents per ID', ratio, f'{ratio:.2f}',
      f'p99 at most {P99_OVER_MEAN:g} times the mean', ratio <= P99_OVER_MEAN,
      bucketed,
      f'p99 ({per_id["p99"]:,.0f}) over mean ({per_id["mean"]:,.2f}). Full '
      'buckets cost time and hide documents.' if bucketed else
      f'p99 {per_id["p99"]:,.0f}, mean {per_id["mean"]:,.2f}. Judged where '
      'IDs are buckets; here nearly every document has its own.',
    ),
    _verdict(
      'Codes in use', used[worst], f'{used[worst]:.1%}',
      f'at least {UTILISATION:.0%} in each position',
      used[worst] >= UTILISATION, True,
      f'Least in position {worst + 1}. Dead codes are room that no document '
      'takes.' if used[worst] < 1 else
      'Dead codes would be room that no document takes.',
    ),
  ]  # fmt: skip


def _verdict(name, value, shown, wanted, good, judged, why):
  status = ('ok' if good else 'warn') if judged else 'n/a'
  return {
    'name': name,
    'value': float(value),
    'shown': shown,
    'wanted': wanted,
    'status': status,
    'why': why,
  }
