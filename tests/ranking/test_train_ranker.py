"""A run of train_text trains a cross-encoder, and what it left ranks."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny_collection
import tiny_ranker
from tiny_texts import WORDS, write_prepared, write_vocabulary

from gr_jax import rank_with_teacher, run_folder, train_text
from gr_jax.data.collection import Collection
from gr_jax.data.loader import LoaderSettings
from gr_jax.data.preparation_settings import (
  PreparationSettings,
)
from gr_jax.models.bert import BertConfig
from gr_jax.models.cross_encoder import CrossEncoderConfig
from gr_jax.ranking import reranking
from gr_jax.ranking.opening import load_ranker
from gr_jax.ranking.teacher_files import read_manifest, read_rankings
from gr_jax.run_ranker import RankerRun
from gr_jax.text_run_settings import TextRunSettings
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.training.text_step import TextTrainingSettings
from gr_jax.types import UserError

QUERY, DOCUMENT = 10, 20


def settings_of(folder, weights, **changes):
  encoder = BertConfig(
    vocab_size=len(WORDS) + 4,
    emb_dim=tiny_ranker.WIDTH,
    num_heads=2,
    num_layers=1,
    mlp_dim=tiny_ranker.MLP,
    max_length=tiny_ranker.POSITIONS,
    dropout_rate=0.1,
  )
  settings = TextRunSettings(
    run_dir=str(folder / 'run'),
    data_dir=str(folder / 'data'),
    encoder_weights=str(weights),
    preparation=PreparationSettings(
      vocabulary=str(folder / 'vocabulary' / 'tokenizer.json'),
      sources=('labelled',),
      query_length=QUERY,
      document_length=DOCUMENT,
    ),
    loader=LoaderSettings(
      batch_size=4, rates={'labelled': 1.0}, hard_negatives=2
    ),
    model=CrossEncoderConfig(encoder, length=28),
    training=TextTrainingSettings(
      steps=4, log_every=1, evaluate_every=2, checkpoint_every=2
    ),
  )
  return dataclasses.replace(settings, **changes)


@pytest.fixture(scope='module')
def started(tmp_path_factory):
  """A folder with collection, vocabulary, weights and prepared examples."""
  folder = tmp_path_factory.mktemp('ranker')
  tiny_collection.write_collection(folder / 'data')
  write_vocabulary(folder / 'vocabulary')
  tiny_ranker.write_ranker(folder / 'sentences', sentences=True)
  tiny_ranker.write_ranker(folder / 'published', seed=1)
  cache = folder / 'cache'
  settings = settings_of(folder, folder / 'sentences', cache_dir=str(cache))
  write_prepared(cache / 'prepared', settings)
  return folder, settings


def trained(settings, folder):
  settings = dataclasses.replace(settings, run_dir=str(folder))
  train_text.train(settings, folder)
  return settings


def last_params(folder):
  checkpoints = Checkpoints(folder / 'checkpoints')
  try:
    return checkpoints.latest(), checkpoints.restore_params(
      checkpoints.latest()
    )
  finally:
    checkpoints.close()


def test_a_run_trains_goes_on_and_ranks(started, tmp_path, monkeypatch):
  _, settings = started
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  trained(settings, whole)
  step, expected = last_params(whole)
  assert step == 4

  real = reranking.Reranking.__call__

  def interrupted(self, ranker):
    raise KeyboardInterrupt

  monkeypatch.setattr(reranking.Reranking, '__call__', interrupted)
  with pytest.raises(KeyboardInterrupt):
    trained(settings, broken)
  assert last_params(broken)[0] == 2
  monkeypatch.setattr(reranking.Reranking, '__call__', real)
  trained(settings, broken)
  step, found = last_params(broken)
  assert step == 4
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  logged = ''.join(p.read_text() for p in (whole / 'logs').glob('*.jsonl'))
  for name in ('localized', 'localized_accuracy', 'dev/MRR@10'):
    assert f'"{name}"' in logged

  data, output = settings.data_dir, tmp_path / 'rankings'
  monkeypatch.setattr('gr_jax.entry.keep_compiled', lambda: None)
  rank_with_teacher.main(
    [
      f'--data_dir={data}', f'--output={output}', f'--teacher=run:{whole}',
      '--candidates=bm25', '--depth=5', '--split=dev',
    ]
  )  # fmt: skip
  ranker = load_ranker(whole)
  assert read_manifest(output)['teachers'] == {f'run:{whole}': ranker.sha256}
  texts = {query.id: query.text for query in Collection(data).queries()}
  documents = {d.id: d for d in Collection(data).documents()}
  ranking = next(read_rankings(output))
  scores = ranker.scores(
    [texts[ranking.query_id]] * len(ranking.document_ids),
    [documents[name] for name in ranking.document_ids],
  )
  np.testing.assert_allclose(ranking.scores, scores, atol=1e-5)


def test_what_a_run_starts_from(started, tmp_path):
  """A sentence encoder, a whole cross-encoder, or another run."""
  folder, settings = started
  encoder, _ = RankerRun(settings).imported()
  assert encoder.keys() == {'encoder'}
  published = dataclasses.replace(
    settings, encoder_weights=str(folder / 'published')
  )
  everything, sha256 = RankerRun(published).imported()
  assert everything.keys() == {'encoder', 'pooler', 'score'}
  assert len(sha256) == 64
  without = dataclasses.replace(settings.model, pooler=False)
  fewer, _ = RankerRun(dataclasses.replace(published, model=without)).imported()
  assert fewer.keys() == {'encoder', 'score'}
  drawn = dataclasses.replace(settings, encoder_weights='')
  assert RankerRun(drawn).imported() == ({}, '')
  training = dataclasses.replace(settings.training, steps=1, evaluate_every=0)
  run = tmp_path / 'run'
  trained(dataclasses.replace(published, training=training), run)
  again = dataclasses.replace(settings, encoder_weights=f'run:{run}')
  found, sha256 = RankerRun(again).imported()
  jax.tree.map(np.testing.assert_array_equal, found, last_params(run)[1])
  assert sha256 == load_ranker(run).sha256
  assert run_folder.prepared_examples(again, run).query_length == QUERY
  # As many tokens, but others.
  tokens = (folder / 'vocabulary' / 'tokenizer.json').read_text()
  other = tmp_path / 'tokenizer.json'
  other.write_text(tokens.replace('otter', 'eagle'))
  preparation = dataclasses.replace(settings.preparation, vocabulary=str(other))
  prepared_otherwise = dataclasses.replace(
    again, preparation=preparation, cache_dir=str(tmp_path)
  )
  write_prepared(tmp_path / 'prepared', prepared_otherwise)
  with pytest.raises(UserError, match='trained with another vocabulary'):
    run_folder.prepared_examples(prepared_otherwise, run)
  wider = dataclasses.replace(
    settings.model,
    encoder=dataclasses.replace(settings.model.encoder, mlp_dim=48),
  )
  with pytest.raises(UserError, match='has another encoder'):
    RankerRun(dataclasses.replace(again, model=wider)).imported()
  with pytest.raises(UserError, match=r'BertConfig.mlp_dim = 24 \(it is 48\)'):
    RankerRun(dataclasses.replace(settings, model=wider)).imported()
  none = dataclasses.replace(settings, encoder_weights=f'run:{folder}')
  with pytest.raises(UserError, match='should name the folder of a run'):
    RankerRun(none).imported()


def test_a_query_is_told_from_something(started, tmp_path):
  _, settings = started
  loader = dataclasses.replace(settings.loader, hard_negatives=0)
  alone = dataclasses.replace(settings, loader=loader)
  with pytest.raises(UserError, match='what a query is told from'):
    trained(alone, tmp_path / 'run')


def test_a_vocabulary_of_another_kind_is_refused(started):
  _, settings = started
  pieces = SimpleNamespace(encode=lambda text, length: [1])
  other = SimpleNamespace(vocabulary=lambda: pieces, query_length=QUERY)
  with pytest.raises(UserError, match=r'2 tokens around a text .* writes 1'):
    RankerRun(settings).batches(other, range(4))
