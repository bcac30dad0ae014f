"""From a folder of texts to documents, through the doors, from scratch."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from tiny_collection import write_collection

from gr_jax import (
  configuration,
  index_corpus,
  run_folder,
  run_settings,
  train,
)
from gr_jax.evaluate import evaluate
from gr_jax.models.retriever import Retriever
from gr_jax.training import initial
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.training.logs import read_jsonl
from gr_jax.training.stages import stage_optimizers
from gr_jax.types import UserError

# A T5 of two layers, trained with its vocabulary on the collection itself.
SMALL = [
  'T5Config.vocab_size=256',
  'T5Config.emb_dim=32',
  'T5Config.num_heads=2',
  'T5Config.head_dim=16',
  'T5Config.num_encoder_layers=1',
  'T5Config.num_decoder_layers=1',
  'T5Config.mlp_dim=64',
  'T5Config.dropout_rate=0.0',
  'RetrieverConfig.width=32',
  'POSITIONS=3',
  'CODES=8',
  'PreparationSettings.vocabulary_size=160',
  'PreparationSettings.document_length=24',
  'PreparationSettings.query_length=16',
  'OptimizerSettings.name=adamw',
  'OptimizerSettings.learning_rate=0.003',
  'LoaderSettings.batch_size=64',
  'SearchSettings.beams=16',
  'RetrieverConfig.queue=128',
  'SearchSettings.documents_scored=8',
  'TrainingSettings.log_every=20',
]


def settings(folder, *overrides):
  configuration.parse(
    ['gin/runs/full.gin', 'gin/models/t5_1_1_tiny.gin'],
    [f'RUN_DIR={folder / "run"}', f'DATA_DIR={folder / "data"}', *SMALL]
    + list(overrides),
  )
  return configuration.build(run_settings.RunSettings)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run that was interrupted at step 60 of 160 and taken up again."""
  folder = tmp_path_factory.mktemp('end_to_end')
  write_collection(folder / 'data')
  run = settings(
    folder,
    'STEPS=160',
    'TrainingSettings.checkpoint_every=60',
    'TrainingSettings.keep_checkpoints=9',
    'TrainingSettings.evaluate_every=160',
  )
  train.train(run, folder / 'run')
  index_corpus.index_run(folder / 'run')
  return folder / 'run', run


def test_it_finds_every_document_of_a_corpus_it_can_memorise(trained):
  run_dir, _ = trained
  results = evaluate(run_dir)
  rows = {row['name']: row for row in results['systems']}
  assert rows['gr_jax']['R@1'] == 1.0
  assert rows['gr_jax']['documents_scored_per_query'] <= 8
  assert results['id_space']['uniqueness'] > 0.9
  saved = json.loads((run_dir / 'results.json').read_text())
  assert saved['systems'] == results['systems']


def test_dev_is_measured_while_training(trained):
  logs = read_jsonl(trained[0] / 'logs')
  measured = [line['dev/R@10'] for line in logs if 'dev/R@10' in line]
  assert measured == [1.0]
  generation = [line['generation'] for line in logs if 'generation' in line]
  assert generation[-1] < generation[0] / 2


@pytest.mark.soak
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trained, tmp_path):
  run_dir, run = trained
  again = tmp_path / 'run'
  whole = Checkpoints(run_dir / 'checkpoints')
  # What a run killed after step 60 has.
  (again / 'checkpoints').mkdir(parents=True)
  for name in ('prepared', 'settings.json'):
    (again / name).symlink_to(run_dir / name)
  (again / 'checkpoints' / 'step_00000060').symlink_to(
    run_dir / 'checkpoints' / 'step_00000060'
  )
  train.train(run, again)
  resumed = Checkpoints(again / 'checkpoints')
  assert resumed.latest() == whole.latest() == 160
  expected = flat(whole.restore_params(160))
  found = flat(resumed.restore_params(160))
  assert expected.keys() == found.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)
  # What was remembered of codes, and the optimizer, went on as well.
  states = [whole_state(run, checkpoints) for checkpoints in (whole, resumed)]
  documents = states[0].usage['usage']['documents']
  assert np.all(np.asarray(documents) >= 0)
  jax.tree.map(np.testing.assert_array_equal, *states)


def whole_state(run, checkpoints):
  """All that a checkpoint of step 160 holds."""
  optimizer = stage_optimizers(run.training)['settled']
  state, _, _ = initial.first_state(run, Retriever(run.model), 40, optimizer)
  hashes = checkpoints.verify(160)['hashes']
  return checkpoints.restore(160, state, hashes).state


def flat(tree, prefix=''):
  leaves = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      leaves |= flat(value, f'{prefix}{name}/')
    else:
      leaves[prefix + name] = np.asarray(value)
  return leaves


def test_other_settings_do_not_go_on_with_a_run(trained):
  run_dir, _ = trained
  changed = settings(run_dir.parent, 'STEPS=200')
  with pytest.raises(UserError, match='steps was 160, is 200'):
    train.train(changed, run_dir)


def test_an_encoder_smaller_than_the_vocabulary_is_refused(trained):
  run_dir, run = trained
  encoder = dataclasses.replace(run.model.encoder, vocab_size=20)
  changed = dataclasses.replace(
    run,
    model=dataclasses.replace(run.model, encoder=encoder),
    cache_dir=str(run_dir),
  )
  with pytest.raises(UserError, match='encoder 20 vectors'):
    train.train(changed, run_dir.parent / 'other')


def test_a_missing_dev_split_is_refused_before_anything_takes_long(
  tmp_path, monkeypatch
):
  (write_collection(tmp_path / 'data') / 'qrels' / 'dev.tsv').unlink()
  prepared = types.SimpleNamespace(sources={})
  monkeypatch.setattr(run_folder, 'prepared_examples', lambda *_: prepared)
  run = settings(tmp_path, 'TrainingSettings.evaluate_every=10')
  with pytest.raises(UserError, match="no split 'dev'"):
    train.train(run, tmp_path / 'run')


def test_search_answers_without_tensorflow(trained):
  code = (
    'import sys\n'
    'from gr_jax.search import main\n'
    'main(sys.argv[1:])\n'
    "heavy = {'tensorflow', 'seqio', 'orbax', 'grain', 'gin'}\n"
    'assert not heavy & set(sys.modules), heavy & set(sys.modules)\n'
  )
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      code,
      f'--index={trained[0] / "index"}',
      '--json',
      'lynx of the cellar',
    ],
    capture_output=True,
    text=True,
    check=False,
    cwd=pathlib.Path(__file__).parent.parent,
  )
  assert done.returncode == 0, done.stderr
  assert 'lynx-cellar' in done.stdout
