"""Sharpness: each document's soft codes are close to its hard ones."""

import jax.numpy as jnp

# Keeps the logarithm of a probability finite in float32.
_TINY = 1e-9


def sharpness_loss(probs_BLK):
  """Mean entropy of each document's own code distributions, in nats.

  Our reconstruction of ASI++'s balance criterion, term (b): to be lowered, so
  that the soft codes of training are close to the hard codes of the index.

  Args:
    probs_BLK: code probabilities of a batch of documents, rows sum to 1.

  Returns:
    The mean entropy in nats and metrics.
  """
  entropy_BL = -jnp.sum(probs_BLK * jnp.log(probs_BLK + _TINY), axis=-1)
  return jnp.mean(entropy_BL), {
    'sharpness': (jnp.sum(entropy_BL), entropy_BL.size)
  }
