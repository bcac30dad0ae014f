"""The localized contrastive loss against numpy, one query at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.objectives.localized import localized_contrastive_loss

SCORES = np.float32([[2.0, 1.0, -3.0], [0.5, 0.5, 9.0], [1.0, 4.0, 0.0]])
DOCUMENTS = np.int32([[5, 6, 7], [3, 2, -1], [0, -1, -1]])


def expected(scores, documents):
  losses, hits = [], []
  for row, there in zip(scores.astype(np.float64), documents, strict=True):
    kept = [
      row[0],
      *(s for s, d in zip(row[1:], there[1:], strict=True) if d >= 0),
    ]
    losses.append(-row[0] + np.log(np.sum(np.exp(kept))))
    hits.append(all(row[0] > other for other in kept[1:]))
  return losses, hits


def test_it_is_softmax_cross_entropy_over_what_is_there():
  loss, metrics = localized_contrastive_loss(
    jnp.asarray(SCORES), jnp.asarray(DOCUMENTS)
  )
  losses, hits = expected(SCORES, DOCUMENTS)
  assert float(loss) == pytest.approx(np.mean(losses), rel=1e-6)
  assert float(metrics['localized'][0]) == pytest.approx(sum(losses), rel=1e-6)
  assert metrics['localized'][1] == 3
  assert int(metrics['localized_accuracy'][0]) == sum(hits) == 2


def test_what_is_left_out_has_no_gradient():
  gradient = jax.grad(
    lambda s: localized_contrastive_loss(s, jnp.asarray(DOCUMENTS))[0]
  )(jnp.asarray(SCORES))
  assert np.all(np.isfinite(gradient))
  assert np.all(np.asarray(gradient)[DOCUMENTS < 0] == 0)
  np.testing.assert_allclose(np.sum(gradient, axis=1), 0, atol=1e-6)
