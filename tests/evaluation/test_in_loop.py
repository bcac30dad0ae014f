import types

import numpy as np
import pytest
from tiny_run import (
  DOCUMENTS,
  MODEL,
  init_params,
  write_collection,
  write_vocabulary,
)

from gr_jax.data.collection import Collection
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.evaluation import in_loop, judging
from gr_jax.models.retriever import Retriever
from gr_jax.retrieval.search_settings import SearchSettings


def test_dev_is_searched_with_the_parameters_of_the_step(tmp_path, monkeypatch):
  write_collection(tmp_path / 'toy')
  qrels = tmp_path / 'toy' / 'qrels'
  (qrels / 'test.tsv').rename(qrels / 'dev.tsv')
  write_vocabulary(tmp_path / 'tokenizer.json')
  collection = Collection(tmp_path / 'toy')
  vocabulary = load_vocabulary(tmp_path / 'tokenizer.json')
  model = Retriever(MODEL)
  asked_with = []

  def documents(params):
    asked_with.append(params)
    vectors_ND = np.random.default_rng(0).normal(size=(DOCUMENTS, 8))
    norms_N = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return (vectors_ND / norms_N).astype(np.float32)

  prepared = types.SimpleNamespace(
    document_ids=[document.id for document in collection.documents()],
    vocabulary=lambda: vocabulary,
    query_length=8,
  )
  # Everything is scored and every identifier is kept: nothing can be missed.
  search = SearchSettings(beams=16, fraction=1.0, batch_sizes=(8,))
  searched = []

  class Searcher(in_loop.Searcher):
    def __init__(self, index, *rest):
      searched.append(index)
      super().__init__(index, *rest)

  monkeypatch.setattr(in_loop, 'Searcher', Searcher)
  (hook,) = in_loop.dev_hooks(
    model,
    types.SimpleNamespace(search=search),
    judging.questions(collection, 'dev'),
    types.SimpleNamespace(prepared=prepared, documents=documents),
  )
  params = init_params(model, 0)
  found = hook(10, types.SimpleNamespace(all_params=lambda: params))
  assert asked_with == [params]
  # As in the index that the run will save.
  assert searched[0].vectors_ND.dtype == np.float16
  assert found['dev/R@100'] == pytest.approx(1)
  assert 0 < found['dev/RR@10'] < 1
  assert 1 / DOCUMENTS <= found['dev/uniqueness'] <= 1
  assert 0 <= found['dev/sequence_entropy'] <= 1
