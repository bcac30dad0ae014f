"""Identifiers put in order, and work on many rows in little memory."""

from collections.abc import Iterator, Sequence

import numpy as np

# Rows that the build handles at once where it would need several times their
# memory; they stay in the cache, too.
_BLOCK = 1 << 16


def sorted_rows(codes_NL: np.ndarray, code_sizes: Sequence[int]) -> np.ndarray:
  """[N] int32 rows in the order of their codes, then by number.

  Words of as many bits of the codes as there is room for are sorted, with the
  place of each before: numpy sorts values in half of the memory of an order of
  keys, and several times as fast. Rows that are alike so far are sorted again
  by the bits that come next.
  """
  if not len(codes_NL):
    return np.zeros(0, np.int32)
  bits = [max(int(size - 1).bit_length(), 1) for size in code_sizes]
  words_N = np.zeros(len(codes_NL), np.int64)
  looked = _append_bits(words_N, codes_NL, bits, 0)
  order_N, places_T, groups_T = _sorted_places(words_N)
  while looked < sum(bits) and len(places_T):
    rows_T = order_N[places_T]
    looked = _append_bits(groups_T, codes_NL, bits, looked, rows_T)
    moved_T, tied_T, groups_T = _sorted_places(groups_T)
    order_N[places_T] = rows_T[moved_T]
    places_T = places_T[tied_T]
  return order_N


def _append_bits(
  words_T: np.ndarray,
  codes_NL: np.ndarray,
  bits: Sequence[int],
  looked: int,
  rows_T: np.ndarray | slice = slice(None),
) -> int:
  """Shifts the next bits of identifiers into words, as many as there is room.

  Args:
    words_T: int64, rising; changed.
    codes_NL: the identifiers.
    bits: of each position.
    looked: bits at the front of an identifier that are passed over.
    rows_T: identifier of each word.

  Returns:
    `looked`, with those that were appended.
  """
  used = int(words_T[-1]).bit_length() + _place_bits(words_T)
  most, end = looked + 63 - used, 0
  for level, size in enumerate(bits):
    begin, end = end, end + size
    taken = min(end, most) - max(begin, looked)
    if taken > 0:
      codes_T = codes_NL[rows_T, level].astype(np.int64)
      codes_T >>= max(end - most, 0)
      codes_T &= (1 << taken) - 1
      words_T <<= taken
      words_T |= codes_T
  return min(most, end)


def _sorted_places(
  words_T: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The order of words, equal ones as they stood, and which are equal.

  Args:
    words_T: int64 with room for a place; changed.

  Returns:
    The place of each sorted word before, the places of those that equal a
    neighbour, and of each of these the number of its group, rising.
  """
  low = _place_bits(words_T)
  words_T <<= low
  words_T |= np.arange(len(words_T), dtype=np.int32)
  words_T.sort()
  order_T = np.empty(len(words_T), np.int32)
  np.bitwise_and(words_T, (1 << low) - 1, out=order_T, casting='unsafe')
  words_T >>= low
  equal_T = np.zeros(len(words_T) + 1, bool)
  equal_T[1:-1] = words_T[1:] == words_T[:-1]
  tied_T = numbers_of(equal_T[1:] | equal_T[:-1])
  groups_T = np.cumsum(~equal_T[tied_T]) - 1
  return order_T, tied_T, groups_T


def _place_bits(words_T: np.ndarray) -> int:
  """Bits of a place among words."""
  return (len(words_T) - 1).bit_length()


def blocks(count: int) -> Iterator[slice]:
  """Slices of `_BLOCK` rows."""
  return (slice(row, row + _BLOCK) for row in range(0, count, _BLOCK))


def numbers_of(true_N: np.ndarray) -> np.ndarray:
  """Where it is true, as `np.flatnonzero`, in half of its memory."""
  numbers = np.empty(np.count_nonzero(true_N), np.int32)
  done = 0
  for block in blocks(len(true_N)):
    found = np.flatnonzero(true_N[block])
    numbers[done : done + len(found)] = block.start + found
    done += len(found)
  return numbers
