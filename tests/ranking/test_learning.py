"""A small cross-encoder learns to tell documents from each other."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
import tiny_collection
import tiny_ranker

from gr_jax.data.collection import Collection
from gr_jax.data.loader import pad
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.models.cross_encoder import CrossEncoder
from gr_jax.models.import_weights import import_cross_encoder
from gr_jax.ranking import reranking
from gr_jax.ranking.ranker import Ranker
from gr_jax.types import document_text

ROWS, NEGATIVES, STEPS = 16, 3, 130


def batches(collection, vocabulary):
  """Queries, their documents, and three that share a word with those."""
  documents = list(collection.documents())
  row_of = {document.id: row for row, document in enumerate(documents)}
  tokens_ND = pad(
    vocabulary.encode_batch([document_text(d) for d in documents], 20), 20
  )
  queries = [query for query in collection.queries() if query.id[-1] == '1']
  own_Q = np.array([row_of[query.id[:-2]] for query in queries])
  queries_QS = pad(vocabulary.encode_batch([q.text for q in queries], 10), 10)
  alike = [
    [
      row
      for row, other in enumerate(documents)
      if row != own and {*other.id.split('-')} & {*documents[own].id.split('-')}
    ]
    for own in own_Q
  ]
  rng = np.random.default_rng(0)
  while True:
    rows = rng.choice(len(queries), ROWS, replace=False)
    negatives = np.array([rng.choice(alike[r], NEGATIVES, False) for r in rows])
    yield {
      'query_tokens': queries_QS[rows],
      'document_tokens': tokens_ND[own_Q[rows]],
      'document_index': own_Q[rows].astype(np.int32),
      'negative_tokens': tokens_ND[negatives],
      'negative_index': negatives.astype(np.int32),
    }


@pytest.mark.soak
def test_it_learns_which_document_answers(tmp_path):
  """Every query is put in order among twelve documents that share its words."""
  collection = Collection(tiny_collection.write_collection(tmp_path / 'c'))
  folder = tiny_ranker.write_ranker(tmp_path / 'm')
  vocabulary = load_vocabulary(folder)
  config, _, _ = import_cross_encoder(str(folder))
  quiet = dataclasses.replace(
    config.encoder,
    emb_dim=32,
    mlp_dim=64,
    num_layers=2,
    dropout_rate=0.0,
    initializer_stddev=0.1,
  )
  config = dataclasses.replace(config, encoder=quiet, in_batch=1)
  model = CrossEncoder(config)
  made = batches(collection, vocabulary)
  params = jax.jit(
    lambda batch: model.init(
      jax.random.key(0), batch, deterministic=True, method='loss'
    )['params']
  )(next(made))
  optimizer = optax.adam(5e-3)

  @jax.jit
  def step(params, opt_state, batch):
    def loss(params):
      return model.apply(
        {'params': params}, batch, deterministic=False, method='loss'
      )

    gradient, metrics = jax.grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradient, opt_state)
    return optax.apply_updates(params, updates), opt_state, metrics

  asked = reranking.sampled(collection, 'test', 40, 12)
  before = asked(Ranker(model, params, vocabulary, '', 10, 20))
  opt_state = optimizer.init(params)
  for _ in range(STEPS):
    params, opt_state, metrics = step(params, opt_state, next(made))
  assert metrics['localized_accuracy'][0] == ROWS
  after = asked(Ranker(model, params, vocabulary, '', 10, 20))
  assert before < 0.6 and after > 0.95, (before, after)
