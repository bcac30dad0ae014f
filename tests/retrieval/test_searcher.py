"""The searcher against numpy, over a toy model."""

from unittest import mock

import numpy as np
import pytest
import toy_retriever as toy

from gr_jax.decoding import planning
from gr_jax.decoding.top_k import FLOOR
from gr_jax.index.index import Index
from gr_jax.retrieval import program
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher
from gr_jax.types import NO_DOC, UserError

QUERIES = toy.make_texts(7, seed=5)


def make_searcher(index, **settings):
  settings = {'batch_sizes': (4,), **settings}
  return Searcher(
    index,
    toy.ToyModel(),
    toy.make_params(),
    toy.ToyVocabulary(),
    16,
    SearchSettings(**settings),
  )


def query_vectors():
  tokens = np.zeros((len(QUERIES), 16), np.int32)
  for row, ids in enumerate(toy.ToyVocabulary().encode_batch(QUERIES, 16)):
    tokens[row, : len(ids)] = ids
  encoding = toy.ToyModel().encode(toy.make_params(), tokens)
  return np.asarray(encoding.vectors_BD)


def generative_scores(index):
  """[B, N] scores of all documents' identifiers."""
  codebooks = toy.make_params()['codebooks']
  residual = np.repeat(query_vectors()[:, None], len(index), axis=1)
  total = np.zeros(residual.shape[:2], np.float32)
  for level in range(toy.POSITIONS):
    residual = residual - codebooks[level][index.codes_NL[:, level]]
    total -= np.sum(residual**2, axis=2)
  return total


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_scoring_all_documents_equals_numpy(dtype):
  index = toy.make_index(dtype=dtype)
  searcher = make_searcher(
    index,
    beams=300,
    fraction=1.0,
    generative_weight=0.3,
    dense_weight=0.7,
  )
  found = searcher.search_batch(QUERIES, 20)
  dense = query_vectors() @ index.vectors_ND.astype(np.float32).T
  expected = 0.3 * generative_scores(index) + 0.7 * dense
  best = -np.sort(-expected, axis=1)[:, :20]
  np.testing.assert_allclose(found.scores_BC, best, rtol=1e-4, atol=1e-5)
  rows = np.arange(len(QUERIES))[:, None]
  np.testing.assert_allclose(
    expected[rows, found.documents_BC], found.scores_BC, rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    dense[rows, found.documents_BC], found.dense_BC, rtol=1e-4, atol=1e-5
  )
  assert found.documents_scored_B.tolist() == [200] * len(QUERIES)
  # As many beams as there is room for documents: 208 for 200.
  assert found.code_scores_B.tolist() == [6 + 208 * 2 * 6] * len(QUERIES)


def test_the_budget_takes_the_first_documents_in_generative_order():
  index = toy.make_index()
  searcher = make_searcher(index, beams=300, documents_scored=15)
  found = searcher.search_batch(QUERIES, 30)
  generative = generative_scores(index)
  assert found.documents_scored_B.tolist() == [15] * len(QUERIES)
  # Beams are not cut to the budget: which 15 are first shows at the end only.
  assert found.code_scores_B.tolist() == [6 + 208 * 2 * 6] * len(QUERIES)
  assert (found.documents_BC[:, 15:] == NO_DOC).all()
  assert (found.scores_BC[:, 15:] == np.float32(FLOOR)).all()
  for query in range(len(QUERIES)):
    documents = found.documents_BC[query, :15]
    assert len(set(documents.tolist())) == 15
    np.testing.assert_allclose(
      -np.sort(-generative[query, documents]),
      -np.sort(-generative[query])[:15],
      rtol=1e-4,
      atol=1e-5,
    )


def test_a_bucket_is_ranked_by_the_dense_score_then_by_corpus_order():
  codes_NL = np.zeros((6, toy.POSITIONS), np.int32)
  index = toy.make_index(6)
  index = type(index).build(
    codes_NL,
    (toy.CODES,) * toy.POSITIONS,
    index.vectors_ND,
    index.document_ids,
    index.titles,
    ['same'] * 6,
  )
  found = make_searcher(index, fraction=1.0).search_batch(QUERIES, 6)
  dense = query_vectors() @ index.vectors_ND.T
  np.testing.assert_array_equal(
    found.documents_BC, np.argsort(-dense, axis=1, kind='stable')
  )
  blind = make_searcher(index, fraction=1.0, dense_weight=0.0)
  found = blind.search_batch(QUERIES, 6)
  assert found.documents_BC.tolist() == [list(range(6))] * len(QUERIES)


def test_batches_and_padding_do_not_change_the_answers():
  index = toy.make_index()
  whole = make_searcher(index, batch_sizes=(8,)).search_batch(QUERIES, 5)
  parts = make_searcher(index, batch_sizes=(1, 3)).search_batch(QUERIES, 5)
  np.testing.assert_array_equal(whole.documents_BC, parts.documents_BC)
  np.testing.assert_allclose(whole.scores_BC, parts.scores_BC, rtol=1e-5)
  none = make_searcher(index).search_batch([], 5)
  assert none.documents_BC.shape == (0, 5)


def test_fewer_documents_than_beams_and_than_places():
  index = toy.make_index(2)
  found = make_searcher(index, fraction=1.0).search_batch(QUERIES, 200)
  assert found.documents_BC.shape == (len(QUERIES), 200)
  assert (np.sort(found.documents_BC[:, :2], axis=1) == [0, 1]).all()
  assert (found.documents_BC[:, 2:] == NO_DOC).all()
  hits = make_searcher(index, fraction=1.0).search(QUERIES, 5)
  assert [len(found) for found in hits] == [2] * len(QUERIES)


def test_hits_say_what_was_found():
  index = toy.make_index()
  searcher = make_searcher(index, generative_weight=0.02)
  hits = searcher.search(QUERIES[:1], 3)[0]
  assert len(hits) == 3
  for hit in hits:
    assert hit.document_id == f'd{hit.document}'
    assert hit.title == f'title {hit.document}'
    assert hit.snippet == index.snippets[hit.document]
    assert hit.codes == tuple(index.codes_NL[hit.document].tolist())
    assert hit.score == pytest.approx(
      0.02 * hit.generative_score + hit.dense_score, rel=1e-5
    )


def test_a_grown_index_and_other_weights_reuse_the_program():
  index = toy.make_index(300)
  make_searcher(index).search_batch(QUERIES, 5)
  compiled = program.search_program._cache_size()
  make_searcher(toy.make_index(303)).search_batch(QUERIES, 5)
  make_searcher(index, dense_weight=0.5).search_batch(QUERIES, 7)
  assert program.search_program._cache_size() == compiled


@pytest.mark.parametrize(
  'settings',
  [
    {'beams': 0},
    {'fraction': 0.0},
    {'fraction': 1.5},
    {'documents_scored': 0},
    {'generative_weight': float('nan')},
    {'dense_weight': float('inf')},
    {'batch_sizes': ()},
    {'batch_sizes': (8, 4)},
    {'vector_type': 'int8'},
  ],
)
def test_impossible_settings_are_refused_by_name(settings):
  with pytest.raises(UserError, match=next(iter(settings))):
    SearchSettings(**settings)


def test_budget_is_a_share_unless_a_number_is_given():
  assert SearchSettings(fraction=0.05).budget(5664) == 283
  assert SearchSettings(documents_scored=10**6).budget(5664) == 5664
  assert SearchSettings(fraction=0.001).budget(10) == 1


def test_searching_among_documents_is_searching_an_index_of_them():
  whole = toy.make_index()
  rng = np.random.default_rng(0)
  rows = np.sort(rng.choice(len(whole), 60, replace=False))
  part = Index.build(
    whole.codes_NL[rows],
    whole.trie.code_sizes,
    whole.vectors_ND[rows],
    [whole.document_ids[row] for row in rows],
    [''] * 60,
    [''] * 60,
  )
  settings = {'beams': 30, 'documents_scored': 15}
  searcher, alone = (
    make_searcher(index, **settings) for index in (whole, part)
  )
  selection = searcher.select(part.document_ids)
  found = searcher.search_batch(QUERIES, 10, selection)
  expected = alone.search_batch(QUERIES, 10)
  np.testing.assert_array_equal(found.documents_BC, rows[expected.documents_BC])
  for name in ('scores_BC', 'generative_BC', 'ranks_BC'):
    np.testing.assert_allclose(
      getattr(found, name), getattr(expected, name), rtol=1e-5
    )
  np.testing.assert_array_equal(found.documents_scored_B, 15)
  # Then all of them again.
  everything = searcher.search_batch(QUERIES, 10)
  assert set(everything.documents_BC.ravel()) - set(rows)
  one = searcher.select(part.document_ids[4:5])
  hits = searcher.search(QUERIES[:1], 3, one)[0]
  assert [hit.document_id for hit in hits] == [part.document_ids[4]]


def test_documents_that_are_not_there_cannot_be_searched_among():
  searcher = make_searcher(toy.make_index())
  with pytest.raises(UserError, match="not in the index, as 'nobody'"):
    searcher.select([searcher.document_ids[0], 'nobody'])


def test_renormalised_scores_share_all_probability_among_the_documents():
  index = toy.make_index()
  searcher = make_searcher(index, beams=300, fraction=1.0, renormalised=True)
  found = searcher.search_batch(QUERIES, 200)
  for query in range(len(QUERIES)):
    of_identifier = {
      tuple(index.codes_NL[document].tolist()): score
      for document, score in zip(
        found.documents_BC[query], found.generative_BC[query], strict=True
      )
    }
    assert np.exp(list(of_identifier.values())).sum() == pytest.approx(1)


def test_planning_over_all_documents_is_exact_dense_search():
  index = toy.make_index()
  exact = query_vectors() @ index.vectors_ND.astype(np.float32).T
  settings = {'beams': 5, 'fraction': 1.0, 'generative_weight': 0.0}
  everything = {
    'planning_weight': 1e4,
    'planning_pool': 50,
    'planning_documents': 200,
  }
  found = make_searcher(index, **settings, **everything).search_batch(
    QUERIES, 5
  )
  np.testing.assert_array_equal(
    found.documents_BC, np.argsort(-exact, axis=1, kind='stable')[:, :5]
  )
  plain = make_searcher(index, **settings).search_batch(QUERIES, 5)
  assert (plain.documents_BC != found.documents_BC).any()


def test_a_search_without_planning_looks_at_no_documents():
  settings = SearchSettings()
  assert settings.planning is None
  with mock.patch.object(planning.Plan, 'kept', side_effect=AssertionError):
    searcher = make_searcher(toy.make_index(), beams=6)
    searcher.search_batch(QUERIES, 6)


@pytest.mark.parametrize(
  'field, value',
  [
    ('planning_weight', -1.0),
    ('planning_weight', float('nan')),
    ('planning_pool', 0),
    ('planning_documents', 0),
  ],
)
def test_impossible_planning_is_refused(field, value):
  with pytest.raises(UserError, match=field):
    SearchSettings(**{field: value})
