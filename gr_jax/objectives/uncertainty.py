"""Uncertainty: generation weighed by the noise that codes are drawn with."""

import jax.numpy as jnp

# l, what keeps weight and logarithm finite when s nears 0. DIGER (arXiv
# 2601.19711) has such a constant; with this value, ours, the weight of
# generation stays below 1 / (2 l^2) = 50.
LEAST = 0.1


def weigh_by_uncertainty(loss, metrics, scale, positions):
  """L / (2 (|s| + l)^2) + log(|s| + l), for each position.

  DIGER's SDUD (arXiv 2601.19711): its least value over s is at |s| + l =
  sqrt(L), so that the noise falls as generation learns. L is the mean over
  positions here, and the sum over positions of the expression is taken, so
  that codes of another length keep noise and weight.

  Args:
    loss: of generation, summed over positions, in nats.
    metrics: of generation.
    scale: s, learned.
    positions: L of the identifiers.

  Returns:
    The value and the metrics, with |s| as 'uncertainty'.
  """
  width = jnp.abs(scale) + LEAST
  value = loss / (2 * width**2) + positions * jnp.log(width)
  return value, metrics | {'uncertainty': (jnp.abs(scale), 1)}
