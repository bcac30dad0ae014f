"""Ctrl-C ends training at once, with what it saved whole."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import conftest
from small_run import training
from tiny_collection import write_collection

from gr_jax.training.checkpoints import Checkpoints
from gr_jax.training.logs import read_jsonl

ROOT = pathlib.Path(__file__).parent.parent


def interrupt_after(folder, step):
  """Trains until there is a checkpoint of a step; returns what it left."""
  arguments = training(
    '--gin.TrainingSettings.checkpoint_every=5',
    '--gin.TrainingSettings.log_every=5',
    '--gin.TrainingSettings.dense_fraction=0.0',
    steps=1_000_000,
  )
  process = subprocess.Popen(
    [sys.executable, '-m', 'gr_jax.train', *arguments],
    cwd=folder,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'JAX_COMPILATION_CACHE_DIR': str(conftest._CACHE),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    },
  )
  with process:
    checkpoints = Checkpoints(folder / 'run' / 'checkpoints')
    until = time.monotonic() + 120
    while (checkpoints.latest() or 0) < step:
      assert process.poll() is None and time.monotonic() < until
      time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read()
  latest = checkpoints.latest()
  checkpoints.verify(latest)
  checkpoints.close()
  return process.returncode, errors, latest


def test_an_interrupted_run_says_so_and_goes_on(tmp_path):
  write_collection(tmp_path / 'data')
  status, errors, first = interrupt_after(tmp_path, 5)
  assert status == 130
  assert errors.splitlines()[-1] == 'interrupted'
  assert 'Traceback' not in errors
  logs = tmp_path / 'run' / 'logs'
  before = [line for line in read_jsonl(logs) if line['step'] <= first]
  # Ends past where it began, so that it did not begin anew.
  status, _, second = interrupt_after(tmp_path, first + 5)
  assert status == 130
  assert second >= first + 5
  after = read_jsonl(logs)
  assert after[: len(before)] == before
  assert [line['step'] for line in after] == list(
    range(5, 5 + 5 * len(after), 5)
  )
