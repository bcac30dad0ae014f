"""Balance: identifiers spread over the whole space, as codes and as wholes.

Per-position entropy alone does not balance identifiers: positions that copy
each other have full entropy each and few distinct identifiers together. The
density term looks at whole identifiers.
"""

import jax
import jax.numpy as jnp

# Keeps the logarithm of a probability finite in float32.
_TINY = 1e-9


def position_entropy(probs_BLK):
  """Entropy of each position's mean code distribution, in nats.

  Args:
    probs_BLK: code probabilities of a batch of documents, rows sum to 1.

  Returns:
    [L] entropies; log(K) means that all codes are used equally.
  """
  mean_LK = jnp.mean(probs_BLK.astype(jnp.float32), axis=0)
  return -jnp.sum(mean_LK * jnp.log(mean_LK + _TINY), axis=-1)


def position_entropy_loss(probs_BLK):
  """How far each position is from uniform use: log K - H(pbar_t), averaged.

  Our reconstruction of ASI++'s balance criterion, term (a): the same gradient
  as sum_t sum_k pbar log pbar, with 0 as its least value.

  Args:
    probs_BLK: code probabilities of a batch of documents, rows sum to 1.

  Returns:
    The mean over positions, in nats, and metrics.
  """
  entropy_L = position_entropy(probs_BLK)
  gap_L = jnp.log(probs_BLK.shape[-1]) - entropy_L
  return jnp.mean(gap_L), {
    'position_entropy': (jnp.sum(entropy_L), entropy_L.size)
  }


def density_loss(probs_BLK, documents_B):
  """How likely two documents share an identifier, against a uniform space.

  log mean_{i != j} prod_t <p_t(i), p_t(j)> + L log K: our reconstruction of
  ASI++'s distribution density loss (arXiv 2405.14280) on whole identifiers,
  in log space since the product underflows. It is 0 for a uniform space and
  L log K when all documents share one identifier. The pairs are those of the
  global batch.

  Args:
    probs_BLK: code probabilities of a batch of documents, rows sum to 1.
    documents_B: int32 document of each row; pairs of one document are left
      out.

  Returns:
    The density in nats and metrics. A batch of one document gives 0.
  """
  probs_BLK = probs_BLK.astype(jnp.float32)
  positions, codes = probs_BLK.shape[1:]
  overlap_LBC = jnp.einsum('BLK,CLK->LBC', probs_BLK, probs_BLK)
  shared_BC = jnp.sum(jnp.log(overlap_LBC + _TINY), axis=0)
  pair_BC = documents_B[:, None] != documents_B[None, :]
  pairs = jnp.sum(pair_BC)
  total = jax.nn.logsumexp(shared_BC, where=pair_BC)
  density = total - jnp.log(jnp.maximum(pairs, 1)) + positions * jnp.log(codes)
  density = jnp.where(pairs > 0, density, 0.0)
  return density, {'density': (density, 1)}


def sharpness_loss(probs_BLK):
  """Mean entropy of each document's own code distributions, in nats.

  Our reconstruction of ASI++'s balance criterion, term (b): to be lowered, so
  that the soft codes of training are close to the hard codes of the index.

  Args:
    probs_BLK: code probabilities of a batch of documents, rows sum to 1.

  Returns:
    The mean entropy in nats and metrics.
  """
  probs_BLK = probs_BLK.astype(jnp.float32)
  entropy_BL = -jnp.sum(probs_BLK * jnp.log(probs_BLK + _TINY), axis=-1)
  return jnp.mean(entropy_BL), {
    'sharpness': (jnp.sum(entropy_BL), entropy_BL.size)
  }
