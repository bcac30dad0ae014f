"""The cheapest identifiers of a vector, by beam search over its codes."""

import jax
import jax.numpy as jnp

from gr_jax.indexers import interface
from gr_jax.precision import widened

# What an identifier stands for comes out shorter than the vector it was chosen
# for: for documents that come later those of longer vectors are looked at too,
# |zhat|^2 in these units.
LONGER = (1.0, 1.5, 2.0, 3.0)
# Identifiers of documents that come later err more than those trained with, and
# stand among the best for queries of others by that alone. They are to be this
# much longer, |zhat|^2 in the same units, and so to score a little less.
ASIDE = 1.08


def cheapest_identifiers(cost, vectors_BD, parts, codebooks_LKD, beams):
  """A beam search over codes, as additive quantizers encode.

  The best code of each position in turn is seldom the best identifier; a few
  beams find better ones (Babenko and Lempitsky, Additive Quantization, CVPR
  2014). One beam is the choice position by position.

  Args:
    cost: (before_X, residual_XD, part) -> [X, K] costs of the identifiers that
      end in each code, from the cost before it and from what the codes before
      it left of the vector; the X = B x W rows are those of a document one
      after another. Lower is better.
    vectors_BD: what is coded.
    parts: pytree of [L, ...], what `cost` reads of each position.
    codebooks_LKD: what the codes stand for.
    beams: W.

  Returns:
    [B, W, L] int32 identifiers, the cheapest first, and [B, W] their costs;
    from `-ABSENT` on for the places that there are no identifiers for.
  """
  rows, width = vectors_BD.shape
  positions, codes, _ = codebooks_LKD.shape

  def step(state, inputs):
    before_BW, residual_BWD, codes_BWL = state
    level, part, codebook_KD = inputs
    before_X = before_BW.reshape(-1)
    cost_XK = cost(before_X, residual_BWD.reshape(-1, width), part)
    none_X1 = before_X[:, None] > -interface.ABSENT / 2
    cost_XK = jnp.where(none_X1, -interface.ABSENT, cost_XK)
    best_BW, chosen_BW = jax.lax.top_k(-cost_XK.reshape(rows, -1), beams)
    parents_BW1, picked_BW = (chosen_BW // codes)[..., None], chosen_BW % codes
    residual_BWD = jnp.take_along_axis(residual_BWD, parents_BW1, axis=1)
    codes_BWL = jnp.take_along_axis(codes_BWL, parents_BW1, axis=1)
    return (
      -best_BW,
      residual_BWD - codebook_KD[picked_BW],
      codes_BWL.at[:, :, level].set(picked_BW),
    ), None

  # One beam to begin with: the others are out of reach.
  before_W = jnp.where(jnp.arange(beams) > 0, -interface.ABSENT, 0.0)
  start = (
    jnp.broadcast_to(before_W[None], (rows, beams)),
    jnp.repeat(widened(vectors_BD)[:, None], beams, axis=1),
    jnp.zeros((rows, beams, positions), jnp.int32),
  )
  (cost_BW, _, codes_BWL), _ = jax.lax.scan(
    step, start, (jnp.arange(positions), parts, codebooks_LKD)
  )
  return codes_BWL, cost_BW


def nearest_identifiers(vectors_BD, codebooks_LKD, absent_LK, beams):
  """The same by the squared distance to what identifiers stand for."""

  def cost(before_X, residual_XD, part):
    del before_X
    codebook_KD, absent_K = part
    distances_XK = interface.squared_distances(residual_XD, codebook_KD)
    return distances_XK - absent_K[None]

  parts = codebooks_LKD, absent_LK
  return cheapest_identifiers(cost, vectors_BD, parts, codebooks_LKD, beams)


def scored_alike(vectors_BD, codes_BWL, costs_BW, codebooks_LKD, square):
  """The candidate that scores most nearly as its document's vector would.

  The least |zhat - d|^2 / D + (|zhat|^2 - s)^2 / 4, the mean squared error of
  q . zhat - |zhat|^2 / 2 + s / 2 as q . d over unit queries of all directions;
  s is the mean |zhat|^2 of other identifiers, what all of them score less.
  After score-aware quantization (Guo et al., arXiv 1908.10396); our
  reconstruction.

  Args:
    vectors_BD: unit vectors d of documents.
    codes_BWL: from `cheapest_identifiers`, as are
    costs_BW: which say what is no candidate.
    codebooks_LKD: codewords.
    square: s; more than that mean for identifiers that are to score less.

  Returns:
    [B, L] int32 identifiers.
  """
  quantised_BWD = jax.vmap(interface.stand_for, (None, 1), 1)(
    codebooks_LKD, codes_BWL
  )
  apart_BWD = quantised_BWD - vectors_BD[:, None]
  squares_BW = jnp.sum(quantised_BWD**2, axis=-1)
  errors_BW = (
    jnp.sum(apart_BWD**2, axis=-1) / vectors_BD.shape[-1]
    + (squares_BW - square) ** 2 / 4
  )
  errors_BW = jnp.where(costs_BW < -interface.ABSENT / 2, errors_BW, jnp.inf)
  best_B11 = jnp.argmin(errors_BW, axis=1)[:, None, None]
  return jnp.take_along_axis(codes_BWL, best_B11, axis=1)[:, 0]
