"""A ranker's scores belong to the pair, wherever it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_collection
import tiny_ranker
import tiny_texts

from gr_jax.data.collection import Collection
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.models.cross_encoder import CrossEncoder
from gr_jax.models.import_weights import import_cross_encoder
from gr_jax.ranking.opening import load_ranker, open_run
from gr_jax.ranking.ranker import join_pair
from gr_jax.retrieval import encoding
from gr_jax.training.mesh import MeshSettings, active, make_mesh
from gr_jax.types import Document, UserError, document_text


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tiny_ranker.write_ranker(tmp_path_factory.mktemp('ranker'))


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  """Queries and documents, some longer than the model has positions."""
  collection = Collection(
    tiny_collection.write_collection(tmp_path_factory.mktemp('c') / 'c')
  )
  documents = list(collection.documents())[:30]
  documents[3] = Document('long', 'otter', 'river otter ' * 40)
  queries = [query.text for query in collection.queries()][:30]
  queries[5] = 'which otter ' * 5
  return queries, documents


def alone(folder, queries, documents):
  """Scores of pairs that a tokenizer joins, each in a batch of its own."""
  from tokenizers import Tokenizer

  tokenizer = Tokenizer.from_file(str(folder / 'tokenizer.json'))
  tokenizer.enable_truncation(tiny_ranker.POSITIONS, strategy='only_second')
  config, params, _ = import_cross_encoder(str(folder))
  score = jax.jit(CrossEncoder(config).apply)
  scores = []
  for query, document in zip(queries, documents, strict=True):
    encoding_ = tokenizer.encode(query, document_text(document))
    first = encoding_.type_ids.count(0)
    tokens = np.zeros((1, tiny_ranker.POSITIONS), np.int32)
    tokens[0, : len(encoding_.ids)] = encoding_.ids
    found = score({'params': params}, tokens, jnp.asarray([first]))
    scores.append(float(found[0]))
  return np.array(scores)


def test_scores_that_are_no_numbers_are_refused(folder, pairs, monkeypatch):
  ranker = load_ranker(folder)
  program = ranker._program
  monkeypatch.setattr(ranker, '_program', lambda *pair: program(*pair) / 0.0)
  with pytest.raises(UserError, match='scores that are no numbers'):
    ranker.scores(*pairs)


def test_scores_are_those_of_each_pair_alone(folder, pairs):
  found = load_ranker(folder).scores(*pairs)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, alone(folder, *pairs), rtol=0, atol=1e-5)
  assert len(set(np.round(found, 4))) > 20


@pytest.mark.parametrize('batch_tokens', [64, 2048])
def test_scores_do_not_depend_on_the_batch(
  folder, pairs, monkeypatch, batch_tokens
):
  monkeypatch.setitem(encoding._BATCH_TOKENS, 'cpu', batch_tokens)
  ranker = load_ranker(folder)
  queries, documents = pairs
  found = ranker.scores(queries, documents)
  order = np.random.default_rng(0).permutation(len(queries))[:17]
  again = ranker.scores(
    [queries[i] for i in order], [documents[i] for i in order]
  )
  np.testing.assert_allclose(again, found[order], rtol=0, atol=1e-5)


def test_no_pairs_have_no_scores(folder):
  assert load_ranker(folder).scores([], []).shape == (0,)


@pytest.mark.mesh
def test_devices_share_the_pairs(folder, pairs):
  expected = load_ranker(folder).scores(*pairs)
  with active(make_mesh(MeshSettings())):
    found = load_ranker(folder).scores(*pairs)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_pair_keeps_its_end():
  assert join_pair([2, 7, 3], [2, 8, 9, 3], 1, 9) == [2, 7, 3, 8, 9, 3]
  assert join_pair([2, 7, 3], [2, 8, 9, 3], 1, 5) == [2, 7, 3, 8, 3]
  assert join_pair([7, 1], [8, 9, 1], 0, 9) == [7, 1, 8, 9, 1]


def test_what_is_no_ranker_is_refused(tmp_path, folder):
  with pytest.raises(UserError, match='it has neither'):
    load_ranker(tmp_path)
  with pytest.raises(UserError, match='does not exist'):
    load_ranker(tmp_path / 'none')
  assert load_vocabulary(folder).size == len(tiny_texts.WORDS) + 4


def run_of(kind):
  lengths = '{"query_length": 8, "document_length": 8}'
  model = f'{{"__class__": "{kind}"}}'
  return f'{{"model": {model}, "cache_dir": "", "preparation": {lengths}}}'


@pytest.mark.parametrize(
  'text, message',
  [
    ('{', 'should be the settings of a run'),
    ('[]', 'should be the settings of a run'),
    ('{"model": 3}', 'should be the settings of a run'),
    (run_of('RetrieverConfig'), "CrossEncoderConfig, its model is 'Retr"),
    (run_of('CrossEncoderConfig'), 'holds no checkpoint'),
  ],
)
def test_runs_that_cannot_rank_are_refused(tmp_path, text, message):
  (tmp_path / 'settings.json').write_text(text)
  with pytest.raises(UserError, match=message):
    load_ranker(tmp_path)


def test_a_run_needs_settings(tmp_path):
  with pytest.raises(UserError, match='has no settings'):
    open_run(tmp_path, object)
