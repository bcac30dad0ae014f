"""Draws, Sinkhorn and the rotation trick, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers import interface
from gr_jax.indexers.rotation import rotated
from gr_jax.indexers.sampling import SamplingConfig, sample_codes
from gr_jax.indexers.sinkhorn import sinkhorn


def draw(logits, config=None, scale=1.0, usage=None):
  return sample_codes(
    logits,
    config or SamplingConfig(),
    temperature=1.0,
    noise=scale,
    usage_K=jnp.ones(logits.shape[-1]) if usage is None else usage,
    rng=jax.random.key(0),
  )


def test_gumbel_noise_draws_codes_by_their_probability():
  logits = jnp.log(jnp.tile(jnp.array([[0.5, 0.3, 0.2]]), (20000, 1)))
  probs, sample = draw(logits)
  np.testing.assert_allclose(
    jnp.mean(sample, axis=0), np.asarray(probs)[0], atol=0.02
  )
  assert set(np.unique(np.round(np.asarray(sample), 5))) == {0.0, 1.0}


@pytest.mark.parametrize('scale', [0.0, 0.7])
def test_a_soft_sample_is_the_noisy_distribution(scale):
  logits = jax.random.normal(jax.random.key(1), (6, 4))
  probs, soft = draw(logits, SamplingConfig(gradient='soft'), scale)
  assert np.allclose(probs, soft) == (scale == 0)
  _, hard = draw(logits, scale=scale)
  np.testing.assert_array_equal(np.argmax(soft, -1), np.argmax(hard, -1))


def test_scores_count_by_their_spread():
  """Temperature and noise mean the same whatever the codebooks' scale."""
  logits = jax.random.normal(jax.random.key(1), (6, 4))
  for one, other in zip(draw(logits), draw(50 * logits), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_frequent_codes_alone_are_noisy():
  logits = jnp.tile(jnp.array([[1.0, 0.9, 0.8, interface.ABSENT]]), (4000, 1))
  # Of the three codes that there are, the first has more than 1.5 / 3.
  usage = jnp.array([0.6, 0.3, 0.1, 0.0])
  _, some = draw(logits, SamplingConfig(noise='frequency'), 5.0, usage)
  _, all_of_them = draw(logits, scale=5.0, usage=usage)
  used = np.mean(some, axis=0)
  # The other two keep their order: the third is never the best.
  assert 0.2 < used[0] < 0.8 and used[1] > 0.2
  np.testing.assert_array_equal(used[2:], 0)
  assert np.all(np.mean(all_of_them, axis=0)[:3] > 0.2)


def test_sinkhorn_gives_every_code_an_equal_share():
  scores = jax.random.normal(jax.random.key(2), (12, 5))
  scores = scores.at[:, 4].set(interface.ABSENT)
  found = sinkhorn(scores, 0.3, 200)
  np.testing.assert_allclose(np.sum(found, axis=1), 1, atol=1e-5)
  np.testing.assert_allclose(np.sum(found, axis=0), [3, 3, 3, 3, 0], atol=1e-3)


@pytest.mark.parametrize('size', [1.0, 300.0])
def test_sinkhorn_is_the_plain_loop(size):
  scores = size * np.random.default_rng(0).normal(size=(6, 3))
  half = (scores.max() - scores.min()) / 2
  plain = np.exp((scores - (scores.max() + scores.min()) / 2) / half / 0.5)
  for _ in range(30):
    plain *= 2 / plain.sum(axis=0, keepdims=True)
    plain /= plain.sum(axis=1, keepdims=True)
  padded = jnp.asarray(np.pad(scores, ((0, 0), (0, 1))), jnp.float32)
  padded = padded.at[:, 3].set(interface.ABSENT)
  found = sinkhorn(padded, 0.5, 30)
  np.testing.assert_allclose(found[:, :3], plain, atol=1e-4)
  gradient = jax.grad(lambda s: jnp.sum(sinkhorn(s, 0.5, 30) ** 2))(padded)
  np.testing.assert_array_equal(gradient, 0)


def test_sinkhorn_balances_codes_that_all_rows_prefer_alike():
  scores = jax.random.normal(jax.random.key(3), (40, 4)) * 0.1
  scores = scores + jnp.array([[3.0, 0, 0, 0]])
  _, plain = draw(scores, scale=0.0)
  _, even = draw(scores, SamplingConfig(balance='sinkhorn'), 0.0)
  assert np.sum(plain, axis=0)[0] == pytest.approx(40)
  np.testing.assert_allclose(np.sum(even, axis=0), 10, atol=4)


def test_the_rotation_trick_turns_gradients_as_it_turns_vectors():
  key = jax.random.split(jax.random.key(4), 3)
  vectors, codewords, target = jax.random.normal(key[0], (3, 5, 4))
  np.testing.assert_allclose(rotated(vectors, codewords), codewords, atol=1e-5)
  to_vectors, to_codewords = jax.grad(
    lambda v, c: jnp.sum(rotated(v, c) * target), argnums=(0, 1)
  )(vectors, codewords)
  np.testing.assert_allclose(to_codewords, target, atol=1e-6)
  for v, c, upstream, gradient in zip(
    *(np.asarray(x, np.float64) for x in (vectors, codewords, target)),
    np.asarray(to_vectors),
    strict=True,
  ):
    turn = rotation_onto(v, c)
    np.testing.assert_allclose(turn @ turn.T, np.eye(4), atol=1e-9)
    ratio = np.linalg.norm(c) / np.linalg.norm(v)
    np.testing.assert_allclose(ratio * turn @ v, c, atol=1e-9)
    np.testing.assert_allclose(gradient, ratio * turn.T @ upstream, atol=1e-5)


def rotation_onto(vector, codeword):
  """The rotation in the plane of the two, as two reflections."""
  start = vector / np.linalg.norm(vector)
  end = codeword / np.linalg.norm(codeword)
  middle = (start + end) / np.linalg.norm(start + end)
  eye = np.eye(len(vector))
  first = eye - 2 * np.outer(start, start)
  return (eye - 2 * np.outer(middle, middle)) @ first
