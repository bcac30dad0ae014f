"""What every indexer promises, whatever its kind, and what k-means finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers.gumbel import gumbel_softmax
from gr_jax.indexers.kmeans import kmeans, residual_kmeans
from gr_jax.indexers.random_codes import RandomConfig, RandomIndexer
from gr_jax.indexers.residual import (
  ResidualConfig,
  ResidualIndexer,
  residual_codes,
  squared_distances,
)

WIDTH, POSITIONS, CODES, BATCH = 6, 3, 5, 7
KINDS = [
  ResidualIndexer(ResidualConfig(POSITIONS, CODES), WIDTH),
  ResidualIndexer(
    ResidualConfig(POSITIONS, CODES, straight_through=False), WIDTH
  ),
  RandomIndexer(RandomConfig(POSITIONS, CODES), WIDTH),
]
each_kind = pytest.mark.parametrize(
  'indexer', KINDS, ids=['residual', 'residual soft', 'random']
)


def vectors(rows=BATCH):
  return jax.random.normal(jax.random.key(0), (rows, WIDTH))


def documents(rows=BATCH):
  return jnp.arange(rows)


def assignment(indexer, noise=0.0, temperature=0.1, params=None):
  options = {
    'temperature': temperature,
    'noise': noise,
    'rng': jax.random.key(3),
  }
  if params is None:
    params = initial(indexer)
  return params, indexer.apply(
    {'params': params}, vectors(), documents(), **options
  )


def initial(indexer):
  return indexer.init(
    jax.random.key(1),
    vectors(),
    documents(),
    temperature=1.0,
    noise=0.0,
    rng=jax.random.key(2),
  )['params']


@each_kind
def test_shapes_and_distributions(indexer):
  _, codes = assignment(indexer, noise=0.5)
  assert codes.codes_BL.shape == (BATCH, POSITIONS)
  assert codes.codes_BL.dtype == jnp.int32
  assert codes.quantised_BD.shape == (BATCH, WIDTH)
  for rows in (codes.probs_BLK, codes.sample_BLK):
    assert rows.shape == (BATCH, POSITIONS, CODES)
    np.testing.assert_allclose(jnp.sum(rows, axis=-1), 1, rtol=1e-5)
  np.testing.assert_allclose(
    jnp.sum(codes.codewords_BLD, axis=1), codes.quantised_BD, atol=1e-5
  )


@each_kind
def test_assignment_is_deterministic_and_that_of_training_without_noise(
  indexer,
):
  params, codes = assignment(indexer, temperature=1e-3)

  def assign():
    return indexer.apply(
      {'params': params}, vectors(), documents(), method='assign'
    )

  np.testing.assert_array_equal(assign(), assign())
  np.testing.assert_array_equal(assign(), codes.codes_BL)


@each_kind
def test_every_row_is_coded_by_itself(indexer):
  params = initial(indexer)
  order = jnp.array([4, 0, 6, 2])
  whole = indexer.apply(
    {'params': params}, vectors(), documents(), method='assign'
  )
  part = indexer.apply(
    {'params': params}, vectors()[order], order, method='assign'
  )
  np.testing.assert_array_equal(whole[order], part)


@each_kind
def test_gradients_reach_the_codebooks(indexer):
  params = initial(indexer)

  def loss(params):
    return jnp.sum(assignment(indexer, params=params)[1].quantised_BD ** 2)

  gradient = jax.grad(loss)(params)['codebooks']
  assert np.all(np.isfinite(gradient))
  assert np.any(np.abs(gradient) > 0)


def test_gradients_reach_the_vectors_through_the_straight_through_sample():
  indexer, params = KINDS[0], initial(KINDS[0])
  target = jax.random.normal(jax.random.key(9), (POSITIONS, CODES))

  def loss(vectors_BD):
    codes = indexer.apply(
      {'params': params},
      vectors_BD,
      documents(),
      temperature=0.5,
      noise=0.0,
      rng=jax.random.key(3),
    )
    return jnp.sum(codes.sample_BLK * target[None])

  assert np.any(np.abs(jax.grad(loss)(vectors())) > 1e-6)


def test_residual_codes_are_greedy_nearest_codewords():
  codebooks = jax.random.normal(jax.random.key(5), (POSITIONS, CODES, WIDTH))
  found = residual_codes(vectors(), codebooks)
  for b, vector in enumerate(np.asarray(vectors())):
    for t in range(POSITIONS):
      distances = np.sum((np.asarray(codebooks[t]) - vector) ** 2, axis=-1)
      assert found[b, t] == np.argmin(distances)
      vector = vector - np.asarray(codebooks[t])[found[b, t]]


def test_random_codes_depend_on_seed_and_document_alone():
  def codes(seed, numbers):
    indexer = RandomIndexer(RandomConfig(4, 64, seed=seed), WIDTH)
    return indexer.apply(
      {'params': {'codebooks': jnp.zeros((4, 64, WIDTH))}},
      vectors(len(numbers)),
      jnp.array(numbers),
      method='assign',
    )

  many = np.asarray(codes(0, list(range(2000))))
  np.testing.assert_array_equal(many[5:9], codes(0, [5, 6, 7, 8]))
  assert np.mean(many == np.asarray(codes(1, list(range(2000))))) < 0.05
  counts = np.bincount(many[:, 0], minlength=64)
  assert counts.min() > 0
  assert counts.max() < 100


def test_gumbel_noise_draws_codes_by_their_probability():
  logits = jnp.log(jnp.tile(jnp.array([[0.5, 0.3, 0.2]]), (20000, 1)))
  sample = gumbel_softmax(
    logits,
    temperature=1.0,
    noise=1.0,
    straight_through=True,
    rng=jax.random.key(0),
  )
  np.testing.assert_allclose(
    jnp.mean(sample, axis=0), [0.5, 0.3, 0.2], atol=0.02
  )
  assert set(np.unique(np.round(np.asarray(sample), 5))) == {0.0, 1.0}


def test_kmeans_finds_separate_groups_and_uses_every_centre():
  centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
  groups = np.repeat(np.arange(4), 25)
  points = centres[groups] + np.random.default_rng(0).normal(size=(100, 2))
  found, nearest = kmeans(
    jnp.asarray(points), jax.random.key(0), clusters=4, iterations=20
  )
  assert len(np.unique(nearest)) == 4
  for group in range(4):
    assert len(np.unique(nearest[groups == group])) == 1
  np.testing.assert_allclose(
    np.sort(np.asarray(found), axis=0), np.sort(centres, axis=0), atol=1
  )


def test_kmeans_with_fewer_vectors_than_clusters():
  points = jnp.eye(3)
  centres, nearest = kmeans(points, jax.random.key(0), clusters=8, iterations=5)
  assert np.all(np.isfinite(centres))
  np.testing.assert_allclose(centres[nearest], points, atol=1e-6)


def test_residual_kmeans_comes_closer_with_every_position():
  points = jax.random.normal(jax.random.key(0), (300, WIDTH))
  codebooks, codes = residual_kmeans(
    points, jax.random.key(1), positions=4, codes=16
  )
  np.testing.assert_array_equal(codes, residual_codes(points, codebooks))
  residual, errors = points, []
  for t in range(4):
    residual = residual - codebooks[t][codes[:, t]]
    errors.append(float(jnp.mean(jnp.sum(residual**2, axis=-1))))
  assert errors == sorted(errors, reverse=True)
  assert errors[-1] < errors[0] / 2


def test_distances_are_as_exact_on_an_accelerator_as_on_a_cpu():
  """A CPU computes in float32 whatever it is asked for: read the program."""
  points = vectors()
  traced = jax.make_jaxpr(squared_distances)(points, points)
  (product,) = (e for e in traced.eqns if e.primitive.name == 'dot_general')
  assert set(product.params['precision']) == {jax.lax.Precision.HIGHEST}
