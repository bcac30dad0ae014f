"""Filters that ask models: a sentence encoder, a cross-encoder."""

import pathlib

import numpy as np
import pytest
from tiny_collection import write_collection

from gr_jax import split_queries
from gr_jax.data.collection import Collection
from gr_jax.data.pseudo_queries import read_pseudo_queries
from gr_jax.querygen import pipeline
from gr_jax.querygen.query_settings import (
  ExtractiveSource,
  QueryGenerationSettings,
  RelevanceSettings,
  RoundTripSettings,
)
from gr_jax.ranking import dense
from gr_jax.ranking.dense import open_encoder
from gr_jax.ranking.opening import load_ranker
from gr_jax.types import UserError, document_text

TESTS = pathlib.Path(__file__).parents[1]


@pytest.fixture
def models(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(TESTS / 'ranking')
  from tiny_ranker import write_ranker

  write_collection(tmp_path / 'data')
  write_ranker(tmp_path / 'encoder', sentences=True)
  write_ranker(tmp_path / 'ranker')
  return tmp_path


def generate(folder, name, **more):
  asked = QueryGenerationSettings(
    str(folder / 'data'),
    str(folder / name),
    (ExtractiveSource(3, 2, 2, 4, 0),),
    documents_per_shard=15,
    **more,
  )
  manifest = pipeline.generate_queries(asked)
  ids = Collection(folder / 'data').document_index()
  return manifest, list(read_pseudo_queries(folder / name, ids, pytest.fail))


def test_queries_find_their_document_by_vectors(models, monkeypatch):
  _, everything = generate(models, 'all')
  encoder = str(models / 'encoder')
  manifest, found = generate(
    models, 'near', round_trip=RoundTripSettings(3, 'dense', encoder)
  )
  # Texts are short enough to be encoded alike as queries and documents.
  encode = open_encoder(encoder).queries
  documents = list(Collection(models / 'data').documents())
  documents_ND = encode([document_text(document) for document in documents])
  queries_BD = encode([text for _, text in everything])
  scores_BN = np.einsum('BD,ND->BN', queries_BD, documents_ND)
  best_BC = np.argsort(-scores_BN, axis=1, kind='stable')[:, :3]
  expected = [
    pair
    for pair, rows in zip(everything, best_BC, strict=True)
    if pair[0] in [documents[row].id for row in rows]
  ]
  assert found == expected
  assert 0 < len(found) < len(everything)
  assert manifest['inputs']['provenance'] == {
    '4:round_trip': open_encoder(encoder).sha256
  }
  assert not list(models.glob('.*'))

  # What is there is told so before anything is encoded.
  def encoded(*_):
    raise AssertionError

  monkeypatch.setattr(dense, 'encode_shards', encoded)
  again, same = generate(
    models, 'near', round_trip=RoundTripSettings(3, 'dense', encoder)
  )
  assert (again, same) == (manifest, found)


def test_a_cross_encoder_scores_queries(models):
  _, everything = generate(models, 'all')
  ranker = load_ranker(models / 'ranker')
  by_id = {d.id: d for d in Collection(models / 'data').documents()}
  scores = ranker.scores(
    [text for _, text in everything], [by_id[name] for name, _ in everything]
  )
  # Between two scores, which rounding does not move past it.
  middle = float(np.sort(scores)[[49, 50]].mean())
  asked = RelevanceSettings(str(models / 'ranker'), middle)
  manifest, found = generate(models, 'fit', relevance=asked)
  kept = scores >= middle
  assert found == [pair for pair, k in zip(everything, kept, strict=True) if k]
  assert manifest['inputs']['provenance'] == {'4:relevance': ranker.sha256}
  with pytest.raises(UserError, match='should be the folder of a run'):
    generate(
      models, 'no', relevance=RelevanceSettings(str(models / 'data'), best=1)
    )


def test_folds_by_a_sentence_encoder(models):
  lines = split_queries.split(
    models / 'data',
    models / 'folds',
    'extrapolation',
    folds=2,
    encoder=str(models / 'encoder'),
  )
  tests = sum(line['queries'].get('test', 0) for line in lines)
  assert tests == 40
