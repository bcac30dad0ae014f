"""What every indexer promises, whatever its kind."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers import interface
from gr_jax.indexers.neural import NeuralConfig, NeuralIndexer
from gr_jax.indexers.product import ProductConfig, ProductIndexer, cayley
from gr_jax.indexers.residual import ResidualConfig, ResidualIndexer
from gr_jax.indexers.sampling import SamplingConfig
from gr_jax.indexers.static import StaticConfig, StaticIndexer
from gr_jax.types import UserError

WIDTH, BATCH, L = 12, 8, 3
BEAMS = 6
# Each kind compiles a program of its own, and runs it once.
QUICKLY = {'xla_backend_optimization_level': 0}
SIZES = (5, 3, 4)
INDEXERS = {
  ResidualConfig: ResidualIndexer,
  NeuralConfig: NeuralIndexer,
  ProductConfig: ProductIndexer,
  StaticConfig: StaticIndexer,
}


def sampled(kind, *, codes=SIZES, sampling=None, **config):
  sampling = SamplingConfig(**(sampling or {}))
  return kind(positions=L, codes=codes, sampling=sampling, **config)


KINDS = {
  'residual': sampled(ResidualConfig, codes=5),
  'residual, unequal': sampled(ResidualConfig, balanced=False),
  'residual soft': sampled(ResidualConfig, sampling={'gradient': 'soft'}),
  'residual rotation': sampled(
    ResidualConfig, sampling={'gradient': 'rotation'}
  ),
  'residual conditioned': sampled(ResidualConfig, conditioned=True),
  'residual sinkhorn': sampled(
    ResidualConfig, sampling={'balance': 'sinkhorn'}
  ),
  'residual frequency': sampled(
    ResidualConfig, sampling={'noise': 'frequency'}
  ),
  'residual uncertainty': sampled(
    ResidualConfig, sampling={'noise': 'uncertainty'}
  ),
  'neural': sampled(NeuralConfig, hidden=4),
  'neural, each alone': sampled(NeuralConfig, hidden=4, conditioned=False),
  'neural rotation': sampled(
    NeuralConfig, hidden=4, codes=4, sampling={'gradient': 'rotation'}
  ),
  # Every pair of choices is there.
  'product': sampled(ProductConfig),
  'product untied': sampled(ProductConfig, tied=False, rotation=False),
  'product softmax': sampled(ProductConfig, scores='softmax', rotation=False),
  'product softmax, untied': sampled(
    ProductConfig, scores='softmax', tied=False
  ),
  # How a fixed kind chooses identifiers is tested where they are chosen.
  'fixed': StaticConfig('rq_kmeans', L, SIZES),
  'fixed, one code': StaticConfig('atomic', 1, 9),
}
FIXED = ('fixed', 'fixed, one code')
LEARNED = [name for name in KINDS if not isinstance(KINDS[name], StaticConfig)]
each_kind = pytest.mark.parametrize('name', KINDS)
each_learned_kind = pytest.mark.parametrize('name', LEARNED)
ORDER = np.array([4, 0, 6, 2])


def vectors(seed=0, rows=BATCH):
  points = jax.random.normal(jax.random.key(seed), (rows, WIDTH))
  return points / jnp.linalg.norm(points, axis=-1, keepdims=True)


def known(config):
  columns = [np.arange(BATCH) * 7 % size for size in config.code_sizes]
  return jnp.asarray(np.stack(columns, axis=1), jnp.int32)


def randomised(params):
  """Away from zeros, which would hide what is learned."""
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(8), len(leaves))
  leaves = [
    leaf + 0.2 * jax.random.normal(key, leaf.shape)
    for leaf, key in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(tree, leaves)


def training_inputs(config, temperature, noise):
  """What an indexer is given besides vectors while training."""
  sizes = config.code_sizes
  return {
    'temperature': temperature,
    'noise': noise,
    'usage_LK': jnp.full((len(sizes), max(sizes)), 1.0),
    'rng': jax.random.key(3),
  }


@functools.cache
def found(name):
  """All that the tests look at, in one program for each kind."""
  config = KINDS[name]
  indexer = INDEXERS[type(config)](config, WIDTH)
  sizes = config.code_sizes
  target = jax.random.normal(jax.random.key(9), (len(sizes), max(sizes)))
  seen = jax.random.normal(jax.random.key(10), (WIDTH,))

  fixed = isinstance(config, StaticConfig)

  def call(params, vectors_BD, temperature, noise):
    if fixed:
      books_LKD = indexer.apply({'params': params}, method='codebooks')
      return interface.given(known(config), books_LKD)
    inputs = training_inputs(config, temperature, noise)
    return indexer.apply({'params': params}, vectors_BD, **inputs)

  def loss(params, vectors_BD):
    codes = call(params, vectors_BD, 0.5, 0.1)
    chosen = jnp.sum(codes.sample_BLK * target[None])
    return chosen + jnp.sum(codes.quantised_BD @ seen)

  def candidates(params, vectors_BD, beams):
    return indexer.apply(
      {'params': params}, vectors_BD, beams, method='candidates'
    )

  def everything():
    key = jax.random.key(1)
    if fixed:
      drawn = indexer.init(key, method='codebooks')
    else:
      inputs = training_inputs(config, 1.0, 0.0)
      drawn = indexer.init(key, vectors(), **inputs)
    params = randomised(drawn['params'])
    gradients = jax.grad(loss, (0, 1))(params, vectors())
    # Temperature and noise of the calls 'noisy' and 'sharp'.
    called = jax.vmap(call, (None, None, 0, 0))(
      params, vectors(), jnp.array([0.5, 1e-4]), jnp.array([0.5, 0.0])
    )
    return {
      'noisy': jax.tree.map(lambda x: x[0], called),
      'sharp': jax.tree.map(lambda x: x[1], called),
      'assigned': candidates(params, vectors(), 1)[0][:, 0],
      'part': candidates(params, vectors()[ORDER], BEAMS),
      'candidates': candidates(params, vectors(), BEAMS),
      'all': candidates(params, vectors(), math.prod(sizes)),
      'gradients': gradients,
      'params': params,
    }

  return jax.device_get(jax.jit(everything, compiler_options=QUICKLY)())


@each_kind
def test_shapes_and_distributions(name):
  config, codes = KINDS[name], found(name)['noisy']
  sizes = np.array(config.code_sizes)
  assert codes.codes_BL.shape == (BATCH, len(sizes))
  assert codes.codes_BL.dtype == np.int32
  assert codes.quantised_BD.shape == (BATCH, WIDTH)
  assert codes.codewords_BLD.shape == (BATCH, len(sizes), WIDTH)
  for rows in (codes.probs_BLK, codes.sample_BLK):
    assert rows.shape == (BATCH, len(sizes), max(sizes))
    np.testing.assert_allclose(np.sum(rows, axis=-1), 1, rtol=1e-5)
    past = np.arange(max(sizes)) >= sizes[:, None]
    np.testing.assert_allclose(rows[:, past], 0, atol=1e-6)
  np.testing.assert_allclose(
    np.sum(codes.codewords_BLD, axis=1), codes.quantised_BD, atol=1e-5
  )


@each_kind
def test_codes_are_within_the_size_of_their_position(name):
  result, sizes = found(name), np.array(KINDS[name].code_sizes)
  for codes in (
    result['assigned'],
    result['candidates'][0],
    result['all'][0],
    result['noisy'].codes_BL,
  ):
    assert np.all(codes >= 0) and np.all(codes < sizes)


@each_learned_kind
def test_the_index_gets_the_codes_of_training_without_noise(name):
  if KINDS[name] == KINDS['residual sinkhorn']:
    # It balances a batch in training; the index takes the nearest code.
    assert found(name)['assigned'].shape == (BATCH, L)
    return
  np.testing.assert_array_equal(
    found(name)['assigned'], found(name)['sharp'].codes_BL
  )


@each_kind
def test_every_row_is_coded_by_itself(name):
  for whole, part in zip(
    found(name)['candidates'], found(name)['part'], strict=True
  ):
    np.testing.assert_allclose(whole[ORDER], part, rtol=1e-5)


@each_kind
def test_candidates_are_distinct_and_come_in_order(name):
  codes_BWL, costs_BW = found(name)['all']
  assert np.all(np.diff(costs_BW, axis=1) >= 0)
  for codes_WL in codes_BWL:
    assert len(np.unique(codes_WL, axis=0)) == len(codes_WL)
  # A few beams find nothing better than all, and the best of many.
  few_B = found(name)['candidates'][1][:, 0]
  assert np.all(few_B >= costs_BW[:, 0] - 1e-4)
  assert np.mean(few_B < costs_BW[:, 0] + 1e-4) >= 0.25


@each_kind
def test_codewords_are_those_of_the_codebooks(name):
  """The decoder, tied to the codebooks, reads what a code stands for."""
  config, result = KINDS[name], found(name)
  indexer = INDEXERS[type(config)](config, WIDTH)
  books = indexer.apply({'params': result['params']}, method='codebooks')
  assert books.shape == (
    len(config.code_sizes), max(config.code_sizes), WIDTH
  )  # fmt: skip
  codes = result['sharp']
  chosen = [
    np.asarray(books)[t, codes.codes_BL[:, t]] for t in range(books.shape[0])
  ]
  np.testing.assert_allclose(
    np.stack(chosen, axis=1), codes.codewords_BLD, atol=1e-4
  )


@each_learned_kind
def test_gradients_reach_everything_that_learns(name):
  by_param, by_vector = found(name)['gradients']
  for path, gradient in [('vectors', by_vector), *by_param.items()]:
    assert np.all(np.isfinite(gradient)), path
    assert np.max(np.abs(gradient)) > 1e-6, path
  expected = {'codebooks'}
  config = KINDS[name]
  if isinstance(config, NeuralConfig):
    expected |= {'keys', 'bias', 'into', 'out'}
  if isinstance(config, ProductConfig):
    expected |= {'keys'} if not config.tied else set()
    expected |= {'skew'} if config.rotation else set()
  if isinstance(config, ResidualConfig) and config.conditioned:
    expected |= {'condition'}
  assert set(by_param) == expected


@pytest.mark.parametrize('name', FIXED)
def test_static_kinds_learn_codewords_alone(name):
  by_param, by_vector = found(name)['gradients']
  assert np.max(np.abs(by_param['codebooks'])) > 0
  np.testing.assert_array_equal(by_vector, 0)


@pytest.mark.parametrize('name', ['fixed', 'residual, unequal'])
def test_costs_are_distances_to_what_identifiers_stand_for(name):
  result = found(name)
  codes_BWL, costs_BW = result['all']
  books = [result['params']['codebooks'][t] for t in range(L)]
  stand_for = sum(books[t][codes_BWL[..., t]] for t in range(L))
  distances = np.sum((stand_for - np.asarray(vectors())[:, None]) ** 2, axis=-1)
  np.testing.assert_allclose(costs_BW, distances, rtol=1e-4)


@pytest.mark.parametrize('name', ['fixed', 'residual, unequal'])
def test_one_beam_takes_the_nearest_codeword_of_each_position(name):
  result = found(name)
  books = result['params']['codebooks']
  for b, vector in enumerate(np.asarray(vectors())):
    for t, size in enumerate(SIZES):
      distances = np.sum((books[t, :size] - vector) ** 2, axis=-1)
      assert result['assigned'][b, t] == np.argmin(distances)
      vector = vector - books[t, result['assigned'][b, t]]


def test_a_skew_matrix_makes_a_rotation_and_comes_back():
  skew = 0.3 * jax.random.normal(jax.random.key(0), (WIDTH, WIDTH))
  turned = np.asarray(cayley(skew), np.float64)
  np.testing.assert_allclose(turned @ turned.T, np.eye(WIDTH), atol=1e-5)
  assert np.linalg.det(turned) == pytest.approx(1, abs=1e-4)
  # The transform is its own inverse on the skew part.
  np.testing.assert_allclose(
    cayley_inverse(turned), (skew - skew.T) / 2, atol=1e-4
  )


def cayley_inverse(turned):
  eye = np.eye(len(turned))
  return np.linalg.solve(eye + turned, eye - turned)


def test_parts_that_do_not_divide_the_width_are_refused():
  config = dataclasses.replace(KINDS[LEARNED[-1]], positions=5, codes=4)
  indexer = ProductIndexer(config, WIDTH)
  with pytest.raises(UserError, match='12 into 5 parts'):
    indexer.apply({'params': {}}, method='codebooks')


@pytest.mark.parametrize(
  'codes, said', [((3, 4), 'one for each of 3 positions'), (0, 'got 0')]
)
def test_sizes_that_do_not_fit_the_positions_are_refused(codes, said):
  with pytest.raises(UserError, match=said):
    _ = ResidualConfig(positions=3, codes=codes).code_sizes


@pytest.mark.parametrize(
  'make, said',
  [
    (lambda: SamplingConfig(gradient='rotate'), "mean 'rotation'"),
    (lambda: SamplingConfig(noise='frequent'), "mean 'frequency'"),
    (lambda: SamplingConfig(balance='sinkhorm'), "mean 'sinkhorn'"),
    (lambda: ProductConfig(scores='centroids'), "mean 'centroid'"),
    (lambda: StaticConfig(kind='rq_kmean'), "mean 'rq_kmeans'"),
  ],
)
def test_unknown_choices_are_refused_with_a_near_miss(make, said):
  with pytest.raises(UserError, match=said):
    make()
