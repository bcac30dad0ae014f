"""Re-ranking while training: what BM25 finds, in the order of a ranker."""

import types

import numpy as np
import pytest
import tiny_collection
import tiny_ranker

from gr_jax.data.collection import Collection
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.evaluation.lexical import Lexical
from gr_jax.models.cross_encoder import CrossEncoder
from gr_jax.models.import_weights import import_cross_encoder
from gr_jax.ranking import reranking
from gr_jax.types import NO_DOC, UserError


@pytest.fixture(scope='module')
def collection(tmp_path_factory):
  return Collection(
    tiny_collection.write_collection(tmp_path_factory.mktemp('c') / 'c')
  )


class Knows:
  """Scores as told: whether the query's own document is the best or worst."""

  def __init__(self, sign):
    self._sign = sign

  def scores(self, queries, documents):
    return np.float32(
      [
        self._sign * all(word in query for word in document.title.split())
        for query, document in zip(queries, documents, strict=True)
      ]
    )


def test_a_ranker_that_knows_has_what_can_be_had(collection):
  asked = reranking.sampled(collection, 'train', 25, 6)
  judged = {j.query_id: j.document_id for j in collection.judgements('train')}
  queries = [q for q in collection.queries() if q.id in judged]
  order = sorted(np.random.default_rng(0).permutation(len(queries))[:25])
  lexical = Lexical(collection.documents())
  texts = [queries[i].text for i in order]
  rows_BC = lexical.search(texts, 6).rows_BC
  ranks = [
    [lexical.document_ids[row] for row in rows if row != NO_DOC].index(
      judged[queries[i].id]
    )
    for i, rows in zip(order, rows_BC, strict=True)
  ]
  assert asked.before == pytest.approx(np.mean([1 / (1 + r) for r in ranks]))
  assert asked(Knows(1)) == pytest.approx(1.0)
  assert asked(Knows(-1)) == pytest.approx(1 / 6)


def test_the_hook_judges_the_parameters_of_a_state(collection, tmp_path):
  folder = tiny_ranker.write_ranker(tmp_path)
  config, params, _ = import_cross_encoder(str(folder))
  prepared = types.SimpleNamespace(
    vocabulary=lambda: load_vocabulary(folder),
    query_length=8,
    document_length=20,
  )
  asked = reranking.sampled(collection, 'dev', 5, 4)
  hook = reranking.reranking_hook(CrossEncoder(config), prepared, asked)
  found = hook(7, types.SimpleNamespace(all_params=lambda: params))
  assert found['dev/MRR@10_of_BM25'] == asked.before
  assert 0 < found['dev/MRR@10'] <= 1


def test_a_split_without_relevant_documents_is_refused(tmp_path):
  folder = tiny_collection.write_collection(tmp_path / 'c')
  qrels = folder / 'qrels' / 'dev.tsv'
  qrels.write_text(qrels.read_text().replace('\t1\n', '\t0\n'))
  with pytest.raises(UserError, match='relevant document, it holds none'):
    reranking.sampled(Collection(folder), 'dev', 5, 4)
