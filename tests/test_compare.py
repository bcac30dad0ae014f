"""The comparison door, from gin to tables, on runs of two steps."""

import contextlib
import csv
import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import small_run
from tiny_collection import write_collection

from gr_jax import compare, configuration, split_queries, train
from gr_jax.evaluation.comparison_settings import ComparisonSettings
from gr_jax.types import UserError

FILES = tuple(
  word.removeprefix('--gin_file=')
  for word in small_run.GIN
  if word.startswith('--gin_file=')
)
COMMON = (
  'STEPS=2',
  *(
    word.removeprefix('--gin.')
    for word in small_run.GIN
    if word.startswith('--gin.')
  ),
)
FROZEN = (
  'TrainingSettings.train_encoder=False',
  'CodeDecoderConfig.attends_tokens=False',
)


VARIANTS = {
  'refused': ('TrainingSettings.dense_fraction=2.0',),
  'broken': ('WEIGHTS=nowhere',),
  'trained': (),
  'group/frozen': FROZEN,
}
FIELDS = {'seeds': (0, 1), 'split': 'test', 'baseline': 'trained'}


@pytest.fixture(scope='module')
def ask(tmp_path_factory):
  """Calls the door on a tiny data set; returns its status."""
  folder = tmp_path_factory.mktemp('compare')
  data, cache = str(write_collection(folder / 'data')), str(folder / 'cache')
  gin = folder / 'experiment.gin'
  gin.write_text(
    "ComparisonSettings.folder = 'runs'\n"
    f'ComparisonSettings.gin_files = {FILES!r}\n'
    f"ComparisonSettings.data_dirs = {{'tiny': {data!r}}}\n"
    f"ComparisonSettings.cache_dirs = {{'tiny': {cache!r}}}\n"
    f'ComparisonSettings.common = {COMMON!r}\n'
    'ComparisonSettings.fractions = (0.1, 0.5)\n'
  )

  def ask(where, variants, *more, **fields):
    fields = {'folder': str(where), 'variants': variants, **fields}
    given = [f'--gin.ComparisonSettings.{n}={v!r}' for n, v in fields.items()]
    return compare.main([f'--gin_file={gin}', *given, *more])

  return ask


@contextlib.contextmanager
def watched_training(stop_after=None):
  """Yields the runs that are trained; one of them is interrupted behind."""
  calls, real = [], train.train

  def counted(settings, run_dir, config_text=''):
    calls.append('/'.join(run_dir.parts[-2:]))
    real(settings, run_dir, config_text)
    if calls[-1] == stop_after:
      raise KeyboardInterrupt

  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(train, 'train', counted)
    yield calls


def log_of(where, run):
  return (where / 'tiny' / run / 'logs' / 'metrics.jsonl').read_text()


@pytest.fixture(scope='module')
def finished(ask, tmp_path_factory):
  """A comparison that was interrupted and went on; where, and what it did."""
  where = tmp_path_factory.mktemp('finished')
  last = 'trained/seed_1'
  with (
    watched_training(stop_after=last) as first,
    pytest.raises(KeyboardInterrupt),
  ):
    ask(where, VARIANTS, **FIELDS)
  partial, log = (where / 'table.md').read_text(), log_of(where, last)
  with watched_training() as second:
    status = ask(where, VARIANTS, **FIELDS)
  return types.SimpleNamespace(
    where=where, first=first, second=second, partial=partial, log=log,
    status=status,
  )  # fmt: skip


@pytest.mark.soak
def test_variants_share_the_vectors_of_the_same_texts(ask, tmp_path, capsys):
  few = (
    "PreparationSettings.sources=('labelled',)",
    "LoaderSettings.rates={'labelled': 1.0}",
  )
  variants = {'all': FROZEN, 'few': (*FROZEN, *few)}
  # The folds have the documents of the collection, and its spans.
  tiny = write_collection(tmp_path / 'tiny')
  split_queries.split(tiny, tmp_path / 'cv', 'queries', folds=2)
  data = {
    'tiny': str(tiny),
    **{name: str(tmp_path / 'cv' / name) for name in ('fold_0', 'fold_1')},
  }
  fields = {'cache_dirs': {}, 'data_dirs': data, 'pooled': True}
  assert ask(tmp_path / 'runs', variants, **fields) == 0
  said = capsys.readouterr().out
  names = [
    line.split("'")[1]
    for line in said.splitlines()
    if line.startswith('encoding')
  ]
  assert names[0] == 'documents' and names.count('queries_labelled') == 3
  others = [name for name in names if name != 'queries_labelled']
  assert len(set(others)) == len(others)
  assert '## pooled, dev' in said


def read_table(where):
  with (where / 'table.csv').open(newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


@pytest.mark.soak
def test_an_interrupted_comparison_goes_on_where_it_was(finished):
  assert finished.first == [
    'broken/seed_0', 'trained/seed_0', 'frozen/seed_0', 'broken/seed_1',
    'trained/seed_1',
  ]  # fmt: skip
  assert '2 of 8 runs are finished, 4 failed.' in finished.partial
  # What failed is tried again, what is finished is not.
  assert finished.second == [
    'broken/seed_0', 'broken/seed_1', 'trained/seed_1', 'frozen/seed_1'
  ]  # fmt: skip
  # The interrupted run had its checkpoint: not a step was trained again.
  assert finished.log
  assert log_of(finished.where, 'trained/seed_1') == finished.log


@pytest.mark.soak
def test_failures_are_in_the_table_and_the_status(finished):
  assert finished.status == 1
  table = (finished.where / 'table.md').read_text()
  assert '4 of 8 runs are finished, 4 failed.' in table
  assert '- tiny, refused, seed 0: dense_fraction must be' in table
  broken = [line for line in table.splitlines() if '- tiny, broken' in line]
  assert len(broken) == 2 and 'nowhere' in broken[0]
  names = {row['variant'] for row in read_table(finished.where)}
  assert names == {'BM25', 'trained', 'group/frozen'}


@pytest.mark.soak
def test_rows_of_two_variants_and_two_seeds(finished):
  rows = read_table(finished.where)
  fused = [
    row for row in rows if (row['system'], row['split']) == ('fused', 'test')
  ]
  # Two variants at two shares by two measures.
  assert len(fused) == 8
  assert {row['seeds'] for row in fused} == {'2'}
  cells = {
    (row['variant'], row['fraction'], row['measure']): row for row in fused
  }
  for (variant, fraction, measure), row in cells.items():
    theirs = cells['trained', fraction, measure]
    assert bool(row['difference']) == (variant == 'group/frozen')
    if row['difference']:
      difference = float(row['mean']) - float(theirs['mean'])
      assert float(row['difference']) == pytest.approx(difference)
      assert float(row['low']) <= difference <= float(row['high'])
  systems = {row['system'] for row in rows}
  assert {'BM25', 'exact dense', 'generative alone', 'identifiers'} <= systems


@pytest.mark.soak
def test_a_run_keeps_its_scores_and_not_its_checkpoints(finished):
  run = finished.where / 'tiny' / 'group' / 'frozen' / 'seed_1'
  assert not (run / 'checkpoints').exists()
  facts = json.loads((run / 'result.json').read_text())
  assert set(facts['weights']) == {'0.1', '0.5'}
  with np.load(run / 'scores.npz') as scores:
    assert scores['test/fused/0.5/R@10'].shape == (40,)


@pytest.mark.soak
def test_what_is_finished_runs_once_and_what_changed_again(
  finished, ask, capsys, tmp_path
):
  where = tmp_path / 'copy'
  shutil.copytree(finished.where, where)
  variants = {name: VARIANTS[name] for name in ('trained', 'group/frozen')}
  assert ask(where, variants, '--list', **FIELDS) == 0
  assert capsys.readouterr().out.count(': finished\n') == 4
  before = read_table(where)
  with watched_training() as calls:
    assert ask(where, variants, **FIELDS) == 0
  assert calls == []
  assert read_table(where) == before
  changed = {**variants, 'trained': ('WEIGHTS=nowhere',)}
  with watched_training() as calls:
    assert ask(where, changed, '--only=tr*', **FIELDS) == 1
  assert calls == ['trained/seed_0', 'trained/seed_1']
  table = (where / 'table.md').read_text()
  assert '2 of 4 runs are finished, 2 failed.' in table


def test_a_folder_of_something_else_is_left_alone(tmp_path, ask):
  theirs = tmp_path / 'tiny' / 'one' / 'seed_0' / 'thesis.txt'
  theirs.parent.mkdir(parents=True)
  theirs.write_text('years of work')
  assert ask(tmp_path, {'one': ()}) == 1
  assert theirs.read_text() == 'years of work'
  assert 'should hold a run of this' in (tmp_path / 'table.md').read_text()


def test_slips_are_refused_in_one_line(tmp_path, ask):
  with pytest.raises(UserError, match='sets SEED of each run itself'):
    ask(tmp_path, {'a': ('SEED=3',)})
  with pytest.raises(UserError, match="made of 'NAME=value'"):
    ask(tmp_path, {'a': ('STEPS',)})
  with pytest.raises(UserError, match='should name a; got'):
    ask(tmp_path, {'a': ()}, baseline='b')
  with pytest.raises(UserError, match="after 'best:', got 'static'"):
    ask(tmp_path, {'a': ()}, baseline='best:static')
  with pytest.raises(UserError, match=r"got '../a'"):
    ask(tmp_path, {'../a': ()})
  with pytest.raises(UserError, match='should match a variant: a'):
    ask(tmp_path, {'a': ()}, '--only=b')
  assert not list(tmp_path.iterdir())
  done = subprocess.run(
    [sys.executable, '-m', 'gr_jax.compare', '--gin_file=gin/none.gin'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1


def test_a_variant_wins_over_what_is_common():
  settings = ComparisonSettings(
    folder='runs',
    gin_files=('a.gin',),
    common=('STEPS=2', 'X.y=1', 'c.gin'),
    variants={'v': ('STEPS=5', 'd.gin')},
  )
  files, overrides = settings.bindings('v', {'SEED': 3})
  assert files == ['a.gin', 'c.gin', 'd.gin']
  assert overrides == ['SEED=3', 'STEPS=5', 'X.y=1']


def test_a_variant_goes_on_from_another_of_its_data_and_seed(tmp_path):
  def plan(steps):
    start = "TRAINED_RUN='{folder}/{data}/base/seed_{seed}'"
    settings = ComparisonSettings(
      folder=str(tmp_path),
      variants={
        'base': (f'STEPS={steps}',),
        'distilled': (
          'gin/runs/distill.gin', start, "RANKINGS='{data}_{seed}'",
        ),
      },
      seeds=(0, 1),
    )  # fmt: skip
    return {run.key[1:]: run for run in compare.plan(settings)}

  first, second = plan(10), plan(20)
  settings = first['distilled', 1].settings
  assert settings.trained_run == str(first['base', 1].folder)
  assert settings.lists.path == 'python_docs_1'
  for key, run in first.items():
    assert not run.refused
    # What a run goes on from is part of what it depends on.
    assert run.sha256 != second[key].sha256
  hashes = [run.sha256 for run in first.values()]
  assert hashes == [run.sha256 for run in plan(10).values()]


def test_the_shipped_smoke_experiment_can_be_pointed_elsewhere(tmp_path):
  configuration.register(ComparisonSettings)
  configuration.parse(
    ['gin/experiments/smoke.gin'],
    [f'FOLDER={tmp_path}', "DATA_DIRS={'mine': 'python_docs'}", 'SEEDS=(4,)'],
  )
  runs = compare.plan(configuration.build(ComparisonSettings))
  assert [run.key for run in runs] == [
    ('mine', 'dense_stage', 4), ('mine', 'no_dense_stage', 4),
  ]  # fmt: skip
  assert len({run.sha256 for run in runs}) == 2
  assert len({run.texts_key for run in runs}) == 1
