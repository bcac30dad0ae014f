"""The indexing door on what is no finished run."""

import json
import types

import jax
import numpy as np
import pytest
from tiny_collection import write_collection

from gr_jax import change_index, index_corpus, insert, run_settings
from gr_jax.data.collection import Collection
from gr_jax.data.preparation_settings import FORMAT
from gr_jax.data.vocabularies import train_sentencepiece
from gr_jax.retrieval.found import SearchBatch
from gr_jax.retrieval.search_settings import SearchSettings
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
    manifest = {'files': {}, 'hashes': hashes}
    monkeypatch.setattr(index_corpus, '_restore', lambda *_: ({}, manifest))
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


class FirstIsWrong:
  """Finds the right document second by its vector, first by its place."""

  def __init__(self, collection, **settings):
    self.settings = SearchSettings(**settings)
    self.document_ids = list(collection.document_index())
    self.documents = len(self.document_ids)

  def search_batch(self, texts, k):
    del k
    name = ['-'.join((t.split()[0], t.split()[-1])) for t in texts]
    right = [self.document_ids.index(n) for n in name]
    documents_BC = np.array([[(row + 1) % 40, row] for row in right])
    shape = documents_BC.shape
    return SearchBatch(
      documents_BC,
      scores_BC=np.zeros(shape),
      generative_BC=np.broadcast_to(np.float32([-9, -1]), shape),
      dense_BC=np.broadcast_to(np.float32([0.9, 0.8]), shape),
      ranks_BC=np.broadcast_to(np.int32([1, 0]), shape),
      documents_scored_B=np.full(len(texts), 2),
      code_scores_B=np.full(len(texts), 0),
    )


def test_weights_are_fitted_on_dev_and_said_in_one_line(tmp_path, capsys):
  collection = Collection(write_collection(tmp_path / 'data'))
  searcher = FirstIsWrong(collection, generative_weight=0.0)
  fitted = index_corpus._fitted(searcher, collection)
  assert fitted.generative_weight == 0.02
  assert capsys.readouterr().out == (
    'fitted on 40 dev queries: log-linear, generative weight 0.02: '
    'MRR@10 0.500 -> 1.000, R@10 1.000 -> 1.000\n'
  )


@pytest.mark.parametrize('fit_on', ['', 'dev'])
def test_without_a_split_to_fit_on_the_weights_stay(tmp_path, capsys, fit_on):
  folder = write_collection(tmp_path / 'data')
  if fit_on:
    (folder / 'qrels' / 'dev.tsv').unlink()
  collection = Collection(folder)
  searcher = FirstIsWrong(collection, generative_weight=0.0, fit_on=fit_on)
  assert index_corpus._fitted(searcher, collection) == searcher.settings
  assert capsys.readouterr().out == ''


def test_a_split_that_somebody_named_should_be_there(tmp_path):
  collection = Collection(write_collection(tmp_path / 'data'))
  searcher = types.SimpleNamespace(settings=SearchSettings(fit_on='trian'))
  searcher.document_ids = []
  with pytest.raises(UserError, match="did you mean 'train'"):
    index_corpus._fitted(searcher, collection)


def test_an_index_that_cannot_be_searched_is_said_once(tmp_path, capfd):
  with pytest.raises(UserError, match='there is no index folder'):
    index_corpus.warm_up(tmp_path / 'index')
  assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize(
  'door',
  [
    lambda folder: change_index.change_index(folder),
    lambda folder: insert.insert(folder, folder),
  ],
)
def test_doors_of_one_process_refuse_several(tmp_path, monkeypatch, door):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(UserError, match=r'expected one process, .* one of 2'):
    door(tmp_path / 'nothing')
