"""A training that dies at any place comes to the same end, bit for bit."""

import random
import shutil
import signal
import time

import pytest
import several_processes
import survival
from tiny_collection import write_collection

from gr_jax.training.checkpoints import Checkpoints
from gr_jax.training.logs import read_jsonl

KILL = -signal.SIGKILL


# One criterion less, and one stage, take half of the time to compile.
SMALL = (
  '--gin.TrainingSettings.dense_fraction=0.0',
  '--gin.ObjectiveSettings.generation=0.0',
  '--gin.CodeDecoderConfig.correction=0.0',
)


@pytest.fixture(scope='module')
def here(tmp_path_factory):
  """A training that nothing happened to, in WHERE/run."""
  folder = tmp_path_factory.mktemp('survival')
  write_collection(folder / 'data')
  found, said = survival.lives(folder, ['end'], survival.arguments(*SMALL))
  assert [status for _, status, _ in found] == [0], said
  return folder


def test_killed_at_chosen_places(here):
  run = here / 'killed'
  shutil.copytree(here / 'run' / 'prepared', run / 'prepared')
  places = ['encoding', 'ctrl_c', 'stage', 'sigterm', 'unlisted_save', 'end']
  given = survival.arguments(*SMALL, run='killed')
  found, said = survival.lives(here, places, given, 'killed')
  statuses = [status for _, status, _ in found]
  assert statuses == [KILL, 130, KILL, 143, KILL, 0], said
  assert 'Traceback' not in said
  lines = said.splitlines()
  assert lines.count('interrupted') == lines.count('terminated') == 1
  survival.assert_same(survival.outcome(run), survival.outcome(here / 'run'))
  assert Checkpoints(run / 'checkpoints').steps() == [18, 24]
  assert not list(run.rglob('*tmp*')) + list(run.rglob('*.partial*'))


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize('devices', [1, 8])
def test_killed_at_random_moments(devices, tmp_path):
  """20 times or more, and ended by SIGTERM 5 times."""
  write_collection(tmp_path / 'data')
  mesh = ['--gin.MeshSettings.fsdp=2', '--gin.MeshSettings.model=2']

  def live(run, *places):
    given = survival.arguments(
      *(mesh if devices == 8 else ()), run=run, steps=800, every=10
    )
    return survival.lives(tmp_path, places, given, run, devices)

  ends, said = live('run', 'end and index')
  assert ends[0][1] == 0, said
  places = ['kill any'] * 7 + ['kill save'] * 7 + ['kill later'] * 6
  places += ['term any'] * 2 + ['term later'] * 3
  random.Random(devices).shuffle(places)
  ends, said = live('killed', *places, 'end and index')
  statuses = {'kill': KILL, 'term': 143, 'end ': 0}
  for place, status, _ in ends:
    assert status == statuses[place[:4]], (ends, said)
  assert 'Traceback' not in said
  assert not [end for end in ends if 'late' in end[2]]
  kills = [how for place, _, how in ends if place.startswith('kill')]
  assert len(kills) == 20
  assert sum('saving' in how for how in kills) >= 5, ends
  assert sum('saved' in how for how in kills) >= 5, ends
  found = survival.outcome(tmp_path / 'killed')
  assert found['identifiers']
  survival.assert_same(found, survival.outcome(tmp_path / 'run'))


@pytest.mark.soak
def test_sigterm_to_one_of_two_processes_stops_both_at_one_step(tmp_path):
  write_collection(tmp_path / 'data')
  command = ['-m', 'gr_jax.train', *survival.arguments(steps=1_000_000)]
  started = several_processes.start(2, command, tmp_path)
  checkpoints = Checkpoints(tmp_path / 'run' / 'checkpoints')
  try:
    until = time.monotonic() + 400
    while not checkpoints.latest():
      assert all(process.poll() is None for process in started)
      assert time.monotonic() < until
      time.sleep(0.02)
    # The one that writes no logs and no manifests.
    started[1].send_signal(signal.SIGTERM)
    sent = time.monotonic()
    statuses = [process.wait(120) for process in started]
    assert time.monotonic() - sent < 30
  finally:
    for process in started:
      process.kill()
      process.wait()
  said = [several_processes.output(tmp_path, i).read_text() for i in (0, 1)]
  assert statuses == [143, 143], said
  assert all(text.splitlines()[-1] == 'terminated' for text in said), said
  last = checkpoints.latest()
  checkpoints.verify(last)
  checkpoints.close()
  assert read_jsonl(tmp_path / 'run' / 'logs')[-1]['step'] == last
