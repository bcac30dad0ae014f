"""Fused scores against loops, and what they must leave alone."""

import jax.numpy as jnp
import numpy as np
import pytest
import toy_retriever as toy

from gr_jax.retrieval.fusion import Weights, fuse
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher
from gr_jax.types import NO_DOC, UserError

WEIGHTS = Weights(dense=0.7, generative=0.3, reciprocal=0.6, decay=0.03)
QUERIES = toy.make_texts(7, seed=5)


def make_arrays(seed=0):
  rng = np.random.default_rng(seed)
  dense_BC = rng.normal(size=(3, 8)).astype(np.float32)
  generative_BC = -rng.random((3, 8)).astype(np.float32)
  ranks_BC = np.sort(rng.integers(0, 5, (3, 8)), axis=1).astype(np.int32)
  return dense_BC, generative_BC, ranks_BC


@pytest.mark.parametrize('module', [np, jnp])
@pytest.mark.parametrize(
  ('kind', 'one'),
  [
    ('log_linear', lambda d, g, r: 0.7 * d + 0.3 * g),
    ('reciprocal', lambda d, g, r: 0.7 * d + 0.6 / (0.03 * r + 1)),
  ],
)
def test_scores_equal_the_formula(module, kind, one):
  arrays = make_arrays()
  found_BC = fuse(kind, WEIGHTS, *map(module.asarray, arrays))
  for place in np.ndindex(*arrays[0].shape):
    expected = one(*(float(array[place]) for array in arrays))
    assert float(found_BC[place]) == pytest.approx(expected, abs=1e-6)


def search(index, **settings):
  settings = {'beams': 300, 'fraction': 1.0, 'batch_sizes': (4,), **settings}
  searcher = Searcher(
    index, toy.ToyModel(), toy.make_params(), toy.ToyVocabulary(), 16,
    SearchSettings(**settings),
  )  # fmt: skip
  return searcher.search_batch(QUERIES, len(index))


@pytest.mark.parametrize('kind', ['log_linear', 'reciprocal'])
def test_the_compiled_search_ranks_by_the_fused_scores(kind):
  index = toy.make_index()
  found = search(index, fusion=kind, dense_weight=0.7, generative_weight=0.3)
  weights = WEIGHTS._replace(reciprocal=0.6)
  expected_BC = fuse(
    kind, weights, found.dense_BC, found.generative_BC, found.ranks_BC
  )
  np.testing.assert_allclose(found.scores_BC, expected_BC, rtol=1e-5)
  assert (np.diff(found.scores_BC, axis=1) <= 0).all()


def test_ranks_are_places_of_identifiers_in_generative_order():
  index = toy.make_index()
  found = search(index)
  for query in range(len(QUERIES)):
    order = np.argsort(found.ranks_BC[query], kind='stable')
    generative = found.generative_BC[query][order]
    assert (np.diff(generative) <= 0).all()
    place_of = {}
    for document, rank in zip(
      found.documents_BC[query], found.ranks_BC[query], strict=True
    ):
      codes = tuple(index.codes_NL[document].tolist())
      assert place_of.setdefault(codes, rank) == rank
    assert sorted(place_of.values()) == list(range(len(index.trie.leaf_starts)))


@pytest.mark.parametrize(
  'nothing',
  [
    {'fusion': 'reciprocal', 'reciprocal_weight': 0.0},
    {'fusion': 'reciprocal', 'reciprocal_decay': 0.0},
    {'fusion': 'log_linear', 'generative_weight': 0.0},
  ],
)
def test_without_the_identifier_the_order_is_the_dense_one(nothing):
  found = search(toy.make_index(), **nothing)
  assert (np.diff(found.dense_BC, axis=1) <= 0).all()


def test_a_bucket_is_ranked_by_the_dense_part():
  found = search(
    toy.make_index(), fusion='reciprocal', reciprocal_weight=1000.0
  )
  same_BC = found.ranks_BC[:, 1:] == found.ranks_BC[:, :-1]
  assert same_BC.any()
  assert (np.diff(found.ranks_BC, axis=1) >= 0).all()
  assert (np.diff(found.dense_BC, axis=1)[same_BC] <= 0).all()


def test_places_behind_the_budget_have_no_rank():
  found = search(toy.make_index(), documents_scored=9)
  assert (found.ranks_BC[:, :9] >= 0).all()
  assert (found.ranks_BC[:, 9:] == NO_DOC).all()


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'fusion': 'recipocal'}, "did you mean 'reciprocal'"),
    ({'reciprocal_weight': float('nan')}, 'reciprocal_weight should be finit'),
    ({'reciprocal_decay': -0.1}, 'reciprocal_decay should be finite, 0 or'),
    ({'fit_on': 'test'}, 'fit_on should be no test split'),
  ],
)
def test_impossible_fusions_are_refused(settings, message):
  with pytest.raises(UserError, match=message):
    SearchSettings(**settings)
