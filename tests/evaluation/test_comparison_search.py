"""A search that is asked with encoded queries is the search of their texts."""

import functools

import jax
import numpy as np
import pytest
from tiny_run import (
  DOCUMENTS,
  MODEL,
  write_collection,
  write_index,
  write_vocabulary,
)

from gr_jax import run_settings
from gr_jax.data.collection import Collection
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.evaluation import (
  comparison_scores,
  comparison_search,
  judging,
)
from gr_jax.evaluation.comparison_settings import ComparisonSettings
from gr_jax.models.retriever import Retriever
from gr_jax.retrieval.opening import open_searcher
from gr_jax.retrieval.search_settings import SearchSettings

SETTINGS = ComparisonSettings(folder='runs', fractions=(0.1, 0.5))


@pytest.fixture(scope='module')
def opened(tmp_path_factory):
  folder = tmp_path_factory.mktemp('search')
  write_collection(folder / 'toy')
  write_vocabulary(folder / 'tokenizer.json')
  settings = run_settings.RunSettings(run_dir='run', model=MODEL)
  (folder / 'run').mkdir()
  collection = Collection(folder / 'toy')
  write_index(folder / 'run' / 'index', settings, collection, 0)
  search = comparison_search.widest(SETTINGS, SearchSettings(), DOCUMENTS)
  searcher = open_searcher(folder / 'run' / 'index', settings=search)
  asked = judging.questions(collection, 'test')
  judged = comparison_scores.judged(asked, list(searcher.document_ids))
  return searcher, judged


def test_encoded_queries_find_what_their_texts_find(opened):
  searcher, judged = opened
  params = searcher.snapshot.base.params()
  model = Retriever(MODEL)
  vocabulary = load_vocabulary(searcher.snapshot.base.vocabulary_directory)
  tokens_BS = np.zeros((len(judged.texts), 8), np.int32)
  for row, ids in enumerate(vocabulary.encode_batch(judged.texts, 8)):
    tokens_BS[row, : len(ids)] = ids
  backbone = jax.jit(functools.partial(model.apply, method='backbone'))
  queries_QE = backbone({'params': params}, tokens_BS).pooled_BE
  pooled = comparison_search.pooled_searcher(
    searcher.snapshot.base,
    model,
    params,
    np.asarray(queries_QE),
    searcher.settings,
  )
  numbers = [str(number) for number in range(len(judged.texts))]
  wanted = searcher.search_batch(judged.texts, 15)
  found = pooled.search_batch(numbers, 15)
  np.testing.assert_array_equal(found.documents_BC, wanted.documents_BC)
  np.testing.assert_allclose(found.dense_BC, wanted.dense_BC, atol=1e-5)
  # In generative order, so that a smaller budget is a prefix.
  assert (np.diff(found.generative_BC, axis=1) <= 0).all()
  np.testing.assert_allclose(
    pooled.encode(numbers), searcher.encode(judged.texts), atol=1e-5
  )


def test_weights_of_dev_are_used_on_test(opened, monkeypatch):
  searcher, judged = opened
  splits = [
    comparison_scores.Judged(
      name, judged.texts, judged.query_ids, judged.relevant, judged.places_N
    )
    for name in ('dev', 'test')
  ]
  fitted = []

  def fit(found, asked, names):
    fitted.append((asked.split, found.documents_BC.shape[1], names))
    return (1.0, 0.0)

  monkeypatch.setattr(comparison_scores, 'fit_weights', fit)
  weights, scores = comparison_search.scores_of(
    SETTINGS, searcher, splits, {'dev': judged.texts, 'test': judged.texts}
  )
  names = ['R@10', 'RR@10']
  assert fitted == [('dev', 3, names), ('dev', 15, names)]
  assert weights == {'0.1': [1.0, 0.0], '0.5': [1.0, 0.0]}
  for fraction in ('0.1', '0.5'):
    np.testing.assert_array_equal(
      scores[f'test/fused/{fraction}/R@10'],
      scores[f'test/generative alone/{fraction}/R@10'],
    )
  few, many = (scores[f'test/fused/{f}/R@100'].mean() for f in ('0.1', '0.5'))
  assert few < many
