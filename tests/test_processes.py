"""Real processes on the loopback: what they share, and when one is lost."""

import argparse
import errno
import json
import pathlib
import signal
import time

import numpy as np
import one_of_several
import pytest
import several_processes

from gr_jax import processes
from gr_jax.evaluation import protocol
from gr_jax.retrieval.shards import join
from gr_jax.types import UserError

DOOR = str(pathlib.Path(one_of_several.__file__))


def flags_of(*arguments):
  parser = argparse.ArgumentParser()
  processes.add_flags(parser)
  return parser.parse_args(arguments)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--coordinator=a:1'], 'give all three'),
    (['--coordinator=a', '--processes=2', '--process=0'], 'is HOST:PORT'),
    (['--coordinator=a:1', '--processes=2', '--process=2'], 'from 0 to 1'),
    (['--distributed'], 'found only --coordinator=None'),
    (['--coordinator_bind=a'], 'needs --coordinator or --distributed'),
  ],
)
def test_flags_that_do_not_fit_are_refused(arguments, message):
  with pytest.raises(UserError, match=message):  # noqa: SIM117
    with processes.joined(flags_of(*arguments)):
      pytest.fail('it started')


def test_the_coordinator_listens_where_it_is_told_alone():
  assert processes._bind('10.0.0.1:80', '80') == '10.0.0.1:80'
  assert processes._bind('10.0.0.1', '80') == '10.0.0.1:80'
  assert processes._bind('[::1]', '80') == '[::1]:80'
  assert processes._bind('[::1]:81', '80') == '[::1]:81'


def test_one_process_needs_nobody():
  with processes.joined(flags_of()):
    assert not processes.several()
  assert processes.first(lambda: [1, 'two']) == [1, 'two']
  processes.meet()
  processes.agree('a', 'word')


@pytest.mark.parametrize(
  ('error', 'kind'),
  [
    (UserError('no such file'), UserError),
    (PermissionError(errno.EACCES, 'Permission denied'), UserError),
    (OSError(errno.EIO, 'Input/output error'), processes.LostProcess),
    (KeyboardInterrupt(), processes.LostProcess),
  ],
)
def test_only_what_process_0_refuses_is_refused(error, kind, monkeypatch):
  """Launchers give up what is refused, and start again what is lost."""
  store, number = {}, 0
  monkeypatch.setattr(processes, 'several', lambda: True)
  monkeypatch.setattr(processes, 'index', lambda: number)
  monkeypatch.setattr(processes, '_occasion', lambda: 'it')
  monkeypatch.setattr(
    processes, '_publish', lambda name, x: store.update({name: json.dumps(x)})
  )
  monkeypatch.setattr(processes, '_read', store.get)
  monkeypatch.setattr(processes, '_part', lambda name: None)

  def fail():
    raise error

  with pytest.raises(type(error)):
    processes.first(fail)
  number = 1
  with pytest.raises(UserError, match='process 0: ') as caught:
    processes.first(fail)
  assert type(caught.value) is kind


def test_two_share_their_work_and_their_errors(tmp_path):
  started = several_processes.start(
    2, [DOOR, 'work', str(tmp_path)], tmp_path, heartbeat=20
  )
  statuses = [process.wait(120) for process in started]
  said = [several_processes.output(tmp_path, i).read_text() for i in (0, 1)]
  assert statuses == [2, 2], said
  lines = [text.splitlines() for text in said]
  assert lines[0][-1] == 'error: the disk is full'
  assert lines[1][-1] == 'error: process 0: the disk is full'
  assert '7 shards' in lines[0] and '7 shards' not in lines[1]
  # Every text was read once, by either of them.
  read = [
    {*map(int, (tmp_path / f'read_{i}').read_text().split())} for i in (0, 1)
  ]
  assert not read[0] & read[1] and min(map(len, read)) > 0
  assert read[0] | read[1] == {*range(50)}
  # What one process encodes alone is the same, to the last bit.
  paths, _ = one_of_several.encode_texts(tmp_path / 'alone')
  join(paths, 50, tmp_path / 'alone.npy')
  np.testing.assert_array_equal(
    np.load(tmp_path / 'vectors.npy'), np.load(tmp_path / 'alone.npy')
  )

  # So is what they index, and what a document could be given.
  read = [
    {*map(int, (tmp_path / f'indexed_{i}').read_text().split())} for i in (0, 1)
  ]
  shards = [{*range(start, start + 4)} for start in range(0, 16, 4)]
  assert read[0] == shards[0] | shards[2] and read[1] == shards[1] | shards[3]
  paths, _, candidates = one_of_several.indexed(tmp_path / 'one')
  join(paths, one_of_several.DOCUMENTS, tmp_path / 'one.npy')
  found = np.load(tmp_path / 'index.npy')
  assert found['codes'].any()
  np.testing.assert_array_equal(found, np.load(tmp_path / 'one.npy'))
  for index in (0, 1):
    found = np.load(tmp_path / f'candidates_{index}.npz')
    np.testing.assert_array_equal(found['codes'], candidates['codes'])
    np.testing.assert_allclose(found['costs'], candidates['costs'], rtol=1e-5)

  # And queries: four, four and two, each process with its own to warm up.
  asked = [(tmp_path / f'asked_{i}').read_text().split() for i in (0, 1)]
  queries = one_of_several.QUERIES
  assert asked[0][4:] == [*queries[:4], *queries[8:], *queries[9:] * 2]
  assert asked[1][4:] == queries[4:8]
  expected, _ = protocol.ask(one_of_several.Lengths(), queries, 3, 4)
  for index in (0, 1):
    found = np.load(tmp_path / f'answers_{index}.npz')
    for name, rows in vars(expected).items():
      np.testing.assert_array_equal(found[name], rows)


def ended_by(folder, victim, kind, heartbeat=10):
  """How a process ends when the other is lost: status, seconds, last lines."""
  started = several_processes.start(
    2, [DOOR, 'wait', str(folder)], folder, heartbeat=heartbeat
  )
  survivor = 1 - victim
  try:
    until = time.monotonic() + 120
    while not all((folder / f'alive_{i}').exists() for i in (0, 1)):
      assert time.monotonic() < until and started[survivor].poll() is None
      time.sleep(0.05)
    started[victim].send_signal(kind)
    start = time.monotonic()
    # Longer than is allowed: what the test says then is how long it took.
    status = started[survivor].wait(heartbeat + 60)
    seconds = time.monotonic() - start
  finally:
    for process in started:
      process.kill()
      process.wait()
  lines = several_processes.output(folder, survivor).read_text().splitlines()
  return status, seconds, lines


def test_who_loses_another_ends_with_a_line(tmp_path):
  status, _, lines = ended_by(tmp_path, 1, signal.SIGKILL)
  assert status == processes.LostProcess.status
  assert lines[-1].startswith('error: another process failed or was lost')
  assert 'Traceback' not in '\n'.join(lines)


@pytest.mark.soak
@pytest.mark.parametrize('victim', [0, 1])
@pytest.mark.parametrize('kind', [signal.SIGKILL, signal.SIGSTOP])
def test_nobody_waits_for_the_lost(tmp_path, victim, kind):
  status, seconds, _ = ended_by(tmp_path, victim, kind)
  assert status != 0
  assert seconds < 10 + 20
