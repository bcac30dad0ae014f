"""Autoencoding: the vector that is coded still tells the encoder's output."""

import jax.numpy as jnp


def reconstruction_loss(pooled_BE, reconstructed_BE):
  """1 - cos(x, f(h_d)), x what the encoder pooled of the document.

  The optional autoencoding term of the representation bottleneck, our
  reconstruction.

  Args:
    pooled_BE: the encoder's output, before the projection.
    reconstructed_BE: what a linear map makes of the unit vector.

  Returns:
    The mean over the batch, between 0 and 2, and metrics.
  """

  def unit(x_BE):
    square_B1 = jnp.sum(x_BE**2, axis=-1, keepdims=True)
    return x_BE / jnp.sqrt(jnp.maximum(square_B1, 1e-12))

  loss_B = 1 - jnp.sum(unit(pooled_BE) * unit(reconstructed_BE), axis=-1)
  return jnp.mean(loss_B), {'reconstruction': (jnp.sum(loss_B), loss_B.size)}
