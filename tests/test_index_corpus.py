"""The indexing door on what is no finished run."""

import json

import jax
import pytest

from gr_jax import index_corpus, run_settings, train
from gr_jax.data.preparation_settings import FORMAT
from gr_jax.data.vocabularies import train_sentencepiece
from gr_jax.settings import to_json
from gr_jax.types import UserError


def test_no_run_is_said_in_one_line(tmp_path):
  with pytest.raises(UserError, match=r'it has no settings\.json'):
    index_corpus.main([f'--run_dir={tmp_path}'])


def test_a_run_without_a_checkpoint_or_without_that_step(tmp_path):
  settings = run_settings.RunSettings(run_dir=str(tmp_path))
  (tmp_path / 'settings.json').write_text(json.dumps(to_json(settings)))
  with pytest.raises(UserError, match='holds no checkpoint: train the run'):
    index_corpus.main([f'--run_dir={tmp_path}'])
  with pytest.raises(UserError, match='no checkpoint of step 7'):
    index_corpus.main([f'--run_dir={tmp_path}', '--checkpoint=7'])
  assert not (tmp_path / 'index').exists()


def write_prepared(folder, examples, corpus):
  """What indexing reads before it encodes; returns the vocabulary's hash."""
  vocabulary = train_sentencepiece(['some words'] * 9, 20, folder / 'v')
  vocabulary.save(folder / 'vocabulary')
  manifest = {
    'format': FORMAT,
    'files': {},
    'sources': {},
    'inputs_sha256': examples,
    'corpus_sha256': corpus,
  }
  (folder / 'manifest.json').write_text(json.dumps(manifest))
  (folder / 'document_ids.txt').write_text('a\nb\n')
  return vocabulary.sha256


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A run up to its encoding; called with what was prepared."""
  data = tmp_path / 'data'
  data.mkdir()
  lines = [json.dumps({'_id': i, 'title': '', 'text': 'words'}) for i in 'ab']
  (data / 'corpus.jsonl').write_text('\n'.join(lines) + '\n')
  (data / 'queries.jsonl').write_text('{"_id": "q", "text": "words"}\n')
  settings = run_settings.RunSettings(run_dir=str(tmp_path), data_dir=str(data))
  (tmp_path / 'settings.json').write_text(json.dumps(to_json(settings)))

  def index(examples, corpus):
    prepared = tmp_path / 'prepared'
    prepared.mkdir()
    hashes = {
      'vocabulary': write_prepared(prepared, examples, corpus),
      'encoder_weights': '',
      'examples': 'trained',
    }
    monkeypatch.setattr(index_corpus, '_restore', lambda *_: ({}, hashes))
    index_corpus.index_run(tmp_path)

  return index


def test_other_examples_than_those_trained_on_are_refused(run):
  with pytest.raises(UserError, match=r'with examples trained, .* has other'):
    run('other', 'corpus')


def test_a_corpus_that_changed_since_is_refused(run):
  with pytest.raises(
    UserError, match=r'the corpus in .*data has changed since'
  ):
    run('trained', 'another corpus')


def test_an_index_that_cannot_be_searched_is_said_once(tmp_path, capfd):
  with pytest.raises(UserError, match='there is no index folder'):
    index_corpus.warm_up(tmp_path / 'index')
  assert capfd.readouterr() == ('', '')


def test_several_processes_are_refused_before_anything_is_written(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  settings = run_settings.RunSettings(run_dir=str(tmp_path / 'run'))
  for start in (
    lambda: train.train(settings, tmp_path / 'run'),
    lambda: index_corpus.index_run(tmp_path / 'run'),
  ):
    with pytest.raises(UserError, match=r'expected one process, .* one of 2'):
      start()
  assert not (tmp_path / 'run').exists()
