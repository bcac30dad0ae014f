"""Which documents a search may find, as bits of the trie's rows.

Documents that are hidden, or not what a query asks among, are passed over
exactly: a prefix beneath which no document is visible is no prefix at all, and
what is found is what a trie of the visible documents alone would find.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.decoding.trie import WORD_BITS, Trie, TrieTables, bitmaps_of


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Visible:
  """Selections of documents, and the one of each query.

  Attributes:
    chosen_B: int32 selection of each query.
    rows_FX: uint32, of each of F selections a bit a row.
    ranks_FX: [F, X + 1] int32, visible rows before those of each word.
    children_FY: uint32, a bit a child of a wide node: whether any row is
      visible beneath it.
    bitmaps_FXY: uint32, the bitmaps of dense nodes with those children alone.
  """

  chosen_B: jax.Array
  rows_FX: jax.Array
  ranks_FX: jax.Array
  children_FY: jax.Array
  bitmaps_FXY: jax.Array

  def rows(self, rows_BX: jax.Array) -> jax.Array:
    """Whether rows [B, ...] are visible."""
    return self._bits(self.rows_FX, rows_BX)

  def children(self, children_BX: jax.Array) -> jax.Array:
    """Whether any row is visible beneath children [B, ...] of wide nodes."""
    return self._bits(self.children_FY, children_BX)

  def bitmaps(self, places_BX: jax.Array) -> jax.Array:
    """[B, X, words] of dense nodes."""
    return self.bitmaps_FXY[self._beside(places_BX), places_BX]

  def before(self, rows_BX: jax.Array) -> jax.Array:
    """[B, ...] visible rows that stand before a row."""
    words_BX, chosen_BX = rows_BX // WORD_BITS, self._beside(rows_BX)
    below_BX = jnp.uint32(1) << (rows_BX % WORD_BITS).astype(jnp.uint32)
    kept_BX = self.rows_FX[chosen_BX, words_BX] & (below_BX - 1)
    counts_BX = jax.lax.population_count(kept_BX).astype(jnp.int32)
    return self.ranks_FX[chosen_BX, words_BX] + counts_BX

  def at_rank(self, ranks_BX: jax.Array) -> jax.Array:
    """[B, ...] the visible row that so many visible ones stand before."""

    def word_of(chosen, ranks_X):
      found = jnp.searchsorted(self.ranks_FX[chosen], ranks_X, side='right')
      return jnp.clip(found - 1, 0, self.rows_FX.shape[1] - 1)

    words_BX = jax.vmap(word_of)(self.chosen_B, ranks_BX)
    chosen_BX = self._beside(ranks_BX)
    left_BX = ranks_BX - self.ranks_FX[chosen_BX, words_BX]
    word_BX = self.rows_FX[chosen_BX, words_BX]
    place_BX = jnp.zeros_like(ranks_BX)
    # The bit, by halves of what is left of the word.
    for half in (16, 8, 4, 2, 1):
      low_BX = word_BX & jnp.uint32((1 << half) - 1)
      count_BX = jax.lax.population_count(low_BX).astype(jnp.int32)
      above_BX = left_BX >= count_BX
      left_BX = jnp.where(above_BX, left_BX - count_BX, left_BX)
      word_BX = jnp.where(above_BX, word_BX >> half, low_BX)
      place_BX = place_BX + half * above_BX.astype(jnp.int32)
    return words_BX * WORD_BITS + place_BX

  def _beside(self, like_BX):
    """The selection of each query, for each of its numbers."""
    chosen_BX = self.chosen_B.reshape(-1, *(1,) * (like_BX.ndim - 1))
    return jnp.broadcast_to(chosen_BX, like_BX.shape)

  def _bits(self, words_FX, places_BX):
    words_BX = words_FX[self._beside(places_BX), places_BX // WORD_BITS]
    return (words_BX >> (places_BX % WORD_BITS).astype(jnp.uint32)) & 1 != 0


@dataclasses.dataclass(frozen=True)
class Selected:
  """What one selection of documents leaves of a trie, on the host.

  Attributes:
    trie: of all documents.
    rows_X: uint32, a bit a row.
    counts_M: int32, visible rows beneath each child of a wide node.
    children_Y: uint32, a bit a child: whether any is.
    bitmaps: the bitmaps of dense nodes with those children alone.
  """

  trie: Trie
  rows_X: np.ndarray
  counts_M: np.ndarray
  children_Y: np.ndarray
  bitmaps: np.ndarray

  @classmethod
  def of(
    cls, trie: Trie, tables: TrieTables, documents_N: np.ndarray
  ) -> 'Selected':
    """Selects documents.

    Args:
      trie: of all documents.
      tables: the same on the device, for the shapes.
      documents_N: bool, which of them count.
    """
    rows_N = np.asarray(documents_N)[trie.documents]
    before_N = np.concatenate([[0], np.cumsum(rows_N, dtype=np.int32)])
    counts_M = before_N[trie.child_ends] - before_N[trie.child_starts]
    children_M = counts_M > 0
    parents_M = np.repeat(
      np.arange(len(trie.bitmap_rows), dtype=np.int32),
      np.diff(trie.child_offsets),
    )
    bitmaps = np.zeros(tables.bitmaps.shape, np.uint32)
    bitmaps[: len(trie.bitmaps)] = bitmaps_of(
      parents_M[children_M],
      trie.child_codes[children_M],
      trie.bitmap_rows >= 0,
      trie.bitmaps.shape[1],
    )
    return cls(
      trie,
      _packed(rows_N, tables.columns.shape[1]),
      counts_M,
      _packed(children_M, len(tables.child_codes)),
      bitmaps,
    )

  def changed(self, documents: np.ndarray, seen: bool) -> 'Selected':
    """The same with documents that come into view, or go out of it.

    Args:
      documents: distinct numbers; those in view already, or out of it, count
        for nothing.
      seen: whether they come.
    """
    trie, change = self.trie, 1 if seen else -1
    rows = trie.places[documents]
    rows = rows[_bits_at(self.rows_X, rows) != seen]
    rows_X, counts_M = self.rows_X.copy(), self.counts_M.copy()
    children_Y, bitmaps = self.children_Y.copy(), self.bitmaps.copy()
    _flip(rows_X, rows)
    for first, behind in trie.child_bounds:
      starts = trie.child_starts[first:behind]
      children = first - 1 + np.searchsorted(starts, rows, side='right')
      inside = children >= first
      inside[inside] = rows[inside] < trie.child_ends[children[inside]]
      children, counts = np.unique(children[inside], return_counts=True)
      before = counts_M[children]
      counts_M[children] += change * counts.astype(np.int32)
      turned = children[(before > 0) != (counts_M[children] > 0)]
      _flip(children_Y, turned)
      parents = np.searchsorted(trie.child_offsets, turned, side='right') - 1
      places = trie.bitmap_rows[parents]
      dense = places >= 0
      width = bitmaps.shape[1] * WORD_BITS
      bits = places[dense].astype(np.int64) * width
      _flip(bitmaps.reshape(-1), bits + trie.child_codes[turned[dense]])
    return Selected(trie, rows_X, counts_M, children_Y, bitmaps)


def bits_of(selections: Sequence[Selected]) -> tuple[np.ndarray, ...]:
  """The last four fields of Visible, on the host.

  Args:
    selections: of documents of one trie.
  """
  parts = [
    (
      each.rows_X,
      np.concatenate(
        [[0], np.cumsum(np.bitwise_count(each.rows_X), dtype=np.int32)]
      ).astype(np.int32),
      each.children_Y,
      each.bitmaps,
    )
    for each in selections
  ]
  return tuple(np.stack(part) for part in zip(*parts, strict=True))


def visible(
  trie: Trie, tables: TrieTables, documents_FN: np.ndarray, chosen_B: np.ndarray
) -> Visible:
  """Selections of documents on the device.

  Args:
    trie: of all documents.
    tables: the same on the device, for the shapes.
    documents_FN: bool, the documents of each selection.
    chosen_B: the selection of each query.
  """
  selections = [Selected.of(trie, tables, seen_N) for seen_N in documents_FN]
  arrays = map(jax.device_put, bits_of(selections))
  return Visible(jnp.asarray(chosen_B, jnp.int32), *arrays)


def _packed(bits_N: np.ndarray, room: int) -> np.ndarray:
  """Bools as words, with zeros behind them."""
  padded = np.zeros(-(-room // WORD_BITS) * WORD_BITS, bool)
  padded[: len(bits_N)] = bits_N
  return np.packbits(padded, bitorder='little').view(np.uint32)


def _bits_at(words: np.ndarray, places: np.ndarray) -> np.ndarray:
  """Bools at places of words."""
  bits = places.astype(np.uint32) % np.uint32(WORD_BITS)
  return (words[places // WORD_BITS] >> bits) & 1 != 0


def _flip(words: np.ndarray, places: np.ndarray) -> None:
  """Turns bits at distinct places of words."""
  bits = np.uint32(1) << (places % WORD_BITS).astype(np.uint32)
  np.bitwise_xor.at(words, places // WORD_BITS, bits)
