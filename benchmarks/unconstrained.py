"""A beam search over all codes, to tell what the constraint costs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gr_jax.decoding.beam import gather_beams
from gr_jax.decoding.top_k import best_totals


def beam_search(
  scores: Callable[[jax.Array, jax.Array], jax.Array],
  batch: int,
  width: int,
  length: int,
) -> tuple[jax.Array, jax.Array]:
  """The best sequences of codes, whatever documents there are.

  Args:
    scores: (codes_BW, level) -> scores_BWK, where `codes_BW` are the codes
      chosen at `level` - 1 (0 at level 0).
    batch: B, queries.
    width: W, beams.
    length: L, codes of a sequence.

  Returns:
    [B, W] scores and [B, W, L] codes, best first.
  """
  return search_with_state(
    lambda beams: jnp.zeros((batch, beams)),
    lambda state, codes_BW, level: (scores(codes_BW, level), state),
    width,
    length,
  )


def search_with_state(
  start_fn: Callable[[int], Any],
  step_fn: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]],
  width: int,
  length: int,
) -> tuple[jax.Array, jax.Array]:
  """The same of a model with a state, which moves with its beams.

  Args:
    start_fn: as `decoding.beam.beam_search` takes it.
    step_fn: the same.
    width: W, beams.
    length: L, codes of a sequence.

  Returns:
    [B, W] scores and [B, W, L] codes, best first.
  """

  def extended(beams_BW, scores_BWK):
    totals_BWK = beams_BW[..., None] + scores_BWK
    scores_BW, places_BW = best_totals(totals_BWK, width)
    return scores_BW, *jnp.divmod(places_BW, scores_BWK.shape[-1])

  def advance(carry, level):
    beams_BW, codes_BWL, state = carry
    last_BW = jax.lax.dynamic_index_in_dim(
      codes_BWL, level - 1, axis=2, keepdims=False
    )
    scores_BWK, state = step_fn(state, last_BW, level)
    beams_BW, parents_BW, codes_BW = extended(beams_BW, scores_BWK)
    codes_BWL = gather_beams(codes_BWL, parents_BW)
    codes_BWL = codes_BWL.at[:, :, level].set(codes_BW)
    state = jax.tree.map(lambda leaf: gather_beams(leaf, parents_BW), state)
    return (beams_BW, codes_BWL, state), None

  first = start_fn(1)
  batch = jax.tree.leaves(first)[0].shape[0]
  nothing_B1 = jnp.zeros((batch, 1), jnp.int32)
  scores_B1K, first = step_fn(first, nothing_B1, jnp.int32(0))
  beams_BW, _, codes_BW = extended(jnp.zeros((batch, 1)), scores_B1K)
  codes_BWL = jnp.zeros((batch, width, length), jnp.int32)
  codes_BWL = codes_BWL.at[:, :, 0].set(codes_BW)
  state = for_beams(first, start_fn, width)
  levels = jnp.arange(1, length)
  beams_BW, codes_BWL, _ = jax.lax.scan(
    advance, (beams_BW, codes_BWL, state), levels
  )[0]
  return beams_BW, codes_BWL


def for_beams(first: Any, start_fn: Callable[[int], Any], width: int) -> Any:
  """The root's state for `width` beams, but for what beams share.

  Args:
    first: state of one beam a query.
    start_fn: what made it.
    width: W.
  """
  return jax.tree.map(
    lambda leaf, wide: jnp.broadcast_to(
      leaf, (*wide.shape[:2], *leaf.shape[2:])
    ),
    first,
    jax.eval_shape(lambda: start_fn(width)),
  )
