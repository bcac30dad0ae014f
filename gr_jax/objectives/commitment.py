"""Commitment: vectors and the codewords they chose move together."""

import jax
import jax.numpy as jnp


def commitment_loss(document_vectors_BD, quantised_BD):
  """Squared distance of a vector to what its codes stand for, both ways.

  |h_d - sg(zhat)|^2 + |sg(h_d) - zhat|^2 (VQ-VAE, arXiv 1711.00937, eq. 3, both
  halves with one weight).

  Args:
    document_vectors_BD: unit vectors of the documents.
    quantised_BD: zhat, the vectors that the documents' codes stand for.

  Returns:
    The mean over the batch, and metrics; `quantisation_error` is the squared
    distance itself, between 0 and 1 for useful codes of unit vectors.
  """
  stop = jax.lax.stop_gradient
  commit_B = jnp.sum((document_vectors_BD - stop(quantised_BD)) ** 2, axis=-1)
  follow_B = jnp.sum((stop(document_vectors_BD) - quantised_BD) ** 2, axis=-1)
  return jnp.mean(commit_B + follow_B), {
    'quantisation_error': (jnp.sum(commit_B), commit_B.size)
  }
