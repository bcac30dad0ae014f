"""Where codes start: exactly at those of k-means, for every kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_indexers import INDEXERS, KINDS, LEARNED, QUICKLY

from gr_jax.indexers.clusterings import balanced_kmeans, codewords_of
from gr_jax.indexers.kmeans import product_kmeans, residual_kmeans
from gr_jax.indexers.neural import NeuralConfig
from gr_jax.indexers.product import ProductConfig
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.indexers.sampling import SamplingConfig
from gr_jax.indexers.starting import (
  initialisation,
  query_means,
  starting_params,
  starting_vectors,
)
from gr_jax.indexers.static import CLUSTERINGS, NUMBERINGS, StaticConfig
from gr_jax.types import UserError

WIDTH, SEED = 12, 5
DOCUMENTS = np.eye(3, dtype=np.float32)
QUERIES = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32)
OF = np.array([0, 0, 1])


@pytest.mark.parametrize(
  'kind, first, second',
  [
    ('documents', [1, 0, 0], [0, 1, 0]),
    ('queries', [0, 0.5**0.5, 0.5**0.5], [0, 0, 1]),
    ('half', [0.5**0.5, 0.5, 0.5], [0, 0.5**0.5, 0.5**0.5]),
    # A share of .2 of the queries.
    ('coded', [0.9701425, 0.1714986, 0.1714986], [0, 0.9701425, 0.2425356]),
  ],
)
def test_what_kmeans_clusters(kind, first, second):
  means = query_means(QUERIES, OF, DOCUMENTS.shape)
  found = starting_vectors(DOCUMENTS, means, kind, query_share=0.2)
  np.testing.assert_allclose(found[0], first, atol=1e-6)
  np.testing.assert_allclose(found[1], second, atol=1e-6)
  # The third document has no query.
  np.testing.assert_array_equal(found[2], DOCUMENTS[2])


def test_without_queries_documents_stand_for_themselves():
  nothing = np.zeros((0, 0), np.float32), np.zeros(0, np.int32)
  means = query_means(*nothing, DOCUMENTS.shape)
  np.testing.assert_array_equal(means, 0)
  found = starting_vectors(DOCUMENTS, means, 'half', query_share=0.2)
  np.testing.assert_array_equal(found, DOCUMENTS)


def test_what_each_kind_starts_from():
  assert initialisation(ResidualConfig(initialisation='queries')) == 'queries'
  for kind in NUMBERINGS:
    assert initialisation(StaticConfig(kind)) == 'none'
  assert initialisation(StaticConfig('bottleneck_minimal')) == 'queries'
  assert initialisation(StaticConfig('pq', initialisation='half')) == 'half'
  with pytest.raises(UserError, match="did you mean 'documents'"):
    initialisation(NeuralConfig(initialisation='document'))


def vectors(count=80):
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(9, WIDTH))
  points = centres[rng.integers(0, 9, count)]
  points = points + 0.4 * rng.normal(size=points.shape)
  lengths = np.linalg.norm(points, axis=1, keepdims=True)
  return (points / lengths).astype(np.float32)


def started(config, vectors_ND):
  """The codes that an indexer gives once its start is in place."""
  ids = [f'd{n}' for n in range(len(vectors_ND))]
  found = starting_params(config, vectors_ND, ids, SEED)
  indexer = INDEXERS[type(config)](config, WIDTH)
  sizes = config.code_sizes
  usage_LK = jnp.ones((len(sizes), max(sizes)))
  table = found.get('identifiers', {}).get('table')
  if table is not None:
    return np.asarray(table), found

  def drawn():
    return indexer.init(
      jax.random.key(0),
      vectors_ND[:2],
      temperature=1.0,
      noise=0.0,
      usage_LK=usage_LK,
      rng=jax.random.key(1),
    )['params']

  @functools.partial(jax.jit, compiler_options=QUICKLY)
  def assign():
    params = dict(drawn())
    for name, value in found['indexer'].items():
      assert params[name].shape == value.shape, name
      params[name] = jnp.asarray(value, params[name].dtype)
    codes_NWL, _ = indexer.apply(
      {'params': params}, vectors_ND, 1, method='candidates'
    )
    return codes_NWL[:, 0]

  return np.asarray(assign()), found


def nearest(vectors_ND, codebooks_LKD, sizes):
  """[N, L] codes of the nearest codewords, one position after another."""
  residual_ND, columns = vectors_ND, []
  for codebook_KD, size in zip(codebooks_LKD, sizes, strict=True):
    offsets_NKD = residual_ND[:, None] - codebook_KD[None, :size]
    columns.append(np.argmin(np.sum(offsets_NKD**2, axis=-1), axis=1))
    residual_ND = residual_ND - codebook_KD[columns[-1]]
  return np.stack(columns, axis=1)


# Dot products choose other codes than distances do; how codes are drawn while
# training says nothing of where they start.
BY_DISTANCE = [
  name
  for name in LEARNED
  if 'softmax' not in name and KINDS[name].sampling == SamplingConfig()
]


@pytest.mark.parametrize('name', BY_DISTANCE)
def test_codes_start_exactly_as_those_of_kmeans(name):
  config = KINDS[name]
  codes, _ = started(config, vectors())
  key, sizes = jax.random.key(SEED), config.code_sizes
  if isinstance(config, ProductConfig):
    rotations = 8 if config.rotation else 0
    _, expected, _ = product_kmeans(
      vectors(), key, sizes=sizes, rotations=rotations
    )
  elif isinstance(config, NeuralConfig) and not config.conditioned:
    _, expected, _ = product_kmeans(vectors(), key, sizes=sizes)
  elif isinstance(config, ResidualConfig) and config.balanced:
    shared_out = balanced_kmeans(vectors(), key, sizes)
    books = codewords_of(shared_out, vectors(), max(sizes))
    expected = nearest(vectors(), books, sizes)
  else:
    _, expected = residual_kmeans(vectors(), key, sizes=sizes)
  # A rotation comes back from its skew matrix with a rounding error.
  same = np.mean(codes == np.asarray(expected))
  assert same == 1 if not getattr(config, 'rotation', False) else same > 0.97


def test_a_balanced_start_spreads_documents_that_crowd():
  """Most documents around one point: plain k-means leaves codes to the rest."""
  rng = np.random.default_rng(3)
  crowd = np.eye(WIDTH)[0] + 0.05 * rng.normal(size=(90, WIDTH))
  rest = rng.normal(size=(10, WIDTH))
  points = np.concatenate([crowd, rest]).astype(np.float32)
  points /= np.linalg.norm(points, axis=1, keepdims=True)
  largest = {}
  for balanced in (True, False):
    config = ResidualConfig(2, 6, balanced=balanced)
    codes, _ = started(config, points)
    largest[balanced] = np.unique(codes, axis=0, return_counts=True)[1].max()
  assert largest[True] < largest[False]


@pytest.mark.parametrize('kind', NUMBERINGS + CLUSTERINGS)
def test_static_codes_are_the_table_and_stand_for_their_documents(kind):
  sizes = (1, 100) if kind == 'atomic' else (3, (5, 4, 5))
  config = StaticConfig(kind, *sizes)
  codes, found = started(config, vectors())
  table = found['identifiers']['table']
  np.testing.assert_array_equal(codes, table)
  assert table.shape == (80, config.positions)
  if kind in NUMBERINGS:
    assert found['indexer'] == {}
    return
  books = found['indexer']['codebooks']
  stand_for = sum(books[t][table[:, t]] for t in range(3))
  left = np.mean(np.sum((vectors() - stand_for) ** 2, axis=1))
  # Codes that say something of a document stand for something like it.
  assert left < 0.6
  shuffled = np.random.default_rng(0).permutation(vectors())
  assert left < 0.7 * np.mean(np.sum((shuffled - stand_for) ** 2, axis=1))


def test_kinds_that_start_from_nothing_keep_what_was_drawn():
  assert starting_params(ResidualConfig(), None, [], 0) == {'indexer': {}}


def test_parts_that_do_not_divide_the_width_name_the_way_out():
  config = NeuralConfig(positions=5, codes=4, conditioned=False)
  with pytest.raises(UserError, match=r'12 into 5 parts.*conditioned = True'):
    starting_params(config, vectors(), [], 0)
