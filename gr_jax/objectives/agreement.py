"""Agreement: the indexer, read on a query, writes the document's codes."""

import jax
import jax.numpy as jnp

from gr_jax.objectives.contrastive import same_document

_TINY = 1e-9


def agreement_loss(query_probs_BLK, codes_BL):
  """Cross-entropy of the indexer's codes for the query: CE(p(.|q), sg z(d)).

  Our reconstruction of ASI's agreement of both sides (arXiv 2310.12455).

  Args:
    query_probs_BLK: code probabilities of the queries, rows sum to 1.
    codes_BL: int32 hard codes of their documents.

  Returns:
    The mean over the batch of the sum over positions, in nats, and metrics.
  """
  chosen_BL = jnp.take_along_axis(
    query_probs_BLK, codes_BL[..., None], axis=-1
  )[..., 0]
  loss_B = -jnp.sum(jnp.log(chosen_BL + _TINY), axis=-1)
  return jnp.mean(loss_B), {'agreement': (jnp.sum(loss_B), loss_B.size)}


def code_contrast_loss(query_probs_BLK, probs_BLK, documents_B):
  """InfoNCE in code space: a query's codes against all documents of the batch.

  -log softmax_j sum_t log <p_t(q), p_t(d_j)>: our reconstruction of ASI's
  discrete contrastive loss (arXiv 2310.12455). Of probabilities on both sides:
  a hard sample of a code that the query hardly gives would have a gradient
  of 1 / <p, y>.

  Args:
    query_probs_BLK: code probabilities of the queries, rows sum to 1.
    probs_BLK: those of their documents.
    documents_B: int32 document of each row; repeats of one document are left
      out.

  Returns:
    The mean over the batch in nats, and metrics.
  """
  agree_LBC = jnp.einsum(
    'BLK,CLK->LBC',
    query_probs_BLK,
    probs_BLK,
  )
  scores_BC = jnp.sum(jnp.log(agree_LBC + _TINY), axis=0)
  logp_BC = jax.nn.log_softmax(
    jnp.where(same_document(documents_B), -1e9, scores_BC)
  )
  loss_B = -jnp.diagonal(logp_BC)
  return jnp.mean(loss_B), {'code_contrast': (jnp.sum(loss_B), loss_B.size)}
