"""The criteria that are off by default, against loops written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.objectives.agreement import agreement_loss, code_contrast_loss
from gr_jax.objectives.prefixes import prefix_contrast_loss
from gr_jax.objectives.reconstruction import reconstruction_loss
from gr_jax.objectives.uncertainty import LEAST, weigh_by_uncertainty

B, L, K, D = 5, 3, 4, 6
DOCUMENTS = jnp.array([0, 1, 1, 2, 3])


def random_probs(seed):
  logits = jax.random.normal(jax.random.key(seed), (B, L, K))
  return jax.nn.softmax(logits)


def kept(b):
  """Rows of the batch that are no repeat of row b's document."""
  return [c for c in range(B) if c == b or DOCUMENTS[c] != DOCUMENTS[b]]


def test_agreement_is_the_cross_entropy_of_the_documents_codes():
  probs, codes = random_probs(0), jnp.argmax(random_probs(1), axis=-1)
  value, metrics = agreement_loss(probs, codes)
  expected = [
    -sum(np.log(probs[b, t, codes[b, t]]) for t in range(L)) for b in range(B)
  ]
  assert value == pytest.approx(np.mean(expected), rel=1e-5)
  assert metrics['agreement'][1] == B


def test_code_contrast_tells_documents_apart_by_their_codes():
  probs = random_probs(0)
  others = random_probs(1)
  value, _ = code_contrast_loss(probs, others, DOCUMENTS)
  losses = []
  for b in range(B):
    scores = np.array(
      [
        sum(np.log(np.sum(probs[b, t] * others[c, t])) for t in range(L))
        for c in kept(b)
      ]
    )
    own = scores[kept(b).index(b)]
    losses.append(np.log(np.exp(scores).sum()) - own)
  assert value == pytest.approx(np.mean(losses), rel=1e-4)


def test_code_contrast_of_codes_that_do_not_meet_has_a_bounded_gradient():
  """Scores of 30 and more apart: the chance to agree is below 1e-9."""
  queries = 40.0 * jax.nn.one_hot(jnp.zeros((B, L), jnp.int32), K)
  documents = 40.0 * jax.nn.one_hot(jnp.ones((B, L), jnp.int32), K)
  value, gradients = jax.value_and_grad(
    lambda q, d: code_contrast_loss(
      jax.nn.softmax(q), jax.nn.softmax(d), DOCUMENTS
    )[0],
    argnums=(0, 1),
  )(queries, documents)
  assert np.isfinite(value)
  for gradient in gradients:
    assert np.max(np.abs(gradient)) <= 1


def test_every_prefix_tells_documents_apart():
  queries = jax.random.normal(jax.random.key(2), (B, D))
  codewords = jax.random.normal(jax.random.key(3), (B, L, D))
  value, metrics = prefix_contrast_loss(queries, codewords, DOCUMENTS, 0.7)
  losses = []
  for t in range(1, L + 1):
    prefixes = np.asarray(jnp.sum(codewords[:, :t], axis=1), np.float64)
    for b in range(B):
      distances = np.sum((prefixes - np.asarray(queries)[b]) ** 2, axis=-1)
      scores = -distances[kept(b)] / (2 * 0.7)
      own = scores[kept(b).index(b)]
      losses.append(np.log(np.exp(scores).sum()) - own)
  assert value == pytest.approx(np.mean(losses), rel=1e-4)
  assert metrics['prefix_contrast'][1] == B * L


def test_reconstruction_looks_at_directions():
  pooled = jax.random.normal(jax.random.key(4), (B, D))
  assert reconstruction_loss(pooled, 3 * pooled)[0] == pytest.approx(
    0, abs=1e-5
  )
  assert reconstruction_loss(pooled, -pooled)[0] == pytest.approx(2, rel=1e-5)
  gradient = jax.grad(lambda x: reconstruction_loss(pooled, x)[0])(
    jnp.zeros((B, D))
  )
  assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize('loss', [4.0, 1.0, 0.09])
def test_the_noise_is_least_costly_at_the_root_of_the_loss(loss):
  """|s| + l = sqrt(L), for L the mean over positions."""

  def value(scale):
    return weigh_by_uncertainty(L * loss, {}, scale, L)[0]

  best = np.sqrt(loss) - LEAST
  assert jax.grad(value)(best) == pytest.approx(0, abs=1e-4)
  assert value(best) < min(value(0.8 * best), value(1.2 * best))
  assert value(-best) == pytest.approx(value(best))


def test_uncertainty_is_finite_without_noise_and_is_logged():
  value, metrics = weigh_by_uncertainty(6.0, {'generation': (6.0, 1)}, 0.0, L)
  assert value == pytest.approx(6 / (2 * LEAST**2) + L * np.log(LEAST))
  _, metrics = weigh_by_uncertainty(6.0, metrics, -0.5, L)
  assert metrics['uncertainty'] == (0.5, 1)
  assert metrics['generation'] == (6.0, 1)
