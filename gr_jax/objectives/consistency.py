"""Information consistency: codes say what the dense vector says."""

import jax
import jax.numpy as jnp

from gr_jax.objectives.contrastive import dot_products, same_document


def consistency_loss(
  query_vectors_BD,
  document_vectors_BD,
  quantised_BD,
  documents_B,
  temperature,
):
  """KL between the score distributions of dense and of quantised documents.

  KL(softmax(sg(h_q H_d) / T) || softmax(h_q Zhat_d / T)): our reconstruction of
  ASI++'s information consistency criterion (arXiv 2405.14280).

  Args:
    query_vectors_BD: unit vectors of the queries.
    document_vectors_BD: unit vectors of the documents.
    quantised_BD: zhat, the vectors that the documents' codes stand for.
    documents_B: int32 document of each row; repeats of one document are left
      out of both distributions.
    temperature: T, of the dot products.

  Returns:
    The mean over the batch in nats, and metrics.
  """

  def log_distribution(vectors_BD):
    scores_BC = dot_products(query_vectors_BD, vectors_BD) / temperature
    return jax.nn.log_softmax(
      jnp.where(same_document(documents_B), -1e9, scores_BC)
    )

  dense_BC = jax.lax.stop_gradient(log_distribution(document_vectors_BD))
  quantised_BC = log_distribution(quantised_BD)
  loss_B = jnp.sum(jnp.exp(dense_BC) * (dense_BC - quantised_BC), axis=-1)
  return jnp.mean(loss_B), {'consistency': (jnp.sum(loss_B), loss_B.size)}
