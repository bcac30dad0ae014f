"""Representation bottleneck: vectors that tell documents apart."""

import jax
import jax.numpy as jnp


def info_nce_loss(
  query_vectors_BD,
  document_vectors_BD,
  documents_B,
  temperature,
  name,
  more_vectors_XD=None,
  more_documents_X=None,
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
    more_vectors_XD: vectors of further negatives for all queries, if any.
    more_documents_X: which documents they are, -1 for none.

  Returns:
    The mean over the batch in nats, and metrics.
  """
  vectors_CD, documents_C = document_vectors_BD, documents_B
  if more_vectors_XD is not None:
    vectors_CD = jnp.concatenate([vectors_CD, more_vectors_XD])
    documents_C = jnp.concatenate([documents_C, more_documents_X])
  scores_BC = dot_products(query_vectors_BD, vectors_CD)
  own_BC = jnp.eye(*scores_BC.shape, dtype=bool)
  left_out_BC = documents_B[:, None] == documents_C[None, :]
  left_out_BC = (left_out_BC | (documents_C < 0)[None, :]) & ~own_BC
  logp_BC = jax.nn.log_softmax(
    jnp.where(left_out_BC, -1e9, scores_BC / temperature)
  )
  loss_B = -jnp.diagonal(logp_BC)
  hits_B = jnp.argmax(logp_BC, axis=-1) == jnp.arange(loss_B.size)
  return jnp.mean(loss_B), {
    name: (jnp.sum(loss_B), loss_B.size),
    f'{name}_accuracy': (jnp.sum(hits_B), loss_B.size),
  }


def dot_products(queries_BD, vectors_CD):
  """[B, C] products of every query with every vector, in float32."""
  return jnp.einsum('BD,CD->BC', queries_BD, vectors_CD)


def same_document(documents_B):
  """[B, B] mask of other rows that hold the same document."""
  same_BC = documents_B[:, None] == documents_B[None, :]
  return same_BC & ~jnp.eye(documents_B.size, dtype=bool)
