"""Representation bottleneck: dense vectors that tell documents apart."""

import jax
import jax.numpy as jnp


def info_nce_loss(
  query_vectors_BD, document_vectors_BD, documents_B, temperature, name
):
  """InfoNCE with the other documents of the global batch as negatives.

  -log softmax_j(h_q . h_dj / T) at the query's own document (van den Oord et
  al., arXiv 1807.03748). Rows that hold the same document are not negatives of
  each other.

  Args:
    query_vectors_BD: unit vectors of the queries.
    document_vectors_BD: vectors of the documents, row b relevant to query b.
    documents_B: int32 document of each row.
    temperature: T, of the dot products.
    name: the metric's name, since the same loss serves dense and quantised
      vectors.

  Returns:
    The mean over the batch in nats, and metrics.
  """
  scores_BC = jnp.einsum(
    'BD,CD->BC',
    query_vectors_BD.astype(jnp.float32),
    document_vectors_BD.astype(jnp.float32),
  )
  logp_BC = jax.nn.log_softmax(
    jnp.where(same_document(documents_B), -1e9, scores_BC / temperature)
  )
  loss_B = -jnp.diagonal(logp_BC)
  hits_B = jnp.argmax(logp_BC, axis=-1) == jnp.arange(loss_B.size)
  return jnp.mean(loss_B), {
    name: (jnp.sum(loss_B), loss_B.size),
    f'{name}_accuracy': (jnp.sum(hits_B), loss_B.size),
  }


def same_document(documents_B):
  """[B, B] mask of other rows that hold the same document."""
  same_BC = documents_B[:, None] == documents_B[None, :]
  return same_BC & ~jnp.eye(documents_B.size, dtype=bool)
