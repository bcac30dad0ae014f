"""Beam search over a trie: init, step and finish on a struct, one scan.

At every position the best W of all allowed continuations of all beams survive:
no beam's continuations are cut beforehand, so the result equals that of a plain
reference beam search of the same width. The mask comes after the scores, which
are not renormalised over the allowed codes unless that is asked for. Ties go to
the better-placed beam, then to the lower code. A plan, where there is one,
changes which of the best continuations survive.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gr_jax.decoding.allowed import allowed_codes, normaliser, roots
from gr_jax.decoding.continuations import Nodes
from gr_jax.decoding.planning import Plan
from gr_jax.decoding.top_k import FLOOR, rows
from gr_jax.decoding.union import (
  Extended,
  Seen,
  Tries,
  best_of_all,
  first_of_all,
)
from gr_jax.types import NO_DOC


@dataclasses.dataclass(frozen=True)
class Rules:
  """How codes are scored and beams are kept, where not by scores alone.

  Attributes:
    renormalised: whether the scores of a beam's next codes are made those of
      a distribution over the allowed ones alone.
    plan: what chooses among the best besides their scores.
    join: joins the best of the tries at hand with those of others.
    anywhere: joins the codes that these tries allow with those of others.
  """

  renormalised: bool = False
  plan: Plan | None = None
  join: Callable[[Extended], Extended] = lambda found: found
  anywhere: Callable[[jax.Array], jax.Array] = lambda allowed_BWK: allowed_BWK

  def scored(self, tables, nodes, scores_BWK, level, visible):
    """Scores of the next codes."""
    if not self.renormalised:
      return scores_BWK
    codes = scores_BWK.shape[-1]
    allowed_BWK = allowed_codes(tables, nodes, level, codes, visible)
    lost_BW = normaliser(self.anywhere(allowed_BWK), scores_BWK)
    return scores_BWK - lost_BW[..., None]

  def looked_at(self, width: int) -> int:
    """Continuations of which `width` are kept."""
    return self.plan.pool(width) if self.plan else width

  def kept(self, found, tables, width, visible):
    """The `width` continuations that survive."""
    found = self.join(found)
    return self.plan.kept(found, tables, width, visible) if self.plan else found


AS_SCORED = Rules()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BeamState:
  """Beams under way, best first.

  Attributes:
    codes_BWL: codes so far; positions not yet reached are 0.
    scores_BW: sum of the code scores, FLOOR where there is no beam.
    nodes: reached, one a trie; of no rows in any where there is no beam.
  """

  codes_BWL: jax.Array
  scores_BW: jax.Array
  nodes: tuple[Nodes, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beams:
  """Whole identifiers, best first.

  Attributes:
    codes_BWL: the identifiers, NO_DOC where not valid.
    scores_BW: sum of the code scores, FLOOR where not valid.
    buckets: rows of `TrieTables.documents` that each reached, one a trie; of
      no rows in any where not valid.
    valid_BW: whether the beam reached a document.
  """

  codes_BWL: jax.Array
  scores_BW: jax.Array
  buckets: tuple[Nodes, ...]
  valid_BW: jax.Array


def init(
  tables: Tries,
  scores_B1K: jax.Array,
  width: int,
  length: int,
  visible: Seen = None,
  rules: Rules = AS_SCORED,
) -> BeamState:
  """The best first codes.

  Args:
    tables: the trie, or several that are searched as one.
    scores_B1K: score of each first code, -inf or NaN for an impossible one.
    width: beams to keep.
    length: L, codes of an identifier.
    visible: which documents each query may find; all when None.
    rules: how beams are kept.
  """
  found = first_of_all(tables, scores_B1K, rules.looked_at(width), visible)
  found = rules.kept(found, tables, width, visible)
  codes_BWL = jnp.zeros((*found.codes_BW.shape, length), jnp.int32)
  return BeamState(
    codes_BWL=codes_BWL.at[:, :, 0].set(found.codes_BW),
    scores_BW=found.scores_BW,
    nodes=found.nodes,
  )


def step(
  beams: BeamState,
  tables: Tries,
  scores_BWK: jax.Array,
  level: jax.Array | int,
  width: int,
  visible: Seen = None,
  rules: Rules = AS_SCORED,
) -> tuple[BeamState, jax.Array]:
  """Extends the beams by one code.

  Args:
    beams: prefixes of `level` codes.
    tables: the trie, or several that are searched as one.
    scores_BWK: score of each next code, -inf or NaN for an impossible one.
    level: position of the next code, int32.
    width: beams to keep, whatever their number was.
    visible: which documents each query may find; all when None.
    rules: how beams are kept.

  Returns:
    The extended beams and [B, width] the beam that each of them extends.
  """
  found = best_of_all(
    tables,
    beams.nodes,
    beams.scores_BW,
    scores_BWK,
    level,
    rules.looked_at(width),
    visible,
  )
  found = rules.kept(found, tables, width, visible)
  codes_BWL = rows(beams.codes_BWL, found.parents_BW)
  extended = BeamState(
    codes_BWL=codes_BWL.at[:, :, level].set(found.codes_BW),
    scores_BW=found.scores_BW,
    nodes=found.nodes,
  )
  return extended, found.parents_BW


def finish(beams: BeamState) -> Beams:
  """Names the buckets that beams of full length have reached."""
  valid_BW = beams.scores_BW > FLOOR
  return Beams(
    codes_BWL=jnp.where(valid_BW[..., None], beams.codes_BWL, NO_DOC),
    scores_BW=beams.scores_BW,
    buckets=beams.nodes,
    valid_BW=valid_BW,
  )


def gather_beams(leaf: jax.Array, parents_BW: jax.Array) -> jax.Array:
  """Rows of `leaf` [B, W, ...] in the order of `parents_BW`.

  A leaf [B, 1, ...] is shared by all beams and stays as it is.
  """
  return leaf if leaf.shape[1] == 1 else rows(leaf, parents_BW)


def beam_search(
  start_fn: Callable[[int], Any],
  step_fn: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]],
  tables: Tries,
  width: int,
  length: int,
  visible: Seen = None,
  rules: Rules = AS_SCORED,
) -> Beams:
  """The best identifiers of each query under a scoring function.

  The first code is scored for one beam, the root, and not for W copies of it.

  Args:
    start_fn: number of beams -> pytree of [B, beams, ...] leaves ([B, 1, ...]
      for what beams share), the state before the first code.
    step_fn: (state, codes_BW, level) -> (scores_BWK, state), where `codes_BW`
      are the codes chosen at `level` - 1 (0 at level 0).
    tables: the trie, or several that are searched as one.
    width: W, the number of beams.
    length: L, the number of codes of an identifier.
    visible: which documents each query may find; all when None.
    rules: how codes are scored and beams are kept.

  Returns:
    W beams a query, best first.
  """

  def scored(nodes, scores_BWK, level):
    return rules.scored(tables, nodes, scores_BWK, level, visible)

  first = start_fn(1)
  batch = jax.tree.leaves(first)[0].shape[0]
  nothing_B1 = jnp.zeros((batch, 1), jnp.int32)
  scores_B1K, first = step_fn(first, nothing_B1, jnp.int32(0))
  scores_B1K = scored(roots(tables, batch), scores_B1K, 0)
  beams = init(tables, scores_B1K, width, length, visible, rules)
  state = _for_all_beams(first, jax.eval_shape(lambda: start_fn(width)))

  def advance(carry, level):
    beams, state = carry
    codes_BW = jax.lax.dynamic_index_in_dim(
      beams.codes_BWL, level - 1, axis=2, keepdims=False
    )
    scores_BWK, state = step_fn(state, codes_BW, level)
    scores_BWK = scored(beams.nodes, scores_BWK, level)
    beams, parents_BW = step(
      beams, tables, scores_BWK, level, width, visible, rules
    )
    state = jax.tree.map(lambda leaf: gather_beams(leaf, parents_BW), state)
    return (beams, state), None

  (beams, _), _ = jax.lax.scan(advance, (beams, state), jnp.arange(1, length))
  return finish(beams)


def _for_all_beams(first, shapes):
  """The state of the root, for as many beams as the shapes have."""
  return jax.tree.map(
    lambda leaf, wide: jnp.broadcast_to(
      leaf, (leaf.shape[0], wide.shape[1], *leaf.shape[2:])
    ),
    first,
    shapes,
  )
