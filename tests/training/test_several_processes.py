"""Training by several real processes is the training by one."""

import json
import pathlib
import shutil
import signal
import time

import numpy as np
import one_of_several
import pytest
import several_processes
import small_run
from tiny_collection import write_collection

from gr_jax import run_folder
from gr_jax.index.reader import load_index
from gr_jax.training.logs import read_jsonl

DOOR = str(pathlib.Path(one_of_several.__file__))
STEPS = [1, 2, 3, 4]


def trained_by(count, folder, devices=1, steps=4, **mesh):
  """What is logged when processes train in FOLDER/run."""
  folder.mkdir(exist_ok=True)
  several_processes.run(count, command(folder, steps, **mesh), folder, devices)
  return logs(folder / 'run')


def command(folder, steps, **mesh):
  """What follows `python` to train in FOLDER/run."""
  flags = [
    f'--{name}={size}' for name, size in {'steps': steps, **mesh}.items()
  ]
  return [DOOR, 'train', str(folder / 'run'), *flags]


def logs(run):
  """{step: what was measured at it}."""
  return {
    row.pop('step'): {k: v for k, v in row.items() if k not in MACHINE}
    for row in read_jsonl(run / 'logs')
  }


MACHINE = ('time', 'examples_per_second')


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  """The folder of a run by this process."""
  folder = tmp_path_factory.mktemp('one')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run_folder, 'prepared_examples', None)
    one_of_several.train_tiny(folder / 'run')
  return folder


def equal(found, expected, steps=STEPS):
  """Floats sum in another order; what is drawn and counted is the same."""
  for step in steps:
    assert found[step].keys() == expected[step].keys()
    for name, value in expected[step].items():
      assert found[step][name] == pytest.approx(value, rel=1e-5, abs=1e-5), (
        step,
        name,
      )


def after_step_2(run, folder):
  """A run killed after its second step."""
  (folder / 'run' / 'checkpoints').mkdir(parents=True)
  shutil.copy(run / 'settings.json', folder / 'run')
  place = pathlib.Path('checkpoints', 'step_00000002')
  shutil.copytree(run / place, folder / 'run' / place)


def data_state(run, step):
  path = run / 'checkpoints' / f'step_{step:08d}' / 'data.json'
  return json.loads(path.read_text())


def test_two_train_as_one_and_one_goes_on(one, tmp_path, monkeypatch):
  expected = logs(one / 'run')
  two = tmp_path / 'two'
  equal(trained_by(2, two), expected)
  assert data_state(two / 'run', 2) == data_state(one / 'run', 2)
  # One process takes up what two have saved.
  after_step_2(two / 'run', tmp_path / 'again')
  monkeypatch.setattr(run_folder, 'prepared_examples', None)
  one_of_several.train_tiny(tmp_path / 'again' / 'run')
  found = logs(tmp_path / 'again' / 'run')
  assert [*found] == [3, 4]
  equal(found, expected, [3, 4])


@pytest.mark.soak
@pytest.mark.parametrize(
  ('count', 'devices', 'mesh'),
  [
    (4, 1, {}),
    (2, 2, {}),
    (2, 1, {'fsdp': 2}),
    # Both load all rows, as both devices work on all.
    (2, 1, {'model': 2}),
    (2, 2, {'model': 2}),
  ],
)
def test_any_number_trains_as_one_and_goes_on_with_it(
  one, tmp_path, count, devices, mesh
):
  expected = logs(one / 'run')
  equal(trained_by(count, tmp_path / 'all', devices, **mesh), expected)
  after_step_2(one / 'run', tmp_path / 'again')
  found = trained_by(count, tmp_path / 'again', devices, **mesh)
  assert [*found] == [3, 4]
  equal(found, expected, [3, 4])


LONG = 60


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """What two processes log that nothing interrupts."""
  return trained_by(2, tmp_path_factory.mktemp('whole'), steps=LONG)


def interrupted(folder, victim, kind):
  """Sends a signal to one of two once a few steps are saved; how both end."""
  folder.mkdir()
  started = several_processes.start(2, command(folder, LONG), folder, 1, 10)
  saved = folder / 'run' / 'checkpoints' / 'step_00000004' / 'manifest.json'
  try:
    until = time.monotonic() + 300
    while not saved.exists():
      assert time.monotonic() < until and started[victim].poll() is None
      time.sleep(0.01)
    started[victim].send_signal(kind)
    start = time.monotonic()
    statuses = [process.wait(120) for process in started]
    return statuses, time.monotonic() - start
  finally:
    for process in started:
      process.kill()
      process.wait()


@pytest.mark.soak
@pytest.mark.parametrize('victim', [0, 1])
def test_after_a_lost_worker_the_run_is_the_uninterrupted_one(
  whole, tmp_path, victim
):
  folder = tmp_path / 'run'
  statuses, seconds = interrupted(folder, victim, signal.SIGKILL)
  assert statuses[victim] == -signal.SIGKILL
  assert statuses[1 - victim] not in (0, -signal.SIGKILL)
  assert seconds < 10 + 20
  before = logs(folder / 'run')
  assert len(before) < LONG
  assert trained_by(2, folder, steps=LONG) == whole


@pytest.mark.soak
def test_sigterm_of_one_saves_the_step_of_all(whole, tmp_path):
  folder = tmp_path / 'run'
  statuses, _ = interrupted(folder, 1, signal.SIGTERM)
  assert statuses == [143, 143]
  steps = sorted(path.name for path in (folder / 'run/checkpoints').iterdir())
  assert int(steps[-1].removeprefix('step_')) == max(logs(folder / 'run'))
  assert max(logs(folder / 'run')) < LONG
  assert trained_by(2, folder, steps=LONG) == whole


@pytest.mark.soak
def test_the_door_of_two_goes_through_all_stages_to_the_index(tmp_path):
  write_collection(tmp_path / 'data')
  door = ['-m', 'gr_jax.train', *small_run.training(steps=3)]
  door += ['--gin.TrainingSettings.evaluate_every=2']
  several_processes.run(2, door, tmp_path, timeout=900)
  assert 'dev/R@10' in logs(tmp_path / 'run')[3]
  # What one process makes of the same checkpoint.
  door = ['-m', 'gr_jax.index_corpus', '--run_dir=run', '--output=one']
  several_processes.run(1, door, tmp_path, timeout=900)
  two = load_index(tmp_path / 'run' / 'index')
  one = load_index(tmp_path / 'one')
  np.testing.assert_array_equal(one.codes_NL, two.codes_NL)
  np.testing.assert_array_equal(one.vectors_ND, two.vectors_ND)
  assert [*one.document_ids] == [*two.document_ids]
  assert one.settings() == two.settings()
  assert not (tmp_path / 'run' / 'encoding').exists()
  # The same with what they find.
  found = []
  for count in (2, 1):
    door = ['-m', 'gr_jax.evaluate', '--run_dir=run', '--batch=8']
    several_processes.run(count, door, tmp_path, timeout=900)
    results = json.loads((tmp_path / 'run' / 'results.json').read_text())
    for row in results['systems']:
      del row['queries_per_second']
    found.append(results['systems'])
  assert found[0] == found[1]
  assert not (tmp_path / 'run' / 'answers').exists()
