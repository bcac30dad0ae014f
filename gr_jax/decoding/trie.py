"""The trie of all document identifiers, built on the host.

Nodes are numbered breadth first, so that the children of a node follow each
other and the nodes of the last level (the leaves) come last. A node then needs
two things only: which codes continue it (a bitmap of K bits) and the number of
its first child; the child of a code is the first child plus the count of lower
bits that are set. Documents that share an identifier share a leaf: a leaf is a
bucket of documents, in corpus order.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

WORD_BITS = 32


@dataclasses.dataclass(frozen=True)
class Trie:
  """Identifiers and their documents, as numpy arrays of exact size.

  Attributes:
    code_sizes: number of codes of each position.
    bitmaps: [inner nodes, ceil(max(code_sizes) / 32)] uint32, the codes that
      continue a node.
    first_child: [inner nodes] int32, global number of the first child.
    leaf_offsets: [leaves + 1] int32 bounds of each leaf in `leaf_documents`.
    leaf_documents: [N] int32 document numbers, grouped by leaf.
  """

  code_sizes: tuple[int, ...]
  bitmaps: np.ndarray
  first_child: np.ndarray
  leaf_offsets: np.ndarray
  leaf_documents: np.ndarray

  @property
  def leaves(self) -> int:
    """Number of distinct identifiers."""
    return len(self.leaf_offsets) - 1

  def tables(self) -> 'TrieTables':
    """The same on the device, padded so that small changes keep the shapes."""
    inner = capacity(len(self.first_child))
    leaves = capacity(self.leaves)
    return TrieTables(
      bitmaps=jnp.asarray(_padded(self.bitmaps, inner, 0)),
      first_child=jnp.asarray(_padded(self.first_child, inner, 0)),
      leaf_start=jnp.int32(len(self.first_child)),
      leaf_offsets=jnp.asarray(
        _padded(self.leaf_offsets, leaves + 1, self.leaf_offsets[-1])
      ),
      leaf_documents=jnp.asarray(
        _padded(self.leaf_documents, capacity(len(self.leaf_documents)), 0)
      ),
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrieTables:
  """A trie on the device; fields as in `Trie`, padded to capacities.

  Attributes:
    leaf_start: number of the first leaf, which is the count of inner nodes.
  """

  bitmaps: jax.Array
  first_child: jax.Array
  leaf_start: jax.Array
  leaf_offsets: jax.Array
  leaf_documents: jax.Array


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
  """Builds the trie of the identifiers of a corpus, in any order.

  Args:
    codes_NL: identifier of each document; equal rows share a leaf.
    code_sizes: number of codes of each position, [L].

  Returns:
    The trie; document d of a leaf is row d of `codes_NL`.
  """
  codes_NL = _checked(np.asarray(codes_NL), code_sizes)
  order = np.lexsort(_packed_keys(codes_NL, code_sizes))
  sorted_NL = codes_NL[order]
  # starts[l] marks the rows where an identifier's first l + 1 codes are new.
  starts = np.ones(sorted_NL.T.shape, bool)
  np.not_equal(sorted_NL[1:].T, sorted_NL[:-1].T, out=starts[:, 1:])
  np.logical_or.accumulate(starts, axis=0, out=starts)
  counts = np.concatenate([[1], starts.sum(axis=1)])
  if counts.sum() >= np.iinfo(np.int32).max:
    raise ValueError(f'a trie of {counts.sum()} nodes needs 64-bit numbers')
  inner = int(counts[:-1].sum())
  words = -(-max(code_sizes) // WORD_BITS)
  bitmaps = np.zeros((inner, words), np.uint32)
  first_child = np.zeros(inner, np.int32)
  level_start = 0
  parent_N = np.zeros(len(order), np.int64)
  for level, size in enumerate(counts[:-1]):
    rows = np.flatnonzero(starts[level])
    _fill_level(
      bitmaps[level_start : level_start + size],
      first_child[level_start : level_start + size],
      parent_N[rows],
      sorted_NL[rows, level],
      level_start + size,
    )
    level_start += size
    parent_N = np.cumsum(starts[level]) - 1
  leaf_offsets = np.append(np.flatnonzero(starts[-1]), len(order))
  return Trie(
    code_sizes=tuple(int(size) for size in code_sizes),
    bitmaps=bitmaps,
    first_child=first_child,
    leaf_offsets=leaf_offsets.astype(np.int32),
    leaf_documents=order.astype(np.int32),
  )


def _checked(codes_NL: np.ndarray, code_sizes: Sequence[int]) -> np.ndarray:
  """The codes as int64, refused when a code is outside its level."""
  if codes_NL.ndim != 2 or codes_NL.shape[1] != len(code_sizes):
    raise ValueError(
      f'expected codes [N, {len(code_sizes)}], got {codes_NL.shape}'
    )
  if not codes_NL.size:
    raise ValueError('expected the codes of one document or more, got none')
  codes_NL = codes_NL.astype(np.int64)
  outside = (codes_NL < 0) | (codes_NL >= np.asarray(code_sizes))
  if outside.any():
    row, level = np.argwhere(outside)[0]
    raise ValueError(
      f'code {codes_NL[row, level]} of document {row} at position {level} is '
      f'outside 0..{code_sizes[level] - 1}'
    )
  return codes_NL


def _packed_keys(
  codes_NL: np.ndarray, code_sizes: Sequence[int]
) -> list[np.ndarray]:
  """Sort keys for lexsort (last key first), several positions to a word."""
  keys: list[np.ndarray] = []
  used = 64
  for level, size in enumerate(code_sizes):
    bits = max(int(size - 1).bit_length(), 1)
    if used + bits > 63:
      keys.append(np.zeros(len(codes_NL), np.int64))
      used = 0
    keys[-1] = (keys[-1] << bits) | codes_NL[:, level]
    used += bits
  return keys[::-1]


def _fill_level(
  bitmaps: np.ndarray,
  first_child: np.ndarray,
  parents: np.ndarray,
  codes: np.ndarray,
  children_start: int,
) -> None:
  """Writes the bitmap and first child of the nodes of one level, in place.

  Args:
    bitmaps: [nodes of the level, words] view to fill.
    first_child: [nodes of the level] view to fill.
    parents: [children] number of each child's parent within the level, rising.
    codes: [children] code of each child, rising within a parent.
    children_start: global number of the first child.
  """
  first_child[:] = children_start + np.searchsorted(
    parents, np.arange(len(first_child))
  )
  slots = parents * bitmaps.shape[1] + codes // WORD_BITS
  bits = np.uint32(1) << (codes % WORD_BITS).astype(np.uint32)
  firsts = np.flatnonzero(np.diff(slots, prepend=-1))
  bitmaps.reshape(-1)[slots[firsts]] = np.bitwise_or.reduceat(bits, firsts)


def _padded(rows: np.ndarray, size: int, value: int) -> np.ndarray:
  """`rows` with `value` behind them, up to `size` rows."""
  result = np.full((size, *rows.shape[1:]), value, rows.dtype)
  result[: len(rows)] = rows
  return result
