"""How evenly documents are spread over the space of identifiers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gr_jax.evaluation.prefixes import PrefixTree, prefix_tree
from gr_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class IdentifierStatistics:
  """The health of an identifier space.

  Attributes:
    documents: N.
    identifiers: distinct identifiers in use.
    uniqueness: identifiers in use / documents.
    position_entropy: for each position, the entropy of its codes over log K;
      1 where all codes are used equally, or where there is only one code.
    prefix_entropy: for each length 1..L, the entropy of the prefixes over
      log min(N, product of their K); low where a short prefix holds too much.
    sequence_entropy: entropy of whole identifiers over log min(N, prod K).
      Positions that copy each other keep position_entropy high, not this.
    utilisation: for each position, the share of its codes in use.
    documents_per_id: mean, p99 and max over the identifiers in use.
    dead_codes: codes of any position that no document uses.
    dead_codes_per_position: the same for each position.
    gini: of documents per identifier in use; 0 when all hold equally many.
  """

  documents: int
  identifiers: int
  uniqueness: float
  position_entropy: tuple[float, ...]
  prefix_entropy: tuple[float, ...]
  sequence_entropy: float
  utilisation: tuple[float, ...]
  documents_per_id: dict[str, float]
  dead_codes: int
  dead_codes_per_position: tuple[int, ...]
  gini: float


def _entropy(counts: np.ndarray) -> float:
  """Entropy in nats of the distribution that counts stand for."""
  probabilities = counts[counts > 0] / counts.sum()
  # + 0.0 turns the -0.0 of a single outcome into 0.0.
  return float(-np.sum(probabilities * np.log(probabilities)) + 0.0)


def _normalised(entropy: float, log_outcomes: float) -> float:
  return min(1.0, entropy / log_outcomes) if log_outcomes > 0 else 1.0


def gini(counts: np.ndarray) -> float:
  """Gini coefficient of positive counts: 0 equal, towards 1 unequal."""
  ordered = np.sort(counts).astype(np.float64)
  ranks = np.arange(1, len(ordered) + 1)
  number = len(ordered)
  return float(
    2 * np.sum(ranks * ordered) / (number * ordered.sum())
    - (number + 1) / number
  )


def _check(codes_NL: np.ndarray, code_sizes: Sequence[int]) -> None:
  if codes_NL.ndim != 2 or not codes_NL.size:
    raise UserError(
      'codes should have the shape [documents, positions] and hold at least '
      f'one of each, got {codes_NL.shape}'
    )
  if len(code_sizes) != codes_NL.shape[1]:
    raise UserError(
      f'codes have {codes_NL.shape[1]} positions and sizes are given for '
      f'{len(code_sizes)}'
    )
  for position, size in enumerate(code_sizes):
    low, high = codes_NL[:, position].min(), codes_NL[:, position].max()
    if low < 0 or high >= size:
      raise UserError(
        f'codes of position {position} should lie in 0..{size - 1}, got '
        f'{low if low < 0 else high}'
      )


def code_usage(
  codes_NL: np.ndarray, code_sizes: Sequence[int]
) -> list[np.ndarray]:
  """How many documents use each code of each position.

  Args:
    codes_NL: the identifier of each document.
    code_sizes: K of each position.

  Returns:
    For each position the counts of its codes, [K].
  """
  _check(codes_NL, code_sizes)
  return [
    np.bincount(codes_NL[:, position], minlength=size)
    for position, size in enumerate(code_sizes)
  ]


def identifier_statistics(
  codes_NL: np.ndarray,
  code_sizes: Sequence[int],
  tree: PrefixTree | None = None,
) -> IdentifierStatistics:
  """Counts identifiers and codes.

  Args:
    codes_NL: the identifier of each document.
    code_sizes: K of each position.
    tree: of these codes, where it is at hand already.

  Returns:
    The statistics; entropies are empirical, from counts.
  """
  codes_NL = np.asarray(codes_NL)
  usage = code_usage(codes_NL, code_sizes)
  tree = tree or prefix_tree(codes_NL)
  documents = len(codes_NL)
  counts = tree.counts(tree.positions)
  log_space = np.minimum(np.log(documents), np.cumsum(np.log(code_sizes)))
  prefix_entropy = tuple(
    _normalised(_entropy(tree.counts(length)), float(log_space[length - 1]))
    for length in range(1, tree.positions + 1)
  )
  dead = tuple(int(np.sum(count == 0)) for count in usage)
  return IdentifierStatistics(
    documents=documents,
    identifiers=len(counts),
    uniqueness=len(counts) / documents,
    position_entropy=tuple(
      _normalised(_entropy(count), float(np.log(size)))
      for count, size in zip(usage, code_sizes, strict=True)
    ),
    prefix_entropy=prefix_entropy,
    sequence_entropy=prefix_entropy[-1],
    utilisation=tuple(
      1 - unused / size for unused, size in zip(dead, code_sizes, strict=True)
    ),
    documents_per_id={
      'mean': float(counts.mean()),
      'p99': float(np.percentile(counts, 99)),
      'max': int(counts.max()),
    },
    dead_codes=sum(dead),
    dead_codes_per_position=dead,
    gini=gini(counts),
  )
