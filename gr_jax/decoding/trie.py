"""The trie of all document identifiers, built on the host.

Documents stand in the order of their identifiers. Those beneath a node, which
is a prefix of identifiers, are then rows that follow each other: a node is a
range of rows, and the trie is little more than the sorted table of codes.

Of a node with few rows (at most `SCANNED_ROWS`, nearly all nodes) the search
reads the rows themselves. The others, wide nodes, have a list of their
children; dense ones, most often where one code in `_DENSE` or more has a
child, have a bitmap of the codes besides, and so has the root. Documents that
share an identifier are the rows of the node that is reached last.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import jax
import numpy as np

from gr_jax.decoding.sorting import blocks, numbers_of, sorted_rows

WORD_BITS = 32
# Rows of a node that are read one by one. Wide nodes of a position start
# further apart than that, so that `start // SCANNED_ROWS` tells them apart.
SCANNED_ROWS = 16
# A bitmap pays where at least one code in so many continues the node, or where
# codes are few: it takes two bytes a child or a row at most, and to mask all
# codes no longer than to collect some.
_DENSE = 16
# Rows that a program reads past the end.
_BEHIND = 128
# The device knows no longer numbers, unless all of its numbers are longer.
_LARGEST = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class Trie:
  """Identifiers and their documents, as numpy arrays of exact size.

  Attributes:
    code_sizes: number of codes of each position.
    columns: [L, N] codes of the sorted rows, an unsigned integer type.
    documents: [N] int32 document of each row; in corpus order where several
      share an identifier.
    wide_nodes: [L, N // SCANNED_ROWS + 1] int32, the wide node that starts in
      these rows with so many codes, -1 for none.
    child_offsets: [F + 1] int32 bounds of each wide node in the next two.
    child_codes: [M] codes of the children of wide nodes, rising within a node.
    child_starts: [M] int32 first row of each of these children.
    bitmap_rows: [F] int32 row of each wide node in `bitmaps`, -1 for none.
    bitmaps: [dense nodes, ceil(max(code_sizes) / 32)] uint32, the codes that
      continue a node.
  """

  code_sizes: tuple[int, ...]
  columns: np.ndarray
  documents: np.ndarray
  wide_nodes: np.ndarray
  child_offsets: np.ndarray
  child_codes: np.ndarray
  child_starts: np.ndarray
  bitmap_rows: np.ndarray
  bitmaps: np.ndarray

  def __len__(self) -> int:
    """N, documents."""
    return len(self.documents)

  @property
  def leaf_starts(self) -> np.ndarray:
    """First row of each distinct identifier, in their order."""
    starts_N = np.zeros(len(self), bool)
    starts_N[:1] = True
    for column_N in self.columns:
      starts_N[1:] |= column_N[1:] != column_N[:-1]
    return np.flatnonzero(starts_N)

  @functools.cached_property
  def places(self) -> np.ndarray:
    """[N] int32 row of each document."""
    places_N = np.empty(len(self), np.int32)
    places_N[self.documents] = np.arange(len(self), dtype=np.int32)
    return places_N

  @functools.cached_property
  def child_bounds(self) -> list[tuple[int, int]]:
    """First child, and the one behind the last, of each level's wide nodes."""
    wide = np.count_nonzero(self.wide_nodes >= 0, axis=1)
    bounds = self.child_offsets[np.concatenate([[0], np.cumsum(wide)])]
    return list(itertools.pairwise(bounds.tolist()))

  @functools.cached_property
  def child_ends(self) -> np.ndarray:
    """Row behind the last of each child of wide nodes."""
    ends_M = np.append(self.child_starts, np.int32(0))[1:]
    numbers = [level[level >= 0] for level in self.wide_nodes]
    begins_N = np.zeros(len(self), bool)
    begins_N[:1] = True
    for column_N, numbers_F in zip(self.columns, numbers, strict=True):
      if not len(numbers_F) or not len(self):
        break
      # The last child of a node ends where the node does.
      nodes = np.append(np.flatnonzero(begins_N), len(self))
      lasts = self.child_offsets[numbers_F + 1] - 1
      starts = self.child_starts[lasts]
      ends_M[lasts] = nodes[np.searchsorted(nodes, starts, side='right')]
      begins_N[1:] |= column_N[1:] != column_N[:-1]
    return ends_M

  @property
  def nbytes(self) -> int:
    """Bytes of all arrays, on disk and, without padding, on the device."""
    return sum(getattr(self, name).nbytes for name in ARRAYS)

  @property
  def room(self) -> 'Room':
    """What the tables need on the device."""
    return Room(
      rows=len(self) + _BEHIND,
      wide=len(self.bitmap_rows),
      children=len(self.child_codes) + _BEHIND,
      bitmaps=len(self.bitmaps),
    ).padded()

  def tables(self, room: 'Room | None' = None) -> 'TrieTables':
    """The same on the device, padded so that small changes keep the shapes.

    Args:
      room: of the tables; what they need when None.
    """
    return jax.device_put(self.host_tables(self.room if room is None else room))

  def host_tables(self, room: 'Room') -> 'TrieTables':
    """The same as numpy arrays."""
    nodes = room.rows // SCANNED_ROWS + 1
    return TrieTables(
      columns=_padded(self.columns, room.rows, 0, axis=1),
      documents=_padded(self.documents, room.rows, 0),
      count=np.int32(len(self)),
      wide_nodes=_padded(self.wide_nodes, nodes, -1, axis=1),
      child_offsets=_padded(
        self.child_offsets, room.wide + 1, self.child_offsets[-1]
      ),
      child_codes=_padded(self.child_codes, room.children, 0),
      child_starts=_padded(self.child_starts, room.children, 0),
      bitmap_rows=_padded(self.bitmap_rows, room.wide, -1),
      bitmaps=_padded(self.bitmaps, room.bitmaps, 0),
    )


ARRAYS = tuple(
  field.name for field in dataclasses.fields(Trie) if field.name != 'code_sizes'
)


@dataclasses.dataclass(frozen=True)
class Room:
  """Sizes of the tables of a trie on the device.

  Attributes:
    rows: of `columns` and `documents`.
    wide: wide nodes.
    children: of wide nodes.
    bitmaps: of dense nodes.
  """

  rows: int
  wide: int
  children: int
  bitmaps: int

  @classmethod
  def of_any(cls, documents: int, code_sizes: Sequence[int]) -> 'Room':
    """Enough for every trie of at most so many documents."""
    levels = len(code_sizes) - 1
    nodes = documents // (SCANNED_ROWS + 1)
    dense = [
      documents // max(SCANNED_ROWS + 1, -(-size // _DENSE))
      if size > _DENSE**2
      else nodes
      for size in code_sizes[1:]
    ]
    return cls(
      rows=documents + _BEHIND,
      wide=1 + levels * nodes,
      children=(levels + 1) * documents + _BEHIND,
      bitmaps=1 + sum(dense),
    ).padded()

  def grown(self, share: float) -> 'Room':
    """Larger by a share."""
    sizes = dataclasses.astuple(self)
    return Room(*(int(size * (1 + share)) for size in sizes)).padded()

  def padded(self) -> 'Room':
    """Sizes that small changes keep."""
    return Room(*map(capacity, dataclasses.astuple(self)))

  def holds(self, other: 'Room') -> bool:
    """Whether the tables of `other` fit."""
    pairs = zip(
      dataclasses.astuple(self), dataclasses.astuple(other), strict=True
    )
    return all(mine >= theirs for mine, theirs in pairs)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrieTables:
  """A trie on the device; fields as in `Trie`, padded to capacities.

  Attributes:
    count: N, documents.
  """

  columns: jax.Array
  documents: jax.Array
  count: jax.Array
  wide_nodes: jax.Array
  child_offsets: jax.Array
  child_codes: jax.Array
  child_starts: jax.Array
  bitmap_rows: jax.Array
  bitmaps: jax.Array


def capacity(size: int) -> int:
  """Room for `size` rows: the next of eight steps an octave, at least 128.

  A compiled program depends on the shapes of its tables; with steps, an index
  that grows a little keeps its program, at 12.5 % of waste at most.
  """
  if size <= 128:
    return 128
  step = 1 << max((size - 1).bit_length() - 4, 0)
  return -(-size // step) * step


def build_trie(codes_NL: np.ndarray, code_sizes: Sequence[int]) -> Trie:
  """Builds the trie of a corpus; its documents are rows of `codes_NL`.

  Args:
    codes_NL: identifiers in any order; equal rows share a leaf.
    code_sizes: number of codes of each position, [L].
  """
  sizes = tuple(int(size) for size in code_sizes)
  codes_NL = _checked(np.asarray(codes_NL), sizes)
  documents = sorted_rows(codes_NL, sizes)
  columns = np.empty((len(sizes), len(documents)), code_type(sizes))
  for block in blocks(len(documents)):
    columns[:, block] = codes_NL[documents[block]].T
  return Trie(sizes, columns, documents, *_wide(columns, sizes))


def _wide(
  columns_LN: np.ndarray, sizes: Sequence[int]
) -> tuple[np.ndarray, ...]:
  """The last six fields of Trie, position by position of a sorted table."""
  length, count = columns_LN.shape
  wide_nodes = np.full((length, count // SCANNED_ROWS + 1), -1, np.int32)
  words = -(-max(sizes) // WORD_BITS)
  if not count:
    return _root_alone(wide_nodes, columns_LN, words)
  counts, codes, starts, dense, bitmaps = [], [], [], [], []
  # The wide nodes of a position. The root always counts as one, and as dense.
  first, starts_F, ends_F = 0, np.zeros(1, np.int32), np.full(1, count)
  for level, column_N in enumerate(columns_LN):
    # Beneath a node that is not wide none is.
    if not len(starts_F):
      break
    rows = _children(column_N, starts_F, ends_F)
    firsts_F = np.searchsorted(rows, starts_F)
    counts_F = np.diff(firsts_F, append=len(rows))
    numbers_F = np.arange(len(starts_F), dtype=np.int32)
    wide_nodes[level, starts_F // SCANNED_ROWS] = first + numbers_F
    counts.append(counts_F)
    codes.append(column_N[rows])
    starts.append(rows)
    _check_room('children of wide nodes', sum(map(len, starts)))
    codes_at = sizes[level] if level else 0
    dense.append(np.maximum(counts_F, _DENSE) * _DENSE >= codes_at)
    parents = np.repeat(numbers_F, counts_F)
    bitmaps.append(bitmaps_of(parents, codes[-1], dense[-1], words))
    ends = np.append(rows[1:], np.int32(count))
    ends[firsts_F + counts_F - 1] = ends_F
    wide = ends - rows > SCANNED_ROWS
    first, starts_F, ends_F = first + len(starts_F), rows[wide], ends[wide]
  dense_F = np.concatenate(dense)
  return (
    wide_nodes,
    np.cumsum(np.concatenate([[0], *counts])).astype(np.int32),
    np.concatenate(codes),
    np.concatenate(starts),
    np.where(dense_F, np.cumsum(dense_F) - 1, -1).astype(np.int32),
    np.concatenate(bitmaps),
  )


def _root_alone(wide_nodes, columns_LN, words):
  """The same where there is no document."""
  wide_nodes[0] = 0
  nothing = np.zeros(0, np.int32)
  bounds, bitmaps = np.zeros(2, np.int32), np.zeros((1, words), np.uint32)
  return wide_nodes, bounds, columns_LN[0], nothing, bounds[:1], bitmaps


def _children(
  column_N: np.ndarray, starts_F: np.ndarray, ends_F: np.ndarray
) -> np.ndarray:
  """int32 first row of each child of some nodes, by the codes that come next.

  Beneath a node a child begins wherever the code is another than before.
  """
  begins_N = np.empty(len(column_N), bool)
  np.not_equal(column_N[1:], column_N[:-1], out=begins_N[1:])
  begins_N[starts_F] = True
  beneath_N = np.zeros(len(column_N) + 1, np.int8)
  beneath_N[starts_F] = 1
  beneath_N[ends_F] -= 1
  np.cumsum(beneath_N, dtype=np.int8, out=beneath_N)
  begins_N &= beneath_N[:-1].view(bool)
  return numbers_of(begins_N)


def bitmaps_of(
  parents: np.ndarray, codes: np.ndarray, dense_F: np.ndarray, words: int
) -> np.ndarray:
  """[dense nodes, words] uint32, the codes of children as bits.

  Args:
    parents: [children] number of each child's parent, rising.
    codes: [children] code of each child, rising within a parent.
    dense_F: which parents have a bitmap.
    words: of a bitmap.
  """
  rows_F = np.cumsum(dense_F) - 1
  bitmaps = np.zeros((int(dense_F.sum()), words), np.uint32)
  for block in blocks(len(parents)):
    kept = dense_F[parents[block]]
    codes_M = codes[block][kept].astype(np.int64)
    slots = rows_F[parents[block][kept]] * words + codes_M // WORD_BITS
    bits = np.uint32(1) << (codes_M % WORD_BITS).astype(np.uint32)
    firsts = np.flatnonzero(np.diff(slots, prepend=-1))
    if len(firsts):
      # The last word of a block may be the first of the next.
      ored = np.bitwise_or.reduceat(bits, firsts)
      bitmaps.reshape(-1)[slots[firsts]] |= ored
  return bitmaps


def code_type(code_sizes: Sequence[int]) -> type[np.unsignedinteger]:
  """The smallest type that holds every code."""
  largest = max(code_sizes) - 1
  types = (np.uint8, np.uint16, np.uint32)
  return next(kind for kind in types if largest <= np.iinfo(kind).max)


def _checked(codes_NL: np.ndarray, code_sizes: Sequence[int]) -> np.ndarray:
  """The codes, refused when one is outside its position."""
  if codes_NL.ndim != 2 or codes_NL.shape[1] != len(code_sizes):
    raise ValueError(
      f'expected codes [N, {len(code_sizes)}], got {codes_NL.shape}'
    )
  if not all(0 < size <= _LARGEST for size in code_sizes):
    raise ValueError(
      f'expected code sizes from 1 to {_LARGEST}, got {list(code_sizes)}'
    )
  _check_room('documents', len(codes_NL))
  if not len(codes_NL):
    return codes_NL
  sizes_L = np.asarray(code_sizes)
  least_L, most_L = codes_NL.min(axis=0), codes_NL.max(axis=0)
  if (least_L < 0).any() or (most_L >= sizes_L).any():
    row, level = np.argwhere((codes_NL < 0) | (codes_NL >= sizes_L))[0]
    raise ValueError(
      f'code {codes_NL[row, level]} of document {row} at position {level} is '
      f'outside 0..{code_sizes[level] - 1}'
    )
  return codes_NL


def _check_room(what: str, count: int) -> None:
  """Refuses what the device cannot number, with the room that it is given."""
  if capacity(count + _BEHIND) > _LARGEST:
    raise ValueError(
      f'{count} {what} need 64-bit numbers: split the corpus over several tries'
    )


def _padded(
  array: np.ndarray, size: int, value: int, axis: int = 0
) -> np.ndarray:
  """An array that goes up to `size` along an axis, by `value` behind it."""
  shape = array.shape[:axis] + (size,) + array.shape[axis + 1 :]
  result = np.full(shape, value, array.dtype)
  result[(slice(None),) * axis + (slice(array.shape[axis]),)] = array
  return result
