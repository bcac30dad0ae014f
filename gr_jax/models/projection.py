"""Vectors of unit length, and how much of a gradient passes."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.parameters import constrain, parameter
from gr_jax.precision import widened


class Projection(nn.Module):
  """Linear map to unit vectors; it starts as the identity where it can.

  Attributes:
    width: D.
  """

  width: int

  @nn.compact
  def __call__(self, pooled_BE):
    def init(rng, shape, dtype):
      if shape[0] == shape[1]:
        return jnp.eye(shape[0], dtype=dtype)
      return nn.initializers.lecun_normal()(rng, shape, dtype)

    kernel_ED = parameter(
      'kernel', init, (pooled_BE.shape[-1], self.width), ('embed', 'width')
    )
    vectors_BD = unit_length(unit_length(pooled_BE) @ kernel_ED)
    return constrain(vectors_BD, 'batch', 'width')


def unit_length(vectors):
  """Vectors of length 1 along the last axis; zeros stay zeros."""
  vectors = widened(vectors)
  square = jnp.sum(vectors**2, axis=-1, keepdims=True)
  return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


def scale_gradient(x, share):
  """The value of `x`; its gradient times `share`."""
  fixed = jax.lax.stop_gradient(x)
  return fixed + share * (x - fixed)
