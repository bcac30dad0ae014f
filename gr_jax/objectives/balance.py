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
  mean_LK = jnp.mean(probs_BLK, axis=0)
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


def overlaps(
  probs_BLK, documents_B, queue_codes_QL, queue_documents_Q, measure=None
):
  """How likely pairs of different documents share their codes.

  The pairs are those of the global batch, and those of its documents with the
  recent ones of the queue: an identifier space far larger than the batch shows
  its dense places only there.

  Args:
    probs_BLK: code probabilities of a batch of documents, rows sum to 1.
    documents_B: int32 document of each row.
    queue_codes_QL: identifiers of recent documents.
    queue_documents_Q: which they are, -1 for an empty place.
    measure: a function of the [P, B] log probabilities that a pair shares a
      prefix, and of the mask; None for none.

  Returns:
    [P, B] log probabilities that a pair shares the whole identifier, P = B + Q;
    the [P, B] mask of pairs that count; and [L] what was measured of the
    prefixes, None for nothing.
  """
  others_P = jnp.concatenate([documents_B, queue_documents_Q])
  pair_PB = (others_P[:, None] != documents_B[None]) & (others_P >= 0)[:, None]

  # One position after another: [L, P, B] would not fit a cache.
  def step(agree_PB, position):
    probs_BK, codes_Q = position
    batch_CB = jnp.log(probs_BK @ probs_BK.T + _TINY)
    queue_QB = jnp.log(probs_BK.T + _TINY)[codes_Q]
    agree_PB += jnp.concatenate([batch_CB, queue_QB])
    return agree_PB, measure and measure(agree_PB, pair_PB)

  positions = probs_BLK.swapaxes(0, 1), queue_codes_QL.T
  agree_PB, measured_L = jax.lax.scan(
    step, jnp.zeros(pair_PB.shape, positions[0].dtype), positions
  )
  return agree_PB, pair_PB, measured_L


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
  agree_PB, pair_PB, _ = overlaps(
    probs_BLK, documents_B, queue_codes_QL, queue_documents_Q
  )
  density = log_mean(agree_PB, pair_PB)
  density = density + jnp.sum(jnp.log(jnp.asarray(sizes, jnp.float32)))
  density = jnp.where(jnp.any(pair_PB), density, 0.0)
  return density, {'density': (density, 1)}


def log_mean(logs_PB, pair_PB):
  """Log of the mean of exp over the pairs that count."""
  total = jax.nn.logsumexp(logs_PB, where=pair_PB)
  return total - jnp.log(jnp.maximum(jnp.sum(pair_PB), 1))
