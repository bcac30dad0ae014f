"""Planning ahead: beams are kept by what is beneath them besides their scores.

A prefix's score says how well its own codes fit the query, not how well the
best document beneath it does. Of the best continuations by score, more of them
than beams, some documents beneath each are looked at; what the best of these
scores is added for the choice of the beams that survive, and for nothing else:
their scores and their order stay those of the codes.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gr_jax.decoding.continuations import Nodes
from gr_jax.decoding.top_k import FLOOR, rows
from gr_jax.decoding.union import Extended, Seen, Tries, parts_of, seen_in
from gr_jax.decoding.visibility import Visible


@dataclasses.dataclass(frozen=True)
class Planning:
  """How far a search looks ahead.

  Attributes:
    weight: of the estimate, beside the score of a prefix.
    pool: continuations that are looked at, for each beam that is kept.
    documents: looked at beneath a continuation at most, in each trie.
  """

  weight: float
  pool: int
  documents: int


@dataclasses.dataclass(frozen=True)
class Plan:
  """The planning of one batch of queries.

  Attributes:
    planning: how far it looks.
    scores_fn: documents [B, C] -> [B, C] scores of them.
  """

  planning: Planning
  scores_fn: Callable[[jax.Array], jax.Array]

  def pool(self, width: int) -> int:
    """Continuations that are looked at for `width` beams."""
    return width * self.planning.pool

  def kept(
    self, found: Extended, tables: Tries, width: int, visible: Seen = None
  ) -> Extended:
    """The continuations that survive, in the order of their scores.

    Nothing is looked at where there are no more of them than beams, and a
    part of the pool where that holds all.

    Args:
      found: the best by score, more than `width` of them.
      tables: the trie, or several; an estimate is the best of theirs.
      width: beams that are kept.
      visible: which documents each query may find.
    """
    pool = found.scores_BW.shape[1]
    sizes = sorted({min(2 * width, pool), pool})
    there = jnp.max(jnp.sum(found.scores_BW > FLOOR, axis=1))

    def best_of(size):
      some = _first(found, size)
      totals_BP = some.scores_BW + self.planning.weight * self.estimates(
        some, tables, visible
      )
      totals_BP = jnp.where(some.scores_BW > FLOOR, totals_BP, FLOOR)
      _, places_BW = jax.lax.top_k(totals_BP, width)
      places_BW = jnp.sort(places_BW, axis=1)
      return jax.tree.map(lambda leaf: rows(leaf, places_BW), some)

    return jax.lax.switch(
      jnp.searchsorted(jnp.array([width, *sizes[:-1]]), there, side='left'),
      [
        lambda: _first(found, width),
        *(lambda size=size: best_of(size) for size in sizes),
      ],
    )

  def estimates(
    self, found: Extended, tables: Tries, visible: Seen = None
  ) -> jax.Array:
    """[B, P] the best score of the documents looked at beneath each."""
    parts = parts_of(tables)
    triples = zip(parts, found.nodes, seen_in(tables, visible), strict=True)
    best_BP = jnp.full_like(found.scores_BW, FLOOR)
    for number, (part, nodes, seen) in enumerate(triples):

      def looked_at(part=part, nodes=nodes, seen=seen):
        rows_BPR, some_BP = spread_rows(nodes, self.planning.documents, seen)
        batch = rows_BPR.shape[0]
        scores_BC = self.scores_fn(part.documents[rows_BPR.reshape(batch, -1)])
        scores_BP = jnp.max(scores_BC.reshape(rows_BPR.shape), axis=2)
        return jnp.where(some_BP, scores_BP, FLOOR)

      if not number:
        best_BP = looked_at()
        continue
      # Few beams come to nodes of the tries behind the first.
      best_BP = jnp.maximum(
        best_BP,
        jax.lax.cond(
          jnp.any(nodes.sizes_BW > 0),
          looked_at,
          lambda: jnp.full_like(found.scores_BW, FLOOR),
        ),
      )
    return best_BP


def spread_rows(
  nodes: Nodes, count: int, visible: Visible | None = None
) -> tuple[jax.Array, jax.Array]:
  """Rows beneath nodes, evenly spread over those that are visible.

  As documents stand in the order of their codes, they are of different
  children where there are as many.

  Args:
    nodes: [B, P] of them.
    count: R, rows of a node; a node of fewer has some several times.
    visible: which documents each query may find.

  Returns:
    [B, P, R] rows, any where there is none, and [B, P] whether there is one.
  """
  starts_BP, ends_BP = nodes.starts_BW, nodes.ends_BW
  if visible is not None:
    starts_BP, ends_BP = visible.before(starts_BP), visible.before(ends_BP)
  sizes_BP1 = (ends_BP - starts_BP)[..., None]
  # The middle of each of `count` equal pieces; products stay far from overflow.
  odd_11R = 2 * jnp.arange(count, dtype=jnp.int32)[None, None, :] + 1
  whole_BP1, left_BP1 = jnp.divmod(sizes_BP1, 2 * count)
  inside_BPR = whole_BP1 * odd_11R + left_BP1 * odd_11R // (2 * count)
  rows_BPR = starts_BP[..., None] + inside_BPR
  some_BP = sizes_BP1[..., 0] > 0
  rows_BPR = jnp.where(some_BP[..., None], rows_BPR, 0)
  if visible is not None:
    batch = rows_BPR.shape[0]
    ranked = visible.at_rank(rows_BPR.reshape(batch, -1))
    rows_BPR = ranked.reshape(rows_BPR.shape)
  return rows_BPR, some_BP


def _first(found, count):
  """The best by score."""
  return jax.tree.map(lambda leaf: leaf[:, :count], found)
