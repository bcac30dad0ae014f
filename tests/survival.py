"""Trainings that are killed, go on, and are compared with one that was not."""

import os
import pathlib
import subprocess
import sys
import textwrap

import conftest
import jax
import numpy as np
from orbax import checkpoint as ocp
from small_run import training

from gr_jax.checksums import crc32c_of
from gr_jax.index import versions
from gr_jax.index.manifest import read_object
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.training.logs import read_jsonl

ROOT = pathlib.Path(__file__).parent.parent
_CLOCK = ('time', 'examples_per_second')


def arguments(*more, run='run', steps=24, every=6):
  """A frozen encoder, a log of every step; identifiers settle at half time."""
  return training(
    '--gin.TrainingSettings.settled_fraction=0.5',
    '--gin.TrainingSettings.train_encoder=False',
    '--gin.CodeDecoderConfig.attends_tokens=False',
    '--gin.TrainingSettings.log_every=1',
    f'--gin.TrainingSettings.checkpoint_every={every}',
    *more,
    run=run,
    steps=steps,
  )


def environment(devices=1):
  """What a training that is started needs, with what was compiled before."""
  return {
    **os.environ,
    'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}',
    'JAX_NUM_CPU_DEVICES': str(devices),
    'JAX_COMPILATION_CACHE_DIR': str(conftest._CACHE),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }


# Imports once, before any thread: each life is a fork.
_LIVES = textwrap.dedent("""
  import os, sys
  import deadly_places, random_moments
  from gr_jax import entry, index_corpus, train
  from gr_jax.training import checkpoints, initial, loop, stages
  places, run, arguments = sys.argv[1].split(','), sys.argv[2], sys.argv[3:]
  for place in places:
    child = os.fork()
    if not child:
      if place in deadly_places.PLACES:
        deadly_places.PLACES[place]()
      if place != 'end and index':
        # Identifiers are in the state; searches have tests of their own.
        index_corpus.index_run = lambda folder: None
      index_corpus.warm_up = lambda folder: None
      entry.run_main(lambda _: train.main(arguments))
    if place in random_moments.MOMENTS:
      status, how = random_moments.end(child, place, run)
    else:
      (_, status), how = os.waitpid(child, 0), ''
    print('life', place, os.waitstatus_to_exitcode(status), how, sep=',')
    sys.stdout.flush()
""")


def lives(folder, places, given, run='run', devices=1):
  """One training in several lives, each of which ends at its place.

  Args:
    folder: working directory.
    places: names of deadly_places.py or random_moments.py, 'end' for none,
      'end and index' to index the run besides.
    given: arguments of the training.
    run: its folder.
    devices: of it.

  Returns:
    [(place, exit status, how it stood then)] of each life, and what they all
    wrote to standard error.
  """
  process = subprocess.run(
    [sys.executable, '-c', _LIVES, ','.join(places), run, *given],
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
    env=environment(devices),
  )
  assert process.returncode == 0, process.stderr
  said = [line.split(',') for line in process.stdout.splitlines()]
  found = [line[1:] for line in said if line[0] == 'life']
  ends = [(place, int(status), how) for place, status, how in found]
  return ends, process.stderr


def outcome(run_dir):
  """All that two trainings can be compared by, as plain data.

  Args:
    run_dir: of a run that came to its end.

  Returns:
    {'logs', 'state', 'data', 'identifiers'}: per-step metrics, every array of
    the last checkpoint, where its loader stands, the hash of the table of
    identifiers where there is an index.
  """
  checkpoints = Checkpoints(run_dir / 'checkpoints')
  step = checkpoints.latest()
  checkpoints.verify(step)
  folder = checkpoints.directory / f'step_{step:08d}'
  identifiers = None
  if (run_dir / 'index').exists():
    version, _ = versions.current_version(run_dir / 'index')
    identifiers = read_object(version / 'manifest.json')['id_table_sha256']
  found = {
    'logs': [
      {k: v for k, v in line.items() if k not in _CLOCK}
      for line in read_jsonl(run_dir / 'logs')
    ],
    'state': _arrays(folder / 'state'),
    'data': [crc32c_of(path) for path in folder.glob('data*')],
    'identifiers': identifiers,
  }
  checkpoints.close()
  return found


def _arrays(path):
  """{'params/...': array} of all that a checkpoint holds."""
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
    tree = orbax.metadata(path).item_metadata.tree
    plain = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree
    )
    restored = orbax.restore(path, args=ocp.args.PyTreeRestore(None, plain))
  return {
    jax.tree_util.keystr(name, simple=True, separator='/'): np.asarray(leaf)
    for name, leaf in jax.tree_util.tree_leaves_with_path(restored)
  }


def assert_same(found, expected):
  """Bit for bit."""
  assert [line['step'] for line in found['logs']] == [
    line['step'] for line in expected['logs']
  ]
  for line, other in zip(found['logs'], expected['logs'], strict=True):
    assert line == other
  assert found['state'].keys() == expected['state'].keys()
  for name, array in expected['state'].items():
    assert found['state'][name].dtype == array.dtype, name
    assert found['state'][name].tobytes() == array.tobytes(), name
  for name in ('data', 'identifiers'):
    assert found[name] == expected[name], name
