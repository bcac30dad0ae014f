"""Which documents a search may find, as bits of the trie's rows.

Documents that are hidden, deleted, or not what a query asks for are passed over
exactly: a prefix beneath which no document is visible is no prefix at all, and
what is found is what a trie of the visible documents alone would find.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.decoding.trie import WORD_BITS, Trie, TrieTables, bitmaps_of


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Visibility:
  """F selections of documents, of which each query names one.

  Attributes:
    rows_FX: uint32, a bit a row.
    ranks_FX: [F, X + 1] int32, visible rows before those of each word.
    children_FY: uint32, a bit a child of a wide node: whether any row is
      visible beneath it.
    bitmaps_FXY: uint32, the bitmaps of dense nodes with those children alone.
  """

  rows_FX: jax.Array
  ranks_FX: jax.Array
  children_FY: jax.Array
  bitmaps_FXY: jax.Array

  def rows_visible(
    self, selection_B: jax.Array, rows_BX: jax.Array
  ) -> jax.Array:
    """Whether rows [B, ...] are visible."""
    return _bits(self.rows_FX, selection_B, rows_BX)

  def children_visible(
    self, selection_B: jax.Array, children_BX: jax.Array
  ) -> jax.Array:
    """Whether children [B, ...] of wide nodes have a visible row."""
    return _bits(self.children_FY, selection_B, children_BX)

  def before(self, selection_B: jax.Array, rows_BX: jax.Array) -> jax.Array:
    """[B, ...] visible rows that stand before a row."""
    words_BX = rows_BX // WORD_BITS
    below = (rows_BX % WORD_BITS).astype(jnp.uint32)
    selection_BX = _wide(selection_B, rows_BX)
    kept = self.rows_FX[selection_BX, words_BX] & ((jnp.uint32(1) << below) - 1)
    return self.ranks_FX[selection_BX, words_BX] + (
      jax.lax.population_count(kept).astype(jnp.int32)
    )

  def row_of(self, selection_B: jax.Array, ranks_BX: jax.Array) -> jax.Array:
    """[B, ...] the visible row that so many visible ones stand before."""

    def word_of(selection, ranks_X):
      ranks = self.ranks_FX[selection]
      return jnp.searchsorted(ranks, ranks_X, side='right') - 1

    words_BX = jax.vmap(word_of)(selection_B, ranks_BX)
    words_BX = jnp.clip(words_BX, 0, self.rows_FX.shape[1] - 1)
    selection_BX = _wide(selection_B, ranks_BX)
    left_BX = ranks_BX - self.ranks_FX[selection_BX, words_BX]
    word_BX = self.rows_FX[selection_BX, words_BX]
    place_BX = jnp.zeros_like(ranks_BX)
    # The bit by halves of what is left of the word.
    for half in (16, 8, 4, 2, 1):
      low_BX = word_BX & jnp.uint32((1 << half) - 1)
      count_BX = jax.lax.population_count(low_BX).astype(jnp.int32)
      above_BX = left_BX >= count_BX
      left_BX = jnp.where(above_BX, left_BX - count_BX, left_BX)
      word_BX = jnp.where(above_BX, word_BX >> half, low_BX)
      place_BX = place_BX + half * above_BX
    return words_BX * WORD_BITS + place_BX


def visibility(
  trie: Trie, tables: TrieTables, visible_FN: np.ndarray
) -> Visibility:
  """Selections of documents on the device.

  Args:
    trie: of all documents.
    tables: the same on the device, for the shapes.
    visible_FN: bool, the documents of each selection.
  """
  parts = [_selection(trie, tables, visible_N) for visible_N in visible_FN]
  return Visibility(
    *(jnp.asarray(np.stack(x)) for x in zip(*parts, strict=True))
  )


def _selection(trie, tables, visible_N):
  """The arrays of one selection, in the order of the fields."""
  rows_N = np.asarray(visible_N)[trie.documents]
  before_N = np.concatenate([[0], np.cumsum(rows_N)])
  children_M = before_N[trie.child_ends] > before_N[trie.child_starts]
  parents_M = np.repeat(
    np.arange(len(trie.bitmap_rows)), np.diff(trie.child_offsets)
  )
  bitmaps = bitmaps_of(
    parents_M[children_M],
    trie.child_codes[children_M],
    trie.bitmap_rows >= 0,
    trie.bitmaps.shape[1],
  )
  words_X = _packed(rows_N, tables.columns.shape[1])
  ranks_X = np.concatenate([[0], np.cumsum(np.bitwise_count(words_X))])
  padded = np.zeros(tables.bitmaps.shape, np.uint32)
  padded[: len(bitmaps)] = bitmaps
  return (
    words_X,
    ranks_X.astype(np.int32),
    _packed(children_M, len(tables.child_codes)),
    padded,
  )


def _packed(bits_N: np.ndarray, room: int) -> np.ndarray:
  """Bools as words, padded with zeros."""
  padded = np.zeros(-(-room // WORD_BITS) * WORD_BITS, bool)
  padded[: len(bits_N)] = bits_N
  return np.packbits(padded, bitorder='little').view(np.uint32)


def _wide(selection_B, like_BX):
  """The selection of each query, beside each of its numbers."""
  shape = (-1,) + (1,) * (like_BX.ndim - 1)
  return jnp.broadcast_to(selection_B.reshape(shape), like_BX.shape)


def _bits(words_FX, selection_B, places_BX):
  words_BX = words_FX[_wide(selection_B, places_BX), places_BX // WORD_BITS]
  return (words_BX >> (places_BX % WORD_BITS).astype(jnp.uint32)) & 1 != 0
