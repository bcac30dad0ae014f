"""The best continuations of beams that a trie allows: pure functions of arrays.

A node is a range of rows of the trie's sorted table. Three kinds of nodes are
continued in three ways, and each way is run only where a beam needs it, so that
one wide node does not make every beam pay:

  a few rows: the codes of the rows are read, the first of each kind counts;
  dense (with many children): all codes of the position are masked;
  wide, not dense: its list of children is read, a piece at a time.

Each gives the best W of its beams; then they are merged. All of it is exact.
"""

import dataclasses

import jax
import jax.numpy as jnp

from gr_jax.decoding.top_k import FLOOR, at, best_totals, rows
from gr_jax.decoding.trie import SCANNED_ROWS, WORD_BITS, TrieTables
from gr_jax.decoding.visibility import Visible

# The least score of one allowed code: 32 positions of it still beat FLOOR.
LEAST_CODE_SCORE = -1e28
# Children of a wide node that are read at once, and pieces of a query so read.
_PIECE = 64
_PIECES = 32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Nodes:
  """Nodes of a trie.

  Attributes:
    starts_BW: first row.
    ends_BW: row behind the last; where it is the first there is no node.
  """

  starts_BW: jax.Array
  ends_BW: jax.Array

  @property
  def sizes_BW(self) -> jax.Array:
    """Documents beneath each node, 0 where there is none."""
    return self.ends_BW - self.starts_BW


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Continuations:
  """Beams that are one code longer, best first.

  Attributes:
    scores_BW: of the prefix with the code, FLOOR where there is none.
    parents_BW: beam that is continued.
    codes_BW: the code.
    nodes: reached, of no rows where there is none.
  """

  scores_BW: jax.Array
  parents_BW: jax.Array
  codes_BW: jax.Array
  nodes: Nodes


def root(tables: TrieTables, batch: int) -> Nodes:
  """The root, of all documents, [batch, 1]."""
  return Nodes(
    jnp.zeros((batch, 1), jnp.int32),
    jnp.broadcast_to(tables.count, (batch, 1)),
  )


def best_continuations(
  tables: TrieTables,
  nodes: Nodes,
  beams_BW: jax.Array,
  scores_BWK: jax.Array,
  level: jax.Array | int,
  width: int,
  visible: Visible | None = None,
) -> Continuations:
  """The `width` best of all allowed continuations of all beams.

  Ties go to the better-placed beam, then to the lower code.

  Args:
    tables: the trie.
    nodes: reached by the beams, with `level` codes.
    beams_BW: scores of the beams.
    scores_BWK: score of each next code; NaN or -inf count as the least.
    level: position of the next code.
    width: continuations that are kept.
    visible: which documents count; all when None.
  """
  return _search(
    tables, nodes, beams_BW, scores_BWK, level, width, visible
  ).best()


def first_codes(
  tables: TrieTables,
  scores_B1K: jax.Array,
  width: int,
  visible: Visible | None = None,
) -> Continuations:
  """The same of the root, which is always dense."""
  batch = scores_B1K.shape[0]
  search = _search(
    tables,
    root(tables, batch),
    jnp.zeros((batch, 1)),
    scores_B1K,
    0,
    width,
    visible,
  )
  numbers_B1 = jnp.zeros((batch, 1), jnp.int32)
  best = search.of_masked(numbers_B1, numbers_B1 == 0)
  return search.of_children(numbers_B1, *best)


def _search(tables, nodes, beams_BW, scores_BWK, level, width, visible):
  # Else XLA does the model's last operations again for each way.
  scores_BWK = jax.lax.optimization_barrier(scores_BWK)
  return _Search(tables, nodes, beams_BW, scores_BWK, level, width, visible)


@dataclasses.dataclass(frozen=True)
class _Search:
  """The arguments of `best_continuations`, and the three ways."""

  tables: TrieTables
  nodes: Nodes
  beams_BW: jax.Array
  scores_BWK: jax.Array
  level: jax.Array | int
  width: int
  visible: Visible | None

  def best(self):
    """Continuations of beams of all kinds."""
    sizes_BW = self.nodes.sizes_BW
    wide_BW = sizes_BW > SCANNED_ROWS
    most = jnp.max(sizes_BW)
    return jax.lax.switch(
      (most > 1).astype(jnp.int32) + (most > SCANNED_ROWS),
      (
        self.of_one_row,
        lambda: self.of_few_rows(sizes_BW > 0),
        lambda: self.of_all(wide_BW),
      ),
    )

  def of_all(self, wide_BW):
    """The same where there are wide ones."""
    slots_BW = jnp.where(wide_BW, self.nodes.starts_BW // SCANNED_ROWS, 0)
    numbers_BW = jnp.maximum(self.tables.wide_nodes[self.level, slots_BW], 0)
    dense_BW = wide_BW & (self.tables.bitmap_rows[numbers_BW] >= 0)
    some_BW = self.nodes.sizes_BW > 0
    found = self.of_children(numbers_BW, *self.of_dense(numbers_BW, dense_BW))

    def with_others():
      listed = self.of_listed(numbers_BW, wide_BW & ~dense_BW)
      return _merged(
        self.width,
        found,
        self.of_children(numbers_BW, *listed),
        self.of_few_rows(some_BW & ~wide_BW),
      )

    others_BW = some_BW & ~dense_BW
    return jax.lax.cond(jnp.any(others_BW), with_others, lambda: found)

  def nothing(self):
    """No continuation at all."""
    zeros = jnp.zeros((self.beams_BW.shape[0], self.width), jnp.int32)
    floor = jnp.full(zeros.shape, FLOOR)
    return Continuations(floor, zeros, zeros, Nodes(zeros, zeros))

  def of_one_row(self):
    """Continuations where no beam has more rows than one, which is common."""
    starts_BW, there_BW = self.nodes.starts_BW, self.nodes.sizes_BW > 0
    if self.visible is not None:
      there_BW &= self.visible.rows(starts_BW)
    codes_BW = at(self.tables.columns, self.level, starts_BW).astype(jnp.int32)
    totals_BW1 = self._totals(there_BW[..., None], codes_BW[..., None])
    scores_BW, parents_BW = best_totals(totals_BW1, self.width)
    starts_BW = rows(starts_BW, parents_BW)
    return self._kept(
      scores_BW,
      parents_BW,
      rows(codes_BW, parents_BW),
      starts_BW,
      starts_BW + 1,
    )

  def of_few_rows(self, kind_BW):
    """Continuations of beams with few rows, which are read."""
    rows_BWR = self.nodes.starts_BW[..., None] + _numbers(SCANNED_ROWS)
    codes_BWR = at(self.tables.columns, self.level, rows_BWR).astype(jnp.int32)
    inside_BWR = rows_BWR < self.nodes.ends_BW[..., None]
    inside_BWR &= kind_BW[..., None]
    if self.visible is not None:
      inside_BWR &= self.visible.rows(rows_BWR)
    known_BWR = jnp.where(inside_BWR, codes_BWR, -1)
    # Codes rise: one is new where it is above all before.
    before_BWR = codes_BWR
    if self.visible is not None:
      before_BWR = jax.lax.cummax(known_BWR, axis=2)
    before_BWR = jnp.pad(
      before_BWR[..., :-1], ((0, 0), (0, 0), (1, 0)), constant_values=-1
    )
    new_BWR = known_BWR > before_BWR
    totals_BWR = self._totals(new_BWR, codes_BWR)
    scores_BW, places_BW = best_totals(totals_BWR, self.width)
    parents_BW, offsets_BW = jnp.divmod(places_BW, SCANNED_ROWS)
    starts_BW = rows(self.nodes.starts_BW, parents_BW) + offsets_BW
    own_BWR = rows(known_BWR, parents_BW)
    codes_BW1 = jnp.take_along_axis(own_BWR, offsets_BW[..., None], axis=-1)
    behind_BWR = jnp.where(own_BWR == codes_BW1, 1 + _numbers(SCANNED_ROWS), 0)
    ends_BW = rows(self.nodes.starts_BW, parents_BW) + jnp.max(behind_BWR, -1)
    return self._kept(
      scores_BW, parents_BW, codes_BW1[..., 0], starts_BW, ends_BW
    )

  def of_dense(self, numbers_BW, kind_BW):
    """Scores, beams, codes and ranks of children of beams with bitmaps.

    Most often all beams are of this kind or few, and then those alone are
    masked.
    """
    few = -(-kind_BW.shape[1] // 8)

    def of_few():
      beams_BX = jnp.argsort(~kind_BW, axis=1, stable=True)[:, :few]
      return self.of_masked(
        rows(numbers_BW, beams_BX), rows(kind_BW, beams_BX), beams_BX
      )

    return jax.lax.switch(
      jnp.searchsorted(
        jnp.array([1, few + 1]), jnp.max(jnp.sum(kind_BW, axis=1)), side='right'
      ),
      (self._none, of_few, lambda: self.of_masked(numbers_BW, kind_BW)),
    )

  def of_masked(self, numbers_BX, there_BX, beams_BX=None):
    """Scores, beams, codes and ranks of children of all or some beams."""
    codes = self.scores_BWK.shape[-1]
    places_BX = jnp.maximum(self.tables.bitmap_rows[numbers_BX], 0)
    words_BXY = seen_BXY = self.tables.bitmaps[places_BX]
    if self.visible is not None:
      seen_BXY = self.visible.bitmaps(places_BX)
    bits = jnp.arange(WORD_BITS, dtype=jnp.uint32)[None, None, None, :]
    allowed_BXK = (seen_BXY[..., None] >> bits) & 1 != 0
    allowed_BXK = allowed_BXK.reshape(*there_BX.shape, -1)[..., :codes]
    missing = codes - allowed_BXK.shape[-1]
    allowed_BXK = jnp.pad(allowed_BXK, ((0, 0), (0, 0), (0, missing)))
    scores_BXK, beams_scores_BX = self.scores_BWK, self.beams_BW
    if beams_BX is not None:
      scores_BXK = rows(scores_BXK, beams_BX)
      beams_scores_BX = rows(beams_scores_BX, beams_BX)
    totals_BXK = jnp.where(
      allowed_BXK & there_BX[..., None],
      _finite(scores_BXK) + beams_scores_BX[..., None],
      FLOOR,
    )
    scores_BW, places_BW = best_totals(totals_BXK, self.width)
    chosen_BW, codes_BW = jnp.divmod(places_BW, codes)
    below_BWY = codes_BW[..., None] - WORD_BITS * _numbers(words_BXY.shape[-1])
    below_BWY = jnp.clip(below_BWY, 0, WORD_BITS)
    kept_BWY = jnp.where(
      below_BWY < WORD_BITS,
      (jnp.uint32(1) << (below_BWY % WORD_BITS).astype(jnp.uint32)) - 1,
      jnp.uint32(0xFFFFFFFF),
    )
    counts_BWY = jax.lax.population_count(rows(words_BXY, chosen_BW) & kept_BWY)
    ranks_BW = jnp.sum(counts_BWY, axis=-1).astype(jnp.int32)
    if beams_BX is not None:
      chosen_BW = rows(beams_BX, chosen_BW)
    return scores_BW, chosen_BW, codes_BW, ranks_BW

  def of_listed(self, numbers_BW, kind_BW):
    """Scores, beams, codes and ranks of children that are read in pieces."""
    offsets = self.tables.child_offsets
    firsts_BW = offsets[numbers_BW]
    counts_BW = jnp.where(kind_BW, offsets[numbers_BW + 1] - firsts_BW, 0)
    pieces_BW = -(-counts_BW // _PIECE)
    until_BW = jnp.cumsum(pieces_BW, axis=1)
    last = kind_BW.shape[1] - 1

    def look(state):
      turn, best = state
      pieces_P = turn * _PIECES + jnp.arange(_PIECES, dtype=jnp.int32)
      beams_BP = jax.vmap(
        lambda until_W: jnp.searchsorted(until_W, pieces_P, side='right')
      )(until_BW)
      there_BP, beams_BP = beams_BP <= last, jnp.minimum(beams_BP, last)
      piece_BP = pieces_P[None, :] - rows(until_BW - pieces_BW, beams_BP)
      ranks_BPC = piece_BP[..., None] * _PIECE + _numbers(_PIECE)
      there_BPC = there_BP[..., None] & (
        ranks_BPC < rows(counts_BW, beams_BP)[..., None]
      )
      children_BPC = rows(firsts_BW, beams_BP)[..., None] + ranks_BPC
      children_BPC = jnp.where(there_BPC, children_BPC, 0)
      codes_BPC = self.tables.child_codes[children_BPC].astype(jnp.int32)
      if self.visible is not None:
        there_BPC &= self.visible.children(children_BPC)
      totals_BPC = self._totals(there_BPC, codes_BPC, beams_BP)
      parents_BPC = jnp.broadcast_to(beams_BP[..., None], codes_BPC.shape)
      new = totals_BPC, parents_BPC, codes_BPC, ranks_BPC
      batch = totals_BPC.shape[0]
      return turn + 1, self._better(
        best, [part.reshape(batch, -1) for part in new]
      )

    pieces = jnp.max(until_BW[:, -1])
    return jax.lax.while_loop(
      lambda state: state[0] * _PIECES < pieces,
      look,
      (jnp.int32(0), self._none()),
    )[1]

  def _none(self):
    """Scores, beams, codes and ranks of no child."""
    none = self.nothing()
    return none.scores_BW, none.parents_BW, none.codes_BW, none.codes_BW

  def _better(self, best, new):
    """The best of those so far and new ones, which come behind in ties."""
    both = [jnp.concatenate(x, axis=1) for x in zip(best, new, strict=True)]
    scores_BW, places_BW = jax.lax.top_k(both[0], self.width)
    return scores_BW, *(rows(part, places_BW) for part in both[1:])

  def of_children(self, numbers_BW, scores_BW, parents_BW, codes_BW, ranks_BW):
    """Continuations to children of wide nodes, known by their rank."""
    offsets = self.tables.child_offsets
    numbers_BW = rows(numbers_BW, parents_BW)
    children_BW = offsets[numbers_BW] + ranks_BW
    last_BW = children_BW + 1 >= offsets[numbers_BW + 1]
    ends_BW = jnp.where(
      last_BW,
      rows(self.nodes.ends_BW, parents_BW),
      self.tables.child_starts[children_BW + 1],
    )
    starts_BW = self.tables.child_starts[children_BW]
    return self._kept(scores_BW, parents_BW, codes_BW, starts_BW, ends_BW)

  def _totals(self, there_BXC, codes_BXC, beams_BX=None):
    """Scores of beams with a code, FLOOR where it is not there."""
    batch, before, codes = self.scores_BWK.shape
    beams_BW, lines_BX = self.beams_BW, jnp.arange(before)[None, :]
    if beams_BX is not None:
      beams_BW, lines_BX = rows(beams_BW, beams_BX), beams_BX
    lines_BX = lines_BX + before * jnp.arange(batch)[:, None]
    # Two numbers: 32 bits might not be enough for one.
    scores_XK = self.scores_BWK.reshape(-1, codes)
    scores_BXC = _finite(at(scores_XK, lines_BX[..., None], codes_BXC))
    totals_BXC = scores_BXC + beams_BW[..., None]
    # -0. stands below 0. for top_k, which would not be a tie.
    totals_BXC = jnp.where(totals_BXC == 0, 0.0, totals_BXC)
    return jnp.where(there_BXC, totals_BXC, FLOOR)

  def _kept(self, scores_BW, parents_BW, codes_BW, starts_BW, ends_BW):
    """The same without nodes where there is no continuation."""
    there_BW = scores_BW > FLOOR
    starts_BW = jnp.where(there_BW, starts_BW, 0)
    ends_BW = jnp.where(there_BW, ends_BW, 0)
    nodes = Nodes(starts_BW, ends_BW)
    return Continuations(scores_BW, parents_BW, codes_BW, nodes)


def _merged(width, *found):
  """The best of those of different beams."""
  both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *found)
  # Within a beam they are in the order of ties already, and sorting is stable.
  *_, order_BX = jax.lax.sort(
    (-both.scores_BW, both.parents_BW, _places(both.scores_BW)),
    dimension=1,
    num_keys=2,
  )
  return jax.tree.map(lambda rows_BX: rows(rows_BX, order_BX[:, :width]), both)


def _places(array):
  return jnp.broadcast_to(jnp.arange(array.shape[1])[None, :], array.shape)


def _finite(scores):
  """Scores in float32, NaN and -inf as the least of an allowed code."""
  scores = scores.astype(jnp.float32)
  return jnp.where(scores > LEAST_CODE_SCORE, scores, LEAST_CODE_SCORE)


def _numbers(count):
  """[1, 1, count] int32 from 0."""
  return jnp.arange(count, dtype=jnp.int32)[None, None, :]
