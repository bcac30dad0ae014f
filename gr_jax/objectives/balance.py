"""Balance: identifiers spread over the whole space, as codes and as wholes.

Per-position entropy alone does not balance identifiers: positions that copy
each other have full entropy each and few distinct identifiers together. The
density term looks at whole identifiers, or at prefixes.
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


def position_entropy_loss(probs_BLK, sizes):
  """How far each position is from uniform use: log K_t - H(pbar_t), averaged.

  Our reconstruction of ASI++'s balance criterion, term (a): the same gradient
  as sum_t sum_k pbar log pbar, with 0 as its least value.

  Args:
    probs_BLK: code probabilities of a batch of documents, rows sum to 1.
    sizes: K_t, codes of each position.

  Returns:
    The mean over positions, in nats, and metrics.
  """
  entropy_L = position_entropy(probs_BLK)
  gap_L = jnp.log(jnp.asarray(sizes, jnp.float32)) - entropy_L
  return jnp.mean(gap_L), {
    'position_entropy': (jnp.sum(entropy_L), entropy_L.size)
  }


def overlaps(probs_BLK, documents_B, queue_codes_QL, queue_documents_Q):
  """How likely pairs of different documents agree at each position.

  The pairs are those of the global batch, and those of its documents with the
  recent ones of the queue: an identifier space far larger than the batch shows
  its dense places only there.

  Args:
    probs_BLK: code probabilities of a batch of documents, rows sum to 1.
    documents_B: int32 document of each row.
    queue_codes_QL: identifiers of recent documents.
    queue_documents_Q: which they are, -1 for an empty place.

  Returns:
    [L, B, B + Q] log probabilities of agreement, and the [B, B + Q] mask of
    pairs that count.
  """
  probs_BLK = probs_BLK.astype(jnp.float32)
  batch_LBC = jnp.einsum('BLK,CLK->LBC', probs_BLK, probs_BLK)
  queue_LBQ = jax.vmap(lambda probs_BK, codes_Q: probs_BK[:, codes_Q])(
    probs_BLK.swapaxes(0, 1), queue_codes_QL.T
  )
  agree_LBP = jnp.log(jnp.concatenate([batch_LBC, queue_LBQ], -1) + _TINY)
  others_P = jnp.concatenate([documents_B, queue_documents_Q])
  differ_BP = documents_B[:, None] != others_P[None, :]
  return agree_LBP, differ_BP & (others_P >= 0)[None, :]


def density_loss(
  probs_BLK, documents_B, sizes, queue_codes_QL, queue_documents_Q
):
  """How likely two documents share an identifier, against a uniform space.

  log mean_{i != j} prod_t <p_t(i), p_t(j)> + sum_t log K_t: our reconstruction
  of ASI++'s distribution density loss (arXiv 2405.14280) on whole identifiers,
  in log space since the product underflows. It is 0 for a uniform space and
  sum_t log K_t when all documents share one identifier. The pairs are those of
  `overlaps`.

  Args:
    probs_BLK: code probabilities of a batch of documents, rows sum to 1.
    documents_B: int32 document of each row; pairs of one document are left
      out.
    sizes: K_t, codes of each position.
    queue_codes_QL: identifiers of recent documents.
    queue_documents_Q: which they are, -1 for none.

  Returns:
    The density in nats and metrics. A batch of one document gives 0.
  """
  agree_LBP, pair_BP = overlaps(
    probs_BLK, documents_B, queue_codes_QL, queue_documents_Q
  )
  density = log_mean(jnp.sum(agree_LBP, axis=0), pair_BP)
  density = density + jnp.sum(jnp.log(jnp.asarray(sizes, jnp.float32)))
  density = jnp.where(jnp.any(pair_BP), density, 0.0)
  return density, {'density': (density, 1)}


def log_mean(logs_BP, pair_BP):
  """Log of the mean of exp over the pairs that count."""
  total = jax.nn.logsumexp(logs_BP, where=pair_BP)
  return total - jnp.log(jnp.maximum(jnp.sum(pair_BP), 1))
