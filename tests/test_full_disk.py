"""A disk that is really full: a line with path and bytes, nothing lost."""

import contextlib
import hashlib
import logging
import os
import pathlib
import re
import subprocess
import sys
import time

import fsspec
import jax
import numpy as np
import pytest
import survival
from tiny_collection import write_collection

from gr_jax import locks
from gr_jax.data import cloud_folders, prepared, shard_files
from gr_jax.training import failed_saves
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.types import UserError

SIZE = 4 << 20


@pytest.fixture
def mount(tmp_path):
  """Makes a folder a disk of its own, of some bytes; again to change them."""
  mounted = []

  def run(folder, size):
    folder.mkdir(exist_ok=True)
    again = ['remount,'] if folder in mounted else ['']
    options = f'{again[0]}size={size}'
    command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)]
    try:
      subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
      pytest.skip('no file system may be mounted here: needs root')
    if folder not in mounted:
      mounted.append(folder)
    return folder

  yield run
  for folder in mounted:
    subprocess.run(['umount', '--lazy', str(folder)], check=True)


def fill(folder, left):
  """Takes what is free of a disk but some bytes."""
  usage = os.statvfs(folder)
  size = usage.f_bavail * usage.f_bsize - left
  (folder / 'ballast').write_bytes(bytes(max(size, 0)))


@pytest.fixture
def disk(mount, tmp_path):
  return mount(tmp_path / 'disk', SIZE)


def random_state(seed):
  """A MiB that does not get smaller by compression."""
  rng = np.random.default_rng(seed)
  return {'params': {'w': jax.numpy.asarray(rng.random(1 << 18, np.float32))}}


def filled_after_the_check(checkpoints, disk, left):
  """As when another program takes what was free a moment before."""
  check = checkpoints._check_space

  def checked(state, copies):
    check(state, copies)
    fill(disk, left)

  checkpoints._check_space = checked


@pytest.mark.parametrize('left', [0, 1 << 16, 1 << 19])
def test_a_save_on_a_full_disk(left, disk, caplog, capfd):
  state = random_state(0)
  writer = Checkpoints(disk / 'checkpoints')
  writer.save(1, state, {'at': 1}, {})
  writer.wait()
  filled_after_the_check(writer, disk, left)
  with pytest.raises(UserError) as caught:
    writer.save(2, random_state(2), {'at': 2}, {})
    # What a training asks before each step: it needs no other save to hear.
    until = time.monotonic() + 60
    while time.monotonic() < until:
      writer.check()
      time.sleep(0.01)
  line = str(caught.value)
  assert '\n' not in line
  folder = re.escape(str(disk / 'checkpoints' / 'step_00000002'))
  assert re.match(rf'could not save {folder} \([\d,]+ bytes are free\): ', line)
  writer.close()
  # The last good step restores.
  reader = Checkpoints(disk / 'checkpoints')
  assert reader.steps() == [1]
  found = reader.restore(1, state, {}).state
  assert found['params']['w'].tobytes() == state['params']['w'].tobytes()
  # Restarts that fail as well leave one folder, not one each.
  for step in (2, 3):
    again = Checkpoints(disk / 'checkpoints')
    again._check_space = lambda state, copies: None
    with pytest.raises(UserError, match='could not save'):
      again.save(step, random_state(step), {}, {})
      again.wait()
    again.close()
    folders = sorted(p.name for p in (disk / 'checkpoints').iterdir())
    assert folders == ['step_00000001', f'step_{step:08d}']
  (disk / 'ballast').unlink()
  reader.save(4, state, {'at': 4}, {})
  reader.close()
  assert [p.name for p in sorted((disk / 'checkpoints').iterdir())] == [
    'step_00000001',
    'step_00000004',
  ]
  # orbax's own tracebacks are dropped.
  assert 'Traceback' not in capfd.readouterr().err + caplog.text


def test_other_errors_are_still_logged(caplog, capsys, monkeypatch):
  """Only orbax's go, which are raised, and what writes say to a closed loop."""
  monkeypatch.setattr(sys, 'excepthook', sys.__excepthook__)
  failed_saves.silence_orbax.__wrapped__()
  for text in ('Event loop is closed', 'another thing'):
    error = RuntimeError(text)
    sys.excepthook(RuntimeError, error, None)
  assert capsys.readouterr().err == 'RuntimeError: another thing\n'
  logger = logging.getLogger('absl')
  place = 'site-packages/orbax/checkpoint/x.py'
  for path, text in ((place, 'a wall'), ('site-packages/grain/x.py', 'a word')):
    logger.handle(
      logging.LogRecord('absl', logging.ERROR, path, 1, text, None, None)
    )
  logger.handle(
    logging.LogRecord('absl', logging.WARNING, place, 1, 'a hint', None, None)
  )
  assert 'a word' in caplog.text and 'a wall' not in caplog.text
  assert 'a hint' in caplog.text


def test_a_start_without_room_for_two_is_refused(disk):
  fill(disk, 3 << 19)
  checkpoints = Checkpoints(disk / 'checkpoints')
  with pytest.raises(UserError, match=r'a checkpoint takes 1,048,576 and 2 mu'):
    checkpoints.check_space(random_state(0))
  checkpoints.close()


def write_text(path):
  path.write_text('x' * SIZE)


def write_array(path):
  np.save(path, np.zeros(SIZE, np.uint8))


def write_examples(path):
  rng = np.random.default_rng(0)
  shard_files.write_shard(path, (rng.bytes(1 << 16) for _ in range(99)))


def write_copy(path):
  bucket = fsspec.filesystem('memory')
  content = bytes(SIZE)
  entry = {'bytes': SIZE, 'sha256': hashlib.sha256(content).hexdigest()}
  manifest = prepared.manifest_text({'files': {'file': entry}})
  bucket.pipe_file('/full/file', content)
  bucket.pipe_file(f'/full/{prepared.MANIFEST}', manifest.encode())
  cloud_folders.fetch('memory://full', path, print)


@pytest.mark.parametrize(
  'write', [write_text, write_array, write_examples, write_copy]
)
def test_whatever_is_written_under_a_lock_names_path_and_bytes(write, disk):
  fill(disk, 1 << 16)
  with (
    pytest.raises(UserError) as caught,
    locks.held(disk / '.lock', 'doing a thing', 'do another'),
  ):
    write(disk / 'file')
  assert re.fullmatch(
    rf'{disk}\S*: no space is left \([\d,]+ bytes are free\) for doing a thing:'
    ' free some, or do another; the same command goes on',
    str(caught.value),
  )
  with pytest.raises(FileNotFoundError), locks.held(disk / '.lock', '', ''):
    (disk / 'none').read_text()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_training_whose_disk_is_full_at_any_stage_goes_on(tmp_path, mount):
  """While it prepares, encodes, saves and logs; then there is room."""
  write_collection(tmp_path / 'data')
  ends, said = survival.lives(tmp_path, ['end'], survival.arguments())
  assert ends[0][1] == 0, said
  given = survival.arguments(run='full')
  run = mount(tmp_path / 'full', 1 << 16)
  lines = []
  for size in (
    300_000,
    920_000,
    *range(1_000_000, 2_000_000, 250_000),
    1 << 30,
  ):
    mount(run, size)
    ends, said = survival.lives(tmp_path, ['end'], given, 'full')
    lines.append((size, ends[0][1], said.splitlines()[-1]))
    with contextlib.suppress(FileNotFoundError):
      folders = list(pathlib.Path(run, 'checkpoints').iterdir())
      whole = [p for p in folders if (p / 'manifest.json').exists()]
      assert len(folders) - len(whole) <= 1, lines
    if ends[0][1] == 0:
      break
    assert ends[0][1] == 2 and 'Traceback' not in said, said
    assert re.match(rf'error: .*{run}.*\b[\d,]+ bytes are free', lines[-1][2])
  assert ends[0][1] == 0 and len(lines) > 4, lines
  survival.assert_same(
    survival.outcome(run), survival.outcome(tmp_path / 'run')
  )
