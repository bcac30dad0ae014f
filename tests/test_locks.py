"""Two writers of one folder: the second is refused, the first goes on."""

import os
import signal
import subprocess
import sys

import pytest

from gr_jax import locks
from gr_jax.types import UserError


def test_a_second_process_is_told_what_the_first_does(tmp_path):
  path = tmp_path / 'new' / 'run' / '.lock'
  with locks.held(path, 'training runs/a', 'choose another RUN_DIR'):
    with (
      pytest.raises(UserError) as caught,
      locks.held(path, 'training runs/b', 'choose another RUN_DIR'),
    ):
      pass
    assert str(caught.value) == (
      'another process is training runs/a: wait for it, or choose another '
      'RUN_DIR'
    )
    assert path.exists()
  # Nothing is left, and it can be had again.
  assert not list(tmp_path.iterdir())
  with locks.held(path, '', ''):
    (path.parent / 'kept').touch()
  assert [p.name for p in path.parent.iterdir()] == ['kept']


def test_a_lock_dies_with_its_process(tmp_path):
  path = tmp_path / '.lock'
  code = (
    'import pathlib, sys\n'
    'from gr_jax import locks\n'
    'with locks.held(pathlib.Path(sys.argv[1]), "training it", "wait"):\n'
    '  print("held", flush=True)\n'
    '  sys.stdin.read()\n'
  )
  with subprocess.Popen(
    [sys.executable, '-c', code, path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
  ) as process:
    assert process.stdout.readline() == b'held\n'
    with (
      pytest.raises(UserError, match='another process is training it'),
      locks.held(path, '', ''),
    ):
      pass
    process.send_signal(signal.SIGKILL)
  assert path.exists()
  with locks.held(path, 'training', 'wait'):
    assert path.read_text() == 'training'
