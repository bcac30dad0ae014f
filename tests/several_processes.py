"""Starts a door as several processes on the loopback, as a cluster would."""

import os
import pathlib
import socket
import subprocess
import sys

import conftest

ROOT = pathlib.Path(__file__).parent.parent


def start(count, command, folder, devices=1, heartbeat=30):
  """Starts processes that find each other.

  Args:
    count: how many.
    command: what follows `python`; the flags of processes are added.
    folder: they work in.
    devices: of each.
    heartbeat: seconds.

  Returns:
    [subprocess.Popen], whose output goes to FOLDER/process_I.txt.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  started = []
  for index in range(count):
    flags = [
      f'--coordinator={address}',
      f'--processes={count}',
      f'--process={index}',
      f'--heartbeat_timeout={heartbeat}',
    ]
    with output(folder, index).open('wb') as file:
      started.append(
        subprocess.Popen(
          [sys.executable, *command, *(flags if count > 1 else ())],
          cwd=folder,
          stdout=file,
          stderr=subprocess.STDOUT,
          env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'JAX_NUM_CPU_DEVICES': str(devices),
            'JAX_COMPILATION_CACHE_DIR': str(conftest._CACHE),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
            'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
          },
        )
      )
  return started


def output(folder, index):
  """Where a process writes what it says."""
  return folder / f'process_{index}.txt'


def run(count, command, folder, devices=1, heartbeat=30, timeout=300):
  """Runs processes to their end; each must succeed."""
  started = start(count, command, folder, devices, heartbeat)
  try:
    for process in started:
      process.wait(timeout)
  finally:
    for process in started:
      process.kill()
      process.wait()
  for index, process in enumerate(started):
    assert process.returncode == 0, output(folder, index).read_text()
