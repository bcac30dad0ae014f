"""Balance against loops written out, and why position entropy is not enough."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gr_jax.objectives.balance import (
  density_loss,
  position_entropy,
  position_entropy_loss,
)
from gr_jax.objectives.prefixes import prefix_density_loss
from gr_jax.objectives.sharpness import sharpness_loss

L, K = 3, 4
SIZES = (K,) * L
NO_QUEUE = jnp.zeros((0, L), jnp.int32), jnp.zeros(0, jnp.int32)


def random_probs(seed, rows=6):
  logits = jax.random.normal(jax.random.key(seed), (rows, L, K))
  return jax.nn.softmax(2 * logits)


def one_hot(codes_BL):
  return jax.nn.one_hot(jnp.array(codes_BL), K)


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
  value, _ = position_entropy_loss(one_hot(codes), SIZES)
  assert value == pytest.approx(np.log(4) - entropy, abs=1e-5)


def test_position_entropy_is_against_the_size_of_each_position():
  probs = one_hot([[0, 0, 0], [1, 1, 1], [2, 0, 0], [3, 1, 1]])
  assert position_entropy_loss(probs, (4, 2, 2))[0] == pytest.approx(
    0, abs=1e-5
  )


def pairs(probs, documents, queue_codes, queue_documents):
  """[pairs, L] chances that the two of a pair agree, position by position."""
  probs = np.asarray(probs, np.float64)
  rows = []
  for i in range(len(probs)):
    for j in range(len(probs)):
      if documents[i] != documents[j]:
        rows.append(np.sum(probs[i] * probs[j], axis=-1))
    for codes, document in zip(queue_codes, queue_documents, strict=True):
      if document >= 0 and document != documents[i]:
        rows.append(probs[i, np.arange(L), codes])
  return np.array(rows)


QUEUES = {
  'no queue': NO_QUEUE,
  'a queue': (
    jnp.array([[0, 1, 2], [3, 3, 3], [1, 1, 0], [2, 0, 1]]),
    # An empty place, and a document that the batch holds.
    jnp.array([8, -1, 2, 9]),
  ),
}


@pytest.mark.parametrize('queue', QUEUES)
@pytest.mark.parametrize('seed', range(3))
def test_density_is_the_log_mean_over_pairs(seed, queue):
  probs = random_probs(seed)
  documents = jnp.array([0, 1, 2, 2, 3, 4])
  chances = pairs(probs, documents, *QUEUES[queue])
  expected = np.log(np.mean(np.prod(chances, axis=1))) + L * np.log(K)
  found, _ = density_loss(probs, documents, SIZES, *QUEUES[queue])
  assert found == pytest.approx(expected, abs=1e-4)
  prefixes = sum(
    max(0.0, np.log(np.mean(np.prod(chances[:, :t], axis=1))) + t * np.log(K))
    for t in range(1, L + 1)
  )
  found, _ = prefix_density_loss(probs, documents, SIZES, *QUEUES[queue])
  assert found == pytest.approx(prefixes, abs=1e-4)


def test_density_of_uniform_and_of_equal_identifiers():
  uniform, documents = jnp.full((4, L, K), 1 / K), jnp.arange(4)
  for loss in (density_loss, prefix_density_loss):
    assert loss(uniform, documents, SIZES, *NO_QUEUE)[0] == pytest.approx(
      0, abs=1e-5
    )
  equal = one_hot([[1, 2, 3]] * 4)
  assert density_loss(equal, documents, SIZES, *NO_QUEUE)[0] == pytest.approx(
    L * np.log(K), abs=1e-5
  )
  # Prefixes of 1, 2 and 3 codes, each shared by all.
  found, _ = prefix_density_loss(equal, documents, SIZES, *NO_QUEUE)
  assert found == pytest.approx((1 + 2 + 3) * np.log(K), abs=1e-4)


@pytest.mark.parametrize('loss', [density_loss, prefix_density_loss])
def test_the_density_of_one_document_is_zero_with_a_finite_gradient(loss):
  probs, documents = random_probs(0), jnp.zeros(6, jnp.int32)
  value, gradient = jax.value_and_grad(
    lambda p: loss(p, documents, SIZES, *NO_QUEUE)[0]
  )(probs)
  assert value == 0
  assert np.all(np.isfinite(gradient))


def test_prefixes_that_are_rare_enough_are_left_alone():
  """The density of whole identifiers has a gradient below that of uniform."""
  codes = [[a, b, (a + b) % K] for a in range(K) for b in range(K)]
  probs = jax.nn.softmax(3 * one_hot(codes))
  documents = jnp.arange(len(codes))
  for loss, pressed in ((density_loss, True), (prefix_density_loss, False)):
    value, gradient = jax.value_and_grad(
      lambda p, loss=loss: loss(p, documents, SIZES, *NO_QUEUE)[0]
    )(probs)
    assert value <= 1e-6
    assert np.any(np.abs(gradient) > 1e-6) == pressed


def test_the_queue_presses_where_a_batch_alone_sees_nothing():
  """Two batches that crowd the same place, each of different documents."""
  probs = jax.nn.softmax(jnp.log(random_probs(5, rows=1)) * 3)
  batch_alone, _ = density_loss(probs, jnp.array([0]), SIZES, *NO_QUEUE)
  assert batch_alone == 0
  codes = jnp.argmax(probs, axis=-1).astype(jnp.int32)
  gradient = jax.grad(
    lambda p: density_loss(p, jnp.array([0]), SIZES, codes, jnp.array([1]))[0]
  )(probs)
  assert np.all(gradient[0, np.arange(L), codes[0]] > 0)


def test_sharpness_is_the_mean_entropy_of_documents():
  probs = random_probs(3)
  expected = float(-np.mean(np.sum(probs * jnp.log(probs), axis=-1)))
  assert sharpness_loss(probs)[0] == pytest.approx(expected, rel=1e-5)


def trained_codes(loss, documents=64, width=8, steps=150):
  """Codes of clustered documents, by heads that all start alike.

  Each position scores its codes by a linear map of the document; all positions
  start from one map and a little noise, as codebooks do that see the same
  vectors.
  """
  keys = jax.random.split(jax.random.key(0), 4)
  centres_CD = jax.random.normal(keys[0], (8, width))
  points_ND = jnp.repeat(centres_CD, documents // 8, axis=0)
  points_ND += 0.3 * jax.random.normal(keys[1], points_ND.shape)
  heads_LDK = 1e-3 * jax.random.normal(keys[3], (L, width, K))
  heads_LDK += 0.1 * jax.random.normal(keys[2], (1, width, K))
  optimizer = optax.adam(0.05)

  def probs(heads_LDK):
    return jax.nn.softmax(
      jnp.einsum('ND,LDK->NLK', points_ND, heads_LDK), axis=-1
    )

  def criterion(heads_LDK):
    # Soft codes could be uniform for every document: they have to choose.
    return loss(probs(heads_LDK)) + 0.3 * sharpness_loss(probs(heads_LDK))[0]

  def step(carry, _):
    heads_LDK, state = carry
    updates, state = optimizer.update(jax.grad(criterion)(heads_LDK), state)
    return (heads_LDK + updates, state), None

  @jax.jit
  def train():
    carry = heads_LDK, optimizer.init(heads_LDK)
    (found, _), _ = jax.lax.scan(step, carry, length=steps)
    return jnp.argmax(probs(found), axis=-1)

  return np.asarray(train())


def test_position_entropy_alone_lets_positions_copy_each_other():
  """Method: collapse hides behind entropies of .95 and more.

  The same heads, documents and steps; only the density term tells copies from
  codes that say different things.
  """

  def entropy_alone(probs):
    return position_entropy_loss(probs, SIZES)[0]

  def with_density(probs):
    documents = jnp.arange(len(probs))
    density, _ = density_loss(probs, documents, SIZES, *NO_QUEUE)
    return position_entropy_loss(probs, SIZES)[0] + density

  copies, apart = trained_codes(entropy_alone), trained_codes(with_density)
  for codes in (copies, apart):
    entropy_L = position_entropy(jax.nn.one_hot(codes, K)) / np.log(K)
    assert np.min(entropy_L) >= 0.9
  distinct = functools.partial(np.unique, axis=0)
  assert len(distinct(copies)) <= 2 * K
  assert len(distinct(apart)) >= 4 * len(distinct(copies))
