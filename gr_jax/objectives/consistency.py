"""Information consistency: codes say what the dense vector says."""

import jax
import jax.numpy as jnp

from gr_jax.objectives.contrastive import dot_products, same_document
from gr_jax.objectives.prefixes import prefix_log_distributions


def consistency_loss(
  query_vectors_BD,
  document_vectors_BD,
  codewords_BLD,
  documents_B,
  temperature,
):
  """KL between the score distributions of dense and of quantised documents.

  (KL_L + mean_t KL_t) / 2, KL_t = KL(softmax_j(sg(h_q . h_j) / T) ||
  softmax_j(-|h_q - zhat_<=t(d_j)|^2 / 2T)): our reconstruction of ASI++'s
  information consistency criterion (arXiv 2405.14280), asked of the whole
  identifier and of each prefix, so that a beam that ranks prefixes keeps what
  exact dense search finds. Its teacher knows no label: it does not learn the
  training queries by heart.

  Args:
    query_vectors_BD: unit vectors of the queries.
    document_vectors_BD: unit vectors of the documents.
    codewords_BLD: codewords of the documents, row b relevant to query b.
    documents_B: int32 document of each row; repeats of one document are left
      out of both distributions.
    temperature: T, of the dot products.

  Returns:
    The mean over the batch in nats, and metrics.
  """
  dense_BC = dot_products(query_vectors_BD, document_vectors_BD) / temperature
  dense_BC = jnp.where(same_document(documents_B), -1e9, dense_BC)
  dense_1BC = jax.lax.stop_gradient(jax.nn.log_softmax(dense_BC))[None]
  quantised_LBC = prefix_log_distributions(
    query_vectors_BD, codewords_BLD, documents_B, temperature
  )
  loss_LB = jnp.sum(jnp.exp(dense_1BC) * (dense_1BC - quantised_LBC), axis=-1)
  loss_B = (loss_LB[-1] + jnp.mean(loss_LB, axis=0)) / 2
  return jnp.mean(loss_B), {'consistency': (jnp.sum(loss_B), loss_B.size)}
