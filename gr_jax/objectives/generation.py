"""Generation: the decoder writes the document's identifier from the query."""

import jax
import jax.numpy as jnp


def generation_loss(scores_BLK, targets_BLK, codes_BL):
  """Cross-entropy of the code decoder against the indexer's sample.

  L_gen = -sum_t <y_t, log P(. | z_<t, q)> (our reconstruction of ASI++'s
  end-to-end generation loss; the sequence form of ASI, arXiv 2310.12455).
  The gradient reaches the indexer through y_t.

  Args:
    scores_BLK: the decoder's scores of every code at every position.
    targets_BLK: y_t, one-hot or soft codes of the document; rows sum to 1.
    codes_BL: int32 hard codes of the document, for the accuracy.

  Returns:
    The mean over the batch of the sum over positions, in nats, and metrics.
  """
  logp_BLK = jax.nn.log_softmax(scores_BLK, axis=-1)
  loss_B = -jnp.sum(targets_BLK * logp_BLK, axis=(1, 2))
  hits_BL = jnp.argmax(scores_BLK, axis=-1) == codes_BL
  batch = loss_B.size
  return jnp.mean(loss_B), {
    'generation': (jnp.sum(loss_B), batch),
    'code_accuracy': (jnp.sum(hits_BL), hits_BL.size),
  }
