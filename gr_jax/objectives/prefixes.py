"""Prefixes of identifiers: what a beam keeps a document by."""

import jax
import jax.numpy as jnp

from gr_jax.objectives.balance import log_mean, overlaps
from gr_jax.objectives.contrastive import same_document


def prefix_log_distributions(
  query_vectors_BD, codewords_BLD, documents_B, temperature
):
  """Log-softmax over documents of -|h_q - zhat_<=t|^2 / 2T, for each prefix t.

  Args:
    query_vectors_BD: unit vectors of the queries.
    codewords_BLD: codewords of the documents, row b relevant to query b.
    documents_B: int32 document of each row; repeats of a query's document are
      left out.
    temperature: T, of dot products.

  Returns:
    [L, B, C] log probabilities over the documents of the batch.
  """
  prefixes_BLD = jnp.cumsum(codewords_BLD, axis=1)
  scores_LBC = jnp.einsum('BD,CLD->LBC', query_vectors_BD, prefixes_BLD)
  squares_LC = jnp.sum(prefixes_BLD**2, axis=-1).T
  scores_LBC = (scores_LBC - squares_LC[:, None, :] / 2) / temperature
  scores_LBC = jnp.where(same_document(documents_B)[None], -1e9, scores_LBC)
  return jax.nn.log_softmax(scores_LBC)


def prefix_contrast_loss(
  query_vectors_BD, codewords_BLD, documents_B, temperature
):
  """InfoNCE of the query against what each prefix of an identifier stands for.

  mean_t -log softmax_j(-|h_q - zhat_<=t(d_j)|^2 / 2T), our reconstruction: a
  beam keeps a document by its prefixes, so that each must tell it apart (as
  RIPOR trains prefixes, arXiv 2311.09134); the untrained tied head ranks
  prefixes by the same distances.

  Args:
    query_vectors_BD: unit vectors of the queries.
    codewords_BLD: codewords of the documents, row b relevant to query b.
    documents_B: int32 document of each row.
    temperature: T, of dot products.

  Returns:
    The mean over batch and positions in nats, and metrics.
  """
  logp_LBC = prefix_log_distributions(
    query_vectors_BD, codewords_BLD, documents_B, temperature
  )
  loss_LB = -jnp.diagonal(logp_LBC, axis1=1, axis2=2)
  return jnp.mean(loss_LB), {
    'prefix_contrast': (jnp.sum(loss_LB), loss_LB.size)
  }


def prefix_density_loss(
  probs_BLK, documents_B, sizes, queue_codes_QL, queue_documents_Q
):
  """The density of prefixes: sum_t max(0, log mean_{i != j} prod_{s <= t} ...).

  sum_t max(0, log(mean prod_{s <= t} <p_s(i), p_s(j)>) + sum_{s <= t} log K_s),
  our reconstruction: no pressure on prefixes that are already as rare as in a
  uniform space.

  Args:
    probs_BLK: code probabilities of a batch of documents, rows sum to 1.
    documents_B: int32 document of each row.
    sizes: K_t, codes of each position.
    queue_codes_QL: identifiers of recent documents.
    queue_documents_Q: which they are, -1 for none.

  Returns:
    The sum over prefixes in nats and metrics.
  """
  _, pair_PB, log_mean_L = overlaps(
    probs_BLK, documents_B, queue_codes_QL, queue_documents_Q, log_mean
  )
  uniform_L = jnp.cumsum(jnp.log(jnp.asarray(sizes, jnp.float32)))
  density = jnp.sum(jnp.maximum(log_mean_L + uniform_L, 0.0))
  density = jnp.where(jnp.any(pair_PB), density, 0.0)
  return density, {'prefix_density': (density, 1)}
