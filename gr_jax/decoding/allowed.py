"""The mask itself: which codes continue each beam, and what is lost to others.

The beam search never makes it: it collects continuations kind by kind. The mask
is for what needs all of a node's codes at once: scores that are normalised over
the allowed codes, and other decoders' logits.
"""

import jax
import jax.numpy as jnp

from gr_jax.decoding.continuations import Nodes, root
from gr_jax.decoding.top_k import at
from gr_jax.decoding.trie import SCANNED_ROWS, TrieTables
from gr_jax.decoding.union import Seen, Tries, parts_of, seen_in
from gr_jax.decoding.visibility import Visible

# Children of a wide node that are read at once.
_PIECE = 64


def allowed_codes(
  tables: Tries,
  nodes: tuple[Nodes, ...],
  level: jax.Array | int,
  codes: int,
  visible: Seen = None,
) -> jax.Array:
  """[B, W, codes] bool, which codes continue each beam towards a document.

  Args:
    tables: the trie, or several that are searched as one.
    nodes: reached by the beams in each, with `level` codes; `roots` at first.
    level: position of the next code.
    codes: K, of the widest position.
    visible: which documents each query may find; all when None.
  """
  found_BWK = False
  for part, reached, seen in zip(
    parts_of(tables), nodes, seen_in(tables, visible), strict=True
  ):
    found_BWK |= _of_rows(part, reached, level, codes, seen)
    found_BWK |= _of_children(part, reached, level, codes, seen)
  return found_BWK


def roots(tables: Tries, batch: int) -> tuple[Nodes, ...]:
  """The root of each trie, [batch, 1]."""
  return tuple(root(part, batch) for part in parts_of(tables))


def normaliser(allowed_BWK: jax.Array, scores_BWK: jax.Array) -> jax.Array:
  """[B, W] logarithm of the summed probability of the allowed codes.

  Subtracted from a beam's score it makes the scores of its continuations those
  of a distribution over the allowed codes alone. 0 where there is no beam.

  Args:
    allowed_BWK: bool, from `allowed_codes`.
    scores_BWK: score of each next code.
  """
  scores_BWK = jnp.nan_to_num(scores_BWK.astype(jnp.float32), nan=-jnp.inf)
  sums_BW = jax.nn.logsumexp(scores_BWK, axis=-1, where=allowed_BWK)
  return jnp.where(jnp.isfinite(sums_BW), sums_BW, 0.0)


def _scattered(codes_BWX, there_BWX, codes):
  """[B, W, codes] whether each code is there."""
  batch, width = codes_BWX.shape[:2]
  rows = jnp.arange(batch)[:, None, None], jnp.arange(width)[None, :, None]
  # What is not there is put past the end, and dropped.
  places_BWX = jnp.where(there_BWX, codes_BWX, codes)
  found_BWK = jnp.zeros((batch, width, codes), bool)
  return found_BWK.at[(*rows, places_BWX)].set(True, mode='drop')


def _of_rows(
  tables: TrieTables,
  nodes: Nodes,
  level: jax.Array | int,
  codes: int,
  visible: Visible | None,
):
  """Codes of the rows of nodes that have few."""
  offsets_R = jnp.arange(SCANNED_ROWS, dtype=jnp.int32)
  rows_BWR = nodes.starts_BW[..., None] + offsets_R[None, None, :]
  few_BW = nodes.sizes_BW <= SCANNED_ROWS
  there_BWR = (rows_BWR < nodes.ends_BW[..., None]) & few_BW[..., None]
  if visible is not None:
    there_BWR &= visible.rows(rows_BWR)
  codes_BWR = at(tables.columns, level, rows_BWR).astype(jnp.int32)
  return _scattered(codes_BWR, there_BWR, codes)


def _of_children(
  tables: TrieTables,
  nodes: Nodes,
  level: jax.Array | int,
  codes: int,
  visible: Visible | None,
):
  """Codes of the children of wide nodes, a piece of their lists at a time."""
  # The root is wide whatever its size.
  wide_BW = (nodes.sizes_BW > SCANNED_ROWS) | (jnp.int32(level) == 0)
  wide_BW &= nodes.sizes_BW > 0
  slots_BW = jnp.where(wide_BW, nodes.starts_BW // SCANNED_ROWS, 0)
  numbers_BW = jnp.maximum(tables.wide_nodes[level, slots_BW], 0)
  firsts_BW = tables.child_offsets[numbers_BW]
  ends_BW = jnp.where(wide_BW, tables.child_offsets[numbers_BW + 1], firsts_BW)
  places_P = jnp.arange(_PIECE, dtype=jnp.int32)

  def look(state):
    turn, found_BWK = state
    children_BWP = firsts_BW[..., None] + turn * _PIECE + places_P[None, None]
    there_BWP = children_BWP < ends_BW[..., None]
    children_BWP = jnp.where(there_BWP, children_BWP, 0)
    if visible is not None:
      there_BWP &= visible.children(children_BWP)
    codes_BWP = tables.child_codes[children_BWP].astype(jnp.int32)
    return turn + 1, found_BWK | _scattered(codes_BWP, there_BWP, codes)

  most = jnp.max(ends_BW - firsts_BW)
  nothing_BWK = jnp.zeros((*wide_BW.shape, codes), bool)
  return jax.lax.while_loop(
    lambda state: state[0] * _PIECE < most, look, (jnp.int32(0), nothing_BWK)
  )[1]
