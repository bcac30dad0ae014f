"""Processes that die while they change an index or fold its changes."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap

from test_index import save
from test_living_index import assert_is_changed

from gr_jax.index.changes import Delete
from gr_jax.index.living import LivingIndex
from gr_jax.index.reader import load_index
from gr_jax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent

SCRIPT = textwrap.dedent("""
  import pathlib, sys
  sys.path.insert(0, sys.argv[1])
  import test_living_index as t
  from gr_jax.index.living import LivingIndex
  with LivingIndex(pathlib.Path(sys.argv[2]), 16) as index:
    for turn in range(int(sys.argv[3]), 10**6):
      index.apply(t.new_documents(f'k{turn}'))
      if turn % 3 == 2:
        index.apply(t.Delete([f'k{turn - 1}']))
      print(turn, flush=True)
""")


def test_killed_at_any_moment_it_has_every_acknowledged_change(tmp_path):
  """Ten kills while changes come and versions are written."""
  path = tmp_path / 'index'
  save(path)
  rng = random.Random(0)
  first, folds = 0, set()
  for _ in range(10):
    with subprocess.Popen(
      [sys.executable, '-c', SCRIPT, pathlib.Path(__file__).parent, path,
       str(first)],
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      stdout=subprocess.PIPE,
      text=True,
    ) as process:  # fmt: skip
      # The first is acknowledged, then it may die anywhere.
      lines = [process.stdout.readline()]
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(rng.uniform(0.02, 0.4))
      process.send_signal(signal.SIGKILL)
      lines += process.stdout.read().split('\n')
    acknowledged = max(int(line) for line in lines if line.strip())
    index = load_index(path, verify=True)
    there = set(index.document_ids)
    for turn in range(acknowledged + 1):
      deleted = turn % 3 == 1 and turn < acknowledged
      assert (f'k{turn}' in there) != deleted or turn == acknowledged
    # One more may have reached the disk without a word.
    last = max(int(name[1:]) for name in there if name.startswith('k'))
    assert acknowledged <= last + 1 and last <= acknowledged + 1
    first = last + 1
    folds.add(index.directory.name)
    if (first - 1) % 3 == 2:
      with LivingIndex(path) as writer, contextlib.suppress(UserError):
        writer.apply(Delete([f'k{first - 2}']))
  assert len(folds) > 1


FOLD = textwrap.dedent("""
  import pathlib, sys
  sys.path.insert(0, sys.argv[1])
  import fatal_steps
  import test_living_index as t
  from gr_jax.index.living import LivingIndex
  with LivingIndex(pathlib.Path(sys.argv[2])) as index:
    for change in t.SOME[:3] if index.snapshot.rows_of(['d3'])[0] >= 0 else ():
      index.apply(change)
    fatal_steps.die_before(int(sys.argv[3]))
    write = t.living._write
    def slow(folded, directory):
      # What comes while a version is written.
      if index.snapshot.count == 29:
        for change in t.SOME[3:]:
          index.apply(change)
      write(folded, directory)
    t.living._write = slow
    index.fold()
""")


def test_killed_while_it_folds_it_has_every_change(tmp_path):
  """A child kills itself before each step towards the disk."""
  path = tmp_path / 'index'
  save(path)
  whole = []
  # 27 files and 2 folders are brought to the disk twice before the rename.
  for steps in (0, 1, 20, 24, 40, 54, 58, 59, 60, 61, 99):
    result = subprocess.run(
      [sys.executable, '-c', FOLD, pathlib.Path(__file__).parent, path,
       str(steps)],
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      capture_output=True,
      text=True,
      check=False,
    )  # fmt: skip
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    index = load_index(path, verify=True)
    whole.append((result.returncode, int(index.directory.name[1:])))
    assert_is_changed(index)
  assert whole[0] == (-signal.SIGKILL, 1)
  assert whole[-1][0] == 0, whole
  # Some died before the new version was the current one, some after.
  numbers = [number for _, number in whole]
  assert numbers.count(1) > 5 and numbers == sorted(numbers)
  killed = [number for code, number in whole if code]
  assert len(killed) >= 9 and max(killed) > 1
