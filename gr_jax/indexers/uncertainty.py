"""Noise whose scale is learned: how uncertain generation still is."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.parameters import parameter


class LearnedNoise(nn.Module):
  """s of DIGER's SDUD (arXiv 2601.19711), see objectives.uncertainty.

  Attributes:
    start: of s.
  """

  start: float

  @nn.compact
  def __call__(self):
    """s, a scalar of any sign; the noise has the scale |s|."""
    return parameter('scale', nn.initializers.constant(self.start), (), ())

  def scaled(self, temperature):
    """|s| temperature; s learns from the criterion of generation alone."""
    return jax.lax.stop_gradient(jnp.abs(self())) * temperature
