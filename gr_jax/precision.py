"""Numbers as wide as sums and cancelling differences need."""

import jax.numpy as jnp


def widened(x):
  """`x` in float32, or in its own type where that is wider.

  Never narrower: in float64 the program is the same on every mesh to the last
  digits, which tests compare.
  """
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
