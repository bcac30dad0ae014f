"""Fixed identifiers: what is alike shares prefixes, or nothing is said."""

import itertools

import jax
import numpy as np
import pytest

from gr_jax.indexers.clusterings import (
  balanced_assignment,
  cluster_identifiers,
  codewords_of,
)
from gr_jax.indexers.kmeans import residual_kmeans
from gr_jax.indexers.numberings import number_identifiers
from gr_jax.indexers.static import CLUSTERINGS, StaticConfig
from gr_jax.types import UserError

WIDTH = 6
SIZES = (4, 3, 5)


def clustered(count=96):
  """Twelve groups of documents, near each other in fours."""
  rng = np.random.default_rng(0)
  high = rng.normal(size=(4, WIDTH)) * 4
  low = np.repeat(high, 3, axis=0) + rng.normal(size=(12, WIDTH))
  near = np.repeat(low, count // 12, axis=0)
  return (near + 0.1 * rng.normal(size=near.shape)).astype(np.float32)


@pytest.mark.parametrize('kind', CLUSTERINGS)
def test_documents_that_share_a_prefix_are_nearer(kind):
  vectors = clustered()
  config = StaticConfig(kind, 3, SIZES)
  codes = cluster_identifiers(config, vectors, seed=0)
  assert codes.shape == (96, 3)
  assert codes.min() >= 0 and np.all(codes.max(axis=0) < SIZES)
  np.testing.assert_array_equal(
    codes, cluster_identifiers(config, vectors, seed=0)
  )
  distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
  upper = np.triu_indices(96, 1)
  shares = (codes[:, None] == codes[None])[upper]
  first, second = shares[:, 0], shares[:, :2].all(axis=1)
  apart = distances[upper]
  assert apart[first].mean() < 0.8 * apart[~first].mean()
  assert apart[second].mean() < 0.9 * apart[first].mean()


def test_a_small_cluster_is_numbered_and_a_single_document_has_zeros():
  vectors = np.eye(4, WIDTH, dtype=np.float32)
  config = StaticConfig('hierarchical_kmeans', 3, (2, 4, 4))
  codes = cluster_identifiers(config, vectors, seed=0)
  assert len(np.unique(codes, axis=0)) == 4
  np.testing.assert_array_equal(codes[:, 2], 0)
  for first in range(2):
    inside = codes[codes[:, 0] == first, 1]
    np.testing.assert_array_equal(np.sort(inside), np.arange(len(inside)))


def test_hierarchical_clusters_hold_more_documents_than_codes():
  """The last position's clusters share an identifier."""
  config = StaticConfig('hierarchical_kmeans', 2, (4, 3))
  codes = cluster_identifiers(config, clustered(), seed=0)
  _, sizes = np.unique(codes, axis=0, return_counts=True)
  assert len(sizes) == 12
  assert sizes.sum() == 96


@pytest.mark.parametrize('rows, codes', [(12, 4), (13, 4), (3, 5), (1, 3)])
def test_balanced_assignment_fills_every_code_alike(rows, codes):
  # All rows prefer the codes in one order: only room spreads them.
  scores = np.random.default_rng(1).normal(size=(rows, codes))
  scores += np.linspace(5, 0, codes)
  found = balanced_assignment(scores)
  counts = np.bincount(found, minlength=codes)
  assert counts.max() <= -(-rows // codes)
  assert counts.sum() == rows


@pytest.mark.parametrize('seed', range(3))
def test_balanced_assignment_is_the_best_one_where_rows_differ(seed):
  """Against all assignments of 6 rows to 3 codes of two places each."""
  rng = np.random.default_rng(seed)
  scores = 0.2 * rng.normal(size=(6, 3))
  scores[np.arange(6), rng.permutation([0, 0, 1, 1, 2, 2])] += 3
  best = max(
    itertools.permutations([0, 0, 1, 1, 2, 2]),
    key=lambda codes: scores[np.arange(6), codes].sum(),
  )
  np.testing.assert_array_equal(balanced_assignment(scores), best)


def test_who_loses_least_goes_elsewhere():
  scores = np.array([[5, 1], [5, 4], [5, 0], [5, 3]], float)
  np.testing.assert_array_equal(balanced_assignment(scores), [0, 1, 0, 1])


def test_balanced_kmeans_shares_out_every_position():
  config = StaticConfig('balanced_kmeans', 3, SIZES)
  codes = cluster_identifiers(config, clustered(), seed=0)
  for t, size in enumerate(SIZES):
    counts = np.bincount(codes[:, t], minlength=size)
    assert counts.max() <= -(-96 // size)


def test_codewords_of_residual_kmeans_are_its_centroids():
  vectors = clustered()
  books, codes = residual_kmeans(vectors, jax.random.key(0), sizes=SIZES)
  found = codewords_of(codes, vectors, max(SIZES))
  assert found.shape == books.shape
  for t, size in enumerate(SIZES):
    used = np.unique(codes[:, t])
    np.testing.assert_allclose(found[t][used], books[t][used], atol=1e-4)
    np.testing.assert_array_equal(found[t, size:], 0)


IDS = [f'd{n}' for n in range(50)]


def numbers(kind, positions=3, codes=(4, 3, 5), ids=IDS, seed=0):
  return number_identifiers(StaticConfig(kind, positions, codes), ids, seed)


def test_naive_strings_are_the_digits_of_the_numbers_in_order():
  codes = numbers('naive_string')
  values = codes[:, 0] * 15 + codes[:, 1] * 5 + codes[:, 2]
  np.testing.assert_array_equal(values, np.arange(50))
  assert codes.dtype == np.int32


def test_atomic_identifiers_are_the_numbers():
  np.testing.assert_array_equal(
    numbers('atomic', 1, 64), np.arange(50)[:, None]
  )


def test_hashes_are_of_the_document_alone():
  codes = numbers('hash')
  order = np.random.default_rng(0).permutation(50)
  again = numbers('hash', ids=[IDS[n] for n in order], seed=9)
  np.testing.assert_array_equal(again, codes[order])
  np.testing.assert_array_equal(numbers('hash', ids=IDS[7:9]), codes[7:9])


@pytest.mark.parametrize('kind', ['hash', 'random'])
def test_chance_uses_all_codes_alike(kind):
  codes = numbers(kind, 9, 8, [f'd{n}' for n in range(2000)])
  for column in codes.T:
    counts = np.bincount(column, minlength=8)
    assert counts.min() > 180
    assert counts.max() < 320
  # Positions say different things.
  assert len(np.unique(codes, axis=0)) == 2000


def test_random_identifiers_are_those_of_their_seed():
  np.testing.assert_array_equal(numbers('random'), numbers('random'))
  assert np.any(numbers('random') != numbers('random', seed=1))


@pytest.mark.parametrize(
  'kind, positions, codes, said',
  [
    ('atomic', 1, 49, 'positions = 1 and codes = 50 or more'),
    ('atomic', 2, 50, 'got 2 positions of 50'),
    ('naive_string', 2, 7, 'for 50 identifiers or more, got 2 positions of 7'),
  ],
)
def test_a_space_that_is_too_small_is_refused(kind, positions, codes, said):
  with pytest.raises(UserError, match=said):
    numbers(kind, positions, codes)
