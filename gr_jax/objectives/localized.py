"""Localized contrastive loss: a document told from its query's own negatives.

Gao, Dai and Callan 2021 (arXiv 2101.08751), equation 6: softmax cross-entropy
over the scores of the positive and of H negatives out of what a retriever
found for that query.
"""

import jax
import jax.numpy as jnp

# A score that no softmax notices; finite, so that gradients are.
_LEFT_OUT = -1e9


def localized_contrastive_loss(scores_BC, documents_BC):
  """Cross-entropy of the first score among those of each query.

  Args:
    scores_BC: of each query's candidates, its own document first.
    documents_BC: int32 numbers of the candidates; those below 0 are left out.
      The first counts whatever its number.

  Returns:
    The mean over queries in nats, and metrics: 'localized', the same, and
    'localized_accuracy', how often the own document's score is the highest.
    Equal scores count against it.
  """
  scores_BC = scores_BC.astype(jnp.float32)
  own_BC = jnp.arange(scores_BC.shape[1])[None] == 0
  there_BC = (documents_BC >= 0) | own_BC
  logits_BC = jnp.where(there_BC, scores_BC, _LEFT_OUT)
  loss_B = -jax.nn.log_softmax(logits_BC)[:, 0]
  others_BC = jnp.where(own_BC, _LEFT_OUT, logits_BC)
  hits_B = jnp.max(others_BC, axis=1) < logits_BC[:, 0]
  return jnp.mean(loss_B), {
    'localized': (jnp.sum(loss_B), loss_B.size),
    'localized_accuracy': (jnp.sum(hits_B), loss_B.size),
  }
