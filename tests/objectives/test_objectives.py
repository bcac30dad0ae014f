"""Criteria against closed forms and loops written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.objectives.balance import (
  density_loss,
  position_entropy,
  position_entropy_loss,
  sharpness_loss,
)
from gr_jax.objectives.commitment import commitment_loss
from gr_jax.objectives.consistency import consistency_loss
from gr_jax.objectives.contrastive import info_nce_loss
from gr_jax.objectives.generation import generation_loss
from gr_jax.objectives.weighted_sum import ObjectiveSettings

POSITIONS, CODES = 3, 4


def random_probs(seed, rows=6):
  logits = jax.random.normal(jax.random.key(seed), (rows, POSITIONS, CODES))
  return jax.nn.softmax(logits)


def one_hot(codes_BL):
  return jax.nn.one_hot(jnp.array(codes_BL), CODES)


def unit(seed, rows=5, width=8):
  vectors = jax.random.normal(jax.random.key(seed), (rows, width))
  return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def test_generation_is_the_cross_entropy_of_every_position():
  scores = jax.random.normal(jax.random.key(0), (5, POSITIONS, CODES))
  codes = jax.random.randint(jax.random.key(1), (5, POSITIONS), 0, CODES)
  value, metrics = generation_loss(scores, one_hot(codes), codes)
  expected = 0.0
  for b in range(5):
    for t in range(POSITIONS):
      row = np.asarray(scores[b, t], np.float64)
      expected += np.log(np.exp(row).sum()) - row[codes[b, t]]
  assert value == pytest.approx(expected / 5, rel=1e-5)
  assert metrics['generation'][0] == pytest.approx(expected, rel=1e-5)
  hits = np.mean(np.argmax(scores, -1) == codes)
  total, count = metrics['code_accuracy']
  assert total / count == pytest.approx(hits)


@pytest.mark.parametrize(
  'codes, entropy',
  [
    ([[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]], np.log(4)),
    ([[0, 0, 0]] * 4, 0.0),
    ([[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]], np.log(2)),
  ],
)
def test_position_entropy_of_known_codes(codes, entropy):
  np.testing.assert_allclose(
    position_entropy(one_hot(codes)), entropy, atol=1e-5
  )
  value, _ = position_entropy_loss(one_hot(codes))
  assert value == pytest.approx(np.log(4) - entropy, abs=1e-5)


def test_position_entropy_misses_copies_that_density_sees():
  # Positions that copy each other have full entropy and 4 identifiers of 64.
  copies = one_hot([[k, k, k] for k in range(CODES)] * 4)
  spread = one_hot(
    [
      [k, (k + s) % CODES, (k + 2 * s) % CODES]
      for k in range(4)
      for s in range(4)
    ]
  )
  documents = jnp.arange(16)
  assert position_entropy_loss(copies)[0] == pytest.approx(0, abs=1e-5)
  assert position_entropy_loss(spread)[0] == pytest.approx(0, abs=1e-5)
  crowded = density_loss(copies, documents)[0]
  assert crowded > density_loss(spread, documents)[0] + 1


@pytest.mark.parametrize('seed', range(3))
def test_density_is_the_log_mean_over_pairs(seed):
  probs = random_probs(seed)
  documents = jnp.array([0, 1, 2, 2, 3, 4])
  shared, pairs = 0.0, 0
  for i in range(6):
    for j in range(6):
      if documents[i] != documents[j]:
        overlaps = np.sum(np.asarray(probs[i] * probs[j], np.float64), axis=-1)
        shared, pairs = shared + np.prod(overlaps), pairs + 1
  expected = np.log(shared / pairs) + POSITIONS * np.log(CODES)
  assert density_loss(probs, documents)[0] == pytest.approx(expected, abs=1e-5)


def test_density_of_uniform_and_of_equal_identifiers():
  uniform = jnp.full((4, POSITIONS, CODES), 1 / CODES)
  assert density_loss(uniform, jnp.arange(4))[0] == pytest.approx(0, abs=1e-5)
  equal = one_hot([[1, 2, 3]] * 4)
  assert density_loss(equal, jnp.arange(4))[0] == pytest.approx(
    POSITIONS * np.log(CODES), abs=1e-5
  )


def test_density_of_one_document_is_zero_with_a_finite_gradient():
  probs, documents = random_probs(0), jnp.zeros(6, jnp.int32)
  value, gradient = jax.value_and_grad(lambda p: density_loss(p, documents)[0])(
    probs
  )
  assert value == 0
  assert np.all(np.isfinite(gradient))


def test_sharpness_is_the_mean_entropy_of_documents():
  probs = random_probs(3)
  expected = float(-np.mean(np.sum(probs * jnp.log(probs), axis=-1)))
  assert sharpness_loss(probs)[0] == pytest.approx(expected, rel=1e-5)


def test_info_nce_leaves_out_repeats_of_a_document():
  queries, vectors = unit(0), unit(1)
  documents = jnp.array([0, 1, 1, 2, 3])
  value, metrics = info_nce_loss(queries, vectors, documents, 0.1, 'dense')
  scores = np.asarray(queries @ vectors.T, np.float64) / 0.1
  losses = []
  for b in range(5):
    kept = [c for c in range(5) if c == b or documents[c] != documents[b]]
    losses.append(np.log(np.exp(scores[b, kept]).sum()) - scores[b, b])
  assert value == pytest.approx(np.mean(losses), rel=1e-4)
  assert set(metrics) == {'dense', 'dense_accuracy'}


def test_consistency_is_zero_when_codes_say_what_vectors_say():
  queries, vectors, documents = unit(0), unit(1), jnp.arange(5)
  same = consistency_loss(queries, vectors, vectors, documents, 0.1)[0]
  other = consistency_loss(queries, vectors, unit(2), documents, 0.1)[0]
  assert same == pytest.approx(0, abs=1e-5)
  assert other > 0.1


def test_consistency_moves_the_codes_and_not_their_teacher():
  queries, documents = unit(0), jnp.arange(5)
  gradients = jax.grad(
    lambda dense, codes: consistency_loss(
      queries, dense, codes, documents, 0.1
    )[0],
    argnums=(0, 1),
  )(unit(1), unit(2))
  assert np.all(np.asarray(gradients[0]) == 0)
  assert np.any(np.abs(gradients[1]) > 1e-3)


def test_commitment_pulls_both_sides_together():
  vectors, quantised = unit(0), unit(1)
  value, metrics = commitment_loss(vectors, quantised)
  distance = np.sum((np.asarray(vectors) - quantised) ** 2, axis=-1)
  assert value == pytest.approx(2 * float(np.mean(distance)), rel=1e-5)
  assert metrics['quantisation_error'][0] == pytest.approx(
    float(np.sum(distance)), rel=1e-5
  )
  pulls = jax.grad(lambda v, q: commitment_loss(v, q)[0], argnums=(0, 1))(
    vectors, quantised
  )
  np.testing.assert_allclose(pulls[0], -pulls[1], rtol=1e-5)


def test_every_weight_is_that_of_a_criterion():
  names = set(ObjectiveSettings.__dataclass_fields__) - {'temperature'}
  assert names == {
    'generation',
    'bottleneck',
    'quantised',
    'consistency',
    'commitment',
    'position_entropy',
    'density',
    'sharpness',
  }
