"""From a folder of texts to documents, through the doors, from scratch."""

import dataclasses
import json
import pathlib
import shutil
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
from gr_jax.data.collection import Collection
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


def test_a_trained_run_follows_a_teacher(trained, tmp_path):
  """Whose order nothing else tells: by the names of animals, then of places."""
  base_dir, base = trained
  documents = Collection(base.data_dir).document_index()
  path = tmp_path / 'rankings.jsonl'
  lines = []
  for query in Collection(base.data_dir).queries():
    own = query.id.rpartition('-')[0]
    ranked = [own, *(name for name in sorted(documents) if name != own)][:21]
    scores = [float(-place) for place in range(len(ranked))]
    lines.append(
      {'query_id': query.id, 'document_ids': ranked, 'scores': scores}
    )
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  distilled = settings(
    base_dir.parent,
    'STEPS=60',
    f'RunSettings.encoder_weights=run:{base_dir}',
    f'RunSettings.trained_run={base_dir}',
    'RunSettings.lists=@ListSettings()',
    f'ListSettings.path={path}',
    'ObjectiveSettings.distillation=1.0',
    'CodeDecoderConfig.correction=1.0',
    'LoaderSettings.rates={"labelled": 1.0}',
    'TrainingSettings.dense_fraction=0.0',
    'TrainingSettings.settled_fraction=1.0',
    'TrainingSettings.settled_rounds=0',
  )
  distilled = dataclasses.replace(
    distilled, run_dir=str(tmp_path / 'run'), cache_dir=str(base_dir)
  )
  train.train(distilled, tmp_path / 'run')
  logs = read_jsonl(tmp_path / 'run' / 'logs')
  losses = [line['margin_rank'] for line in logs if 'margin_rank' in line]
  assert losses[-1] < 0.7 * losses[0], losses
  before, after = (
    flat(Checkpoints(folder / 'checkpoints').restore_params(step))
    for folder, step in ((base_dir, 160), (tmp_path / 'run', 60))
  )
  np.testing.assert_array_equal(
    before['identifiers/table'], after['identifiers/table']
  )
  assert not np.array_equal(
    before['indexer/codebooks'], after['indexer/codebooks']
  )
  # Vectors stand still, so encoder and projection do.
  for name in before:
    if name.startswith(('encoder/', 'projection/')):
      np.testing.assert_array_equal(before[name], after[name], err_msg=name)
  # Other rankings do not go on with it.
  path.write_text(path.read_text().replace('-20.0', '-21.0'))
  with pytest.raises(UserError, match='lists'):
    train.train(distilled, tmp_path / 'run')


@pytest.mark.soak
def test_a_run_that_ranks_anew_resumes_bit_for_bit(tmp_path):
  """From a checkpoint between two refreshes, of some of the queries each."""
  write_collection(tmp_path / 'data')
  frozen = 'TrainingSettings.train_encoder=False'
  pooled = 'CodeDecoderConfig.attends_tokens=False'
  base_dir = tmp_path / 'run'
  train.train(settings(tmp_path, 'STEPS=12', frozen, pooled), base_dir)
  distilled = settings(
    tmp_path,
    'STEPS=20',
    frozen,
    pooled,
    f'RunSettings.trained_run={base_dir}',
    'RunSettings.lists=@ListSettings()',
    'RunSettings.teaching=@DistillationSettings()',
    'ListSettings.depth=20',
    'ListSettings.least=4',
    'ListSettings.refresh_every=8',
    'ListSettings.refresh_queries=100',
    'ObjectiveSettings.distillation=1.0',
    'DistillationSettings.dense_weight=0.5',
    'TrainingSettings.checkpoint_every=12',
    'TrainingSettings.dense_fraction=0.0',
    'TrainingSettings.settled_fraction=1.0',
    'TrainingSettings.settled_rounds=0',
  )
  run = dataclasses.replace(distilled, cache_dir=str(base_dir))
  whole, again = tmp_path / 'whole', tmp_path / 'again'
  train.train(run, whole)
  names = ('step_00000020', 'refresh_00000016', 'logs')
  shutil.copytree(whole, again, ignore=shutil.ignore_patterns(*names))
  assert sorted(p.name for p in (again / 'rankings').iterdir()) == [
    'refresh_00000008'
  ]
  train.train(run, again)
  expected, found = (
    flat(Checkpoints(folder / 'checkpoints').restore_params(20))
    for folder in (whole, again)
  )
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)
  last = 'rankings/refresh_00000016/00000.jsonl'
  assert (whole / last).read_bytes() == (again / last).read_bytes()
  before = flat(Checkpoints(base_dir / 'checkpoints').restore_params(12))
  assert not np.array_equal(
    before['indexer/codebooks'], found['indexer/codebooks']
  )


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
