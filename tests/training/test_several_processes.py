"""Training by several real processes is the training by one."""

import json
import pathlib
import shutil

import one_of_several
import pytest
import several_processes

from gr_jax import run_folder
from gr_jax.training.logs import read_jsonl

DOOR = str(pathlib.Path(one_of_several.__file__))
STEPS = [1, 2, 3, 4]


def trained_by(count, folder, devices=1):
  """What is logged when processes train in FOLDER/run."""
  folder.mkdir(exist_ok=True)
  several_processes.run(
    count, [DOOR, 'train', str(folder / 'run')], folder, devices
  )
  return logs(folder / 'run')


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
@pytest.mark.parametrize(('count', 'devices'), [(4, 1), (2, 2), (4, 2)])
def test_more_train_as_one_and_go_on_with_it(one, tmp_path, count, devices):
  expected = logs(one / 'run')
  equal(trained_by(count, tmp_path / 'all', devices), expected)
  after_step_2(one / 'run', tmp_path / 'again')
  found = trained_by(count, tmp_path / 'again', devices)
  assert [*found] == [3, 4]
  equal(found, expected, [3, 4])
