"""The prefixes of all identifiers: what one tree of the codes looks like.

Documents in the order of their identifiers make every prefix one run of
neighbours, so that a prefix is a place where such a run begins. Millions of
documents cost a sort and some integers each.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class PrefixTree:
  """Prefixes of each length, in the order of their codes.

  Attributes:
    order_N: document numbers in the order of their identifiers.
    starts: for each length 1..L, the places in that order where another
      prefix begins.
    last_codes: for each length 1..L, the last code of each prefix.
  """

  order_N: np.ndarray
  starts: tuple[np.ndarray, ...]
  last_codes: tuple[np.ndarray, ...]

  @property
  def positions(self) -> int:
    """L, the length of an identifier."""
    return len(self.starts)

  def bounds(self, length: int) -> np.ndarray:
    """Where the prefixes of a length begin, and the end; length 0 is the root.

    Args:
      length: 0..L.

    Returns:
      [prefixes + 1] places in `order_N`.
    """
    starts = self.starts[length - 1] if length else np.zeros(1, np.int64)
    return np.append(starts, len(self.order_N))

  def counts(self, length: int) -> np.ndarray:
    """Documents of each prefix of a length (0..L)."""
    return np.diff(self.bounds(length))

  def first_children(self, length: int) -> np.ndarray:
    """Bounds of each prefix's children among the prefixes one code longer.

    Args:
      length: 0..L - 1.

    Returns:
      [prefixes + 1]; the children of prefix p are first_children[p : p + 2].
    """
    return np.searchsorted(self.bounds(length + 1), self.bounds(length))

  def children(self, length: int) -> np.ndarray:
    """How many codes continue each prefix of a length (0..L - 1)."""
    return np.diff(self.first_children(length))

  def members(self, length: int) -> np.ndarray:
    """The number of each document's prefix among those of a length, [N]."""
    counts = self.counts(length)
    members_N = np.empty(len(self.order_N), np.int64)
    members_N[self.order_N] = np.repeat(np.arange(len(counts)), counts)
    return members_N


def prefix_tree(codes_NL: np.ndarray) -> PrefixTree:
  """Sorts documents by identifier and finds where prefixes begin.

  Args:
    codes_NL: the identifier of each document, N and L at least 1.

  Returns:
    The tree of its prefixes.
  """
  order_N = np.lexsort(codes_NL.T[::-1])
  new_N = np.zeros(len(order_N), bool)
  new_N[0] = True
  starts, last_codes = [], []
  for position in range(codes_NL.shape[1]):
    sorted_N = codes_NL[order_N, position]
    new_N[1:] |= sorted_N[1:] != sorted_N[:-1]
    starts.append(np.flatnonzero(new_N))
    last_codes.append(sorted_N[starts[-1]])
  return PrefixTree(order_N, tuple(starts), tuple(last_codes))
