"""A beam search over all codes, to tell what the constraint costs."""

from collections.abc import Callable

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

  def extended(beams_BW, scores_BWK):
    totals_BWK = beams_BW[..., None] + scores_BWK
    scores_BW, places_BW = best_totals(totals_BWK, width)
    return scores_BW, *jnp.divmod(places_BW, scores_BWK.shape[-1])

  def advance(carry, level):
    beams_BW, codes_BWL = carry
    last_BW = jax.lax.dynamic_index_in_dim(
      codes_BWL, level - 1, axis=2, keepdims=False
    )
    beams_BW, parents_BW, codes_BW = extended(beams_BW, scores(last_BW, level))
    codes_BWL = gather_beams(codes_BWL, parents_BW)
    return (beams_BW, codes_BWL.at[:, :, level].set(codes_BW)), None

  root_B1 = jnp.zeros((batch, 1))
  scores_B1K = scores(root_B1.astype(jnp.int32), jnp.int32(0))
  beams_BW, _, codes_BW = extended(root_B1, scores_B1K)
  codes_BWL = jnp.zeros((batch, width, length), jnp.int32)
  codes_BWL = codes_BWL.at[:, :, 0].set(codes_BW)
  levels = jnp.arange(1, length)
  return jax.lax.scan(advance, (beams_BW, codes_BWL), levels)[0]
