"""From the start of a training door to the end of its first step.

python benchmarks/first_step.py --gin_file=gin/runs/quickstart.gin \
  --gin.DATA_DIR=FOLDER --output=first_step.json

The command after `python -m gr_jax.train` is given as to the door, without
RUN_DIR and CACHE_DIR: runs lie in a temporary folder, share prepared examples
and vectors, and are interrupted after a step. The first prepares and encodes;
then --starts runs find these and the compiled programs (`warm`), and as many
find no compiled program (`cold`), in turns. Clock, and the time of the door on
all processors, in seconds. `help` is `--help`.
"""

import argparse
import json
import os
import pathlib
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from balance import hardware

from gr_jax import entry
from gr_jax.types import UserError

_DOOR = [sys.executable, '-m', 'gr_jax.train']
_OFF = {'JAX_ENABLE_COMPILATION_CACHE': 'false'}


def start(
  arguments: Sequence[str], folder: pathlib.Path, name: str, kept: bool = True
) -> dict[str, float]:
  """One start; what it says is shown only where it fails.

  Args:
    arguments: of the door.
    folder: of the runs and of what they share.
    name: of the run in it.
    kept: whether compiled programs are kept and found.
  """
  run_dir = folder / name
  command = [
    *_DOOR,
    *arguments,
    f'--gin.RUN_DIR={run_dir}',
    f'--gin.CACHE_DIR={folder / "cache"}',
    '--gin.TrainingSettings.log_every=1',
  ]
  said = folder / f'{name}.txt'
  environment = os.environ | {'XDG_CACHE_HOME': str(folder / 'compiled')}
  with said.open('w') as stream:
    begin = time.perf_counter()
    door = subprocess.Popen(
      command,
      stdout=stream,
      stderr=stream,
      env=environment | ({} if kept else _OFF),
    )
    with door:
      spent = _first_step(door, run_dir / 'logs' / 'metrics.jsonl', begin)
      door.send_signal(signal.SIGINT)
  if spent is None:
    raise UserError(f'no first step: {said.read_text()[-2000:]}')
  return spent


def _first_step(door, log: pathlib.Path, begin: float):
  """Seconds until the log has a line; None where the door ended before."""
  while not (log.is_file() and log.stat().st_size):
    if door.poll() is not None:
      return None
    time.sleep(0.02)
  clock = time.perf_counter() - begin
  stat = pathlib.Path(f'/proc/{door.pid}/stat').read_text().rpartition(')')[2]
  ticks = sum(map(int, stat.split()[11:13]))
  return {'clock': clock, 'processor': ticks / os.sysconf('SC_CLK_TCK')}


def say_help() -> dict[str, float]:
  """One `--help`."""
  before, begin = os.times(), time.perf_counter()
  subprocess.run([*_DOOR, '--help'], check=True, stdout=subprocess.DEVNULL)
  clock, after = time.perf_counter() - begin, os.times()
  children = after.children_user - before.children_user
  children += after.children_system - before.children_system
  return {'clock': clock, 'processor': children}


def measure(arguments: Sequence[str], starts: int) -> dict[str, Any]:
  """Seconds of each start, and their medians."""
  found: dict[str, list] = {'help': [], 'warm': [], 'cold': []}
  with tempfile.TemporaryDirectory(prefix='gr_jax_') as name:
    folder = pathlib.Path(name)
    first = start(arguments, folder, 'first')
    for turn in range(starts):
      found['help'].append(say_help())
      found['warm'].append(start(arguments, folder, f'warm{turn}'))
      found['cold'].append(start(arguments, folder, f'cold{turn}', kept=False))
  medians = {
    kind: {
      each: statistics.median(spent[each] for spent in times)
      for each in ('clock', 'processor')
    }
    for kind, times in found.items()
  }
  return {'first': first, 'medians': medians, 'starts': found}


def main(arguments: Sequence[str]) -> int:
  """Flags to a file and lines."""
  parser = argparse.ArgumentParser(
    prog='python benchmarks/first_step.py',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument('--starts', type=int, default=3, metavar='N')
  parser.add_argument('--output', required=True, metavar='FILE')
  flags, door = parser.parse_known_args(arguments)
  if flags.starts < 1:
    raise UserError(f'--starts is too small: {flags.starts}')
  found = measure(door, flags.starts)
  for kind, spent in found['medians'].items():
    print(
      f'{kind}: {spent["clock"]:.2f} s ({spent["processor"]:.2f} s of '
      'processors)'
    )
  contents = {
    'command': 'python benchmarks/first_step.py ' + shlex.join(arguments),
    'hardware': hardware(),
    **found,
  }
  path = pathlib.Path(flags.output)
  path.write_text(json.dumps(contents, indent=1) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
