"""A checkpoint comes back bit for bit, or is refused by name."""

import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gr_jax.training import checkpoints as checkpoints_lib
from gr_jax.training.mesh import MeshSettings, make_mesh
from gr_jax.types import UserError

HASHES = {'vocabulary': 'a' * 64, 'settings': 'b' * 64}


@flax.struct.dataclass
class StateForTest:
  step: jax.Array
  params: dict
  frozen: dict
  opt_state: object


def make_state(seed=0, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(seed), 3)
  params = {
    'decoder': {
      'kernel': jax.random.normal(keys[0], (16, 8), dtype),
      'scale': jax.random.normal(keys[1], (8,), jnp.bfloat16),
    }
  }
  frozen = {'encoder': {'kernel': jax.random.normal(keys[2], (8, 8))}}
  optimizer = optax.adamw(1e-3)
  return StateForTest(jnp.int32(seed), params, frozen, optimizer.init(params))


def abstract(state):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    state,
  )


def assert_same_bits(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture
def open_checkpoints(tmp_path):
  opened = []

  def run(keep=2):
    checkpoints = checkpoints_lib.Checkpoints(tmp_path / 'checkpoints', keep)
    opened.append(checkpoints)
    return checkpoints

  yield run
  for checkpoints in opened:
    checkpoints.close()


@pytest.mark.parametrize('data_state', [b'\x00\xff', {'next_index': 7}])
def test_round_trip_is_bit_exact(open_checkpoints, data_state):
  state = make_state()
  writer = open_checkpoints()
  assert writer.latest() is None
  writer.save(3, state, data_state, HASHES)
  writer.wait()
  reader = open_checkpoints()
  assert reader.latest() == 3
  restored = reader.restore(3, abstract(state), HASHES)
  assert_same_bits(restored.state, state)
  assert restored.data_state == data_state


def test_parameters_without_knowing_the_state(open_checkpoints):
  state = make_state()
  writer = open_checkpoints()
  writer.save(1, state, b'', HASHES)
  writer.wait()
  params = open_checkpoints().restore_params(1)
  assert_same_bits(params, {**state.params, **state.frozen})
  leaves = jax.tree.leaves(params)
  assert all(isinstance(leaf, np.ndarray) for leaf in leaves)


@pytest.mark.mesh
def test_another_mesh_gives_the_same_bits(open_checkpoints):
  state = make_state()
  writer = open_checkpoints()
  writer.save(1, state, b'', HASHES)
  writer.wait()
  mesh = make_mesh(MeshSettings(data=2, model=4))

  def place(x):
    spec = P('model') if x.ndim == 2 else P()
    sharding = NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  wanted = jax.tree.map(place, state)
  restored = writer.restore(1, wanted, HASHES).state
  assert_same_bits(restored, state)
  kernel = restored.params['decoder']['kernel']
  assert kernel.sharding.shard_shape(kernel.shape) == (4, 8)


@pytest.mark.mesh
def test_training_goes_on_during_a_save(open_checkpoints):
  """The step donates the state: what is being saved may not change."""
  mesh = make_mesh(MeshSettings(data=4, model=2))
  sharding = NamedSharding(mesh, P('model'))
  step = jax.jit(
    lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0
  )
  start = np.arange(1 << 20, dtype=np.float32).reshape(1 << 10, -1)
  state = jax.device_put({'params': {'a': start, 'b': start}}, sharding)
  writer = open_checkpoints(keep=4)
  for saved in range(4):
    writer.save(saved, state, b'', HASHES)
    for _ in range(10):
      state = step(state)
  writer.wait()
  for saved in range(4):
    params = writer.restore_params(saved)
    for leaf in params.values():
      np.testing.assert_array_equal(leaf, start + 10 * saved)


def test_keeps_the_last_and_clears_the_unfinished(open_checkpoints):
  writer = open_checkpoints(keep=2)
  for step in (1, 2, 3):
    writer.save(step, make_state(step), b'', HASHES)
  writer.wait()
  assert writer.steps() == [2, 3]
  # As a kill between orbax's commit and our manifest leaves it.
  (writer.directory / 'step_00000003' / 'manifest.json').unlink()
  half = writer.directory / 'step_00000009' / 'state.orbax-checkpoint-tmp'
  half.mkdir(parents=True)
  again = open_checkpoints(keep=2)
  assert again.latest() == 2
  assert half.exists(), 'opening for reading must not clear anything'
  again.save(3, make_state(3), b'', HASHES)
  again.wait()
  assert not half.exists()
  assert again.steps() == [2, 3]


def test_saving_a_step_of_others_replaces_it(open_checkpoints):
  for seed in (1, 2):
    writer = open_checkpoints()
    writer.save(1, make_state(seed), b'', HASHES)
    writer.wait()
  restored = writer.restore(1, abstract(make_state()), HASHES)
  assert_same_bits(restored.state, make_state(2))


class Batches:
  """Stands where it was put."""

  def set_state(self, state):
    self.state = state


def test_a_step_that_was_saved_or_restored_is_not_written_again(
  open_checkpoints,
):
  """A kill in the middle would lose it."""
  state, batches = make_state(), Batches()
  writer = open_checkpoints()
  writer.save(1, state, b'at 1', HASHES)
  writer.wait()
  manifest = writer.directory / 'step_00000001' / 'manifest.json'
  before = manifest.stat()
  reader = open_checkpoints()
  resumed = reader.resume(state, batches, HASHES)
  assert batches.state == b'at 1'
  for checkpoints in (writer, reader):
    checkpoints.save(1, resumed, b'at 1', HASHES)
    checkpoints.wait()
  assert os.path.samestat(manifest.stat(), before)
  reader.save(2, resumed, b'at 2', HASHES)
  reader.wait()
  assert reader.steps() == [1, 2]


def files_of(checkpoints, step):
  folder = checkpoints.directory / f'step_{step:08d}'
  return sorted(p for p in folder.rglob('*') if p.is_file())


def test_every_flipped_bit_is_found(open_checkpoints):
  writer = open_checkpoints()
  for step in (1, 2):
    writer.save(step, make_state(), b'data', HASHES)
  writer.wait()
  draw = random.Random(0)
  files = [f for f in files_of(writer, 2) if f.stat().st_size]
  for trial in range(100):
    path = files[trial % len(files)]
    good = path.read_bytes()
    bad = bytearray(good)
    bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
    path.write_bytes(bad)
    with pytest.raises(UserError, match='damaged') as caught:
      writer.restore(2, abstract(make_state()), HASHES)
    assert str(path) in str(caught.value)
    assert 'to go on from step 1' in str(caught.value)
    path.write_bytes(good)
  writer.restore(2, abstract(make_state()), HASHES)


@pytest.mark.parametrize('fault', ['missing', 'truncated'])
def test_missing_and_truncated_files_are_named(open_checkpoints, fault):
  writer = open_checkpoints()
  writer.save(1, make_state(), b'data', HASHES)
  writer.wait()
  for path in files_of(writer, 1):
    if path.name == 'manifest.json':
      continue
    good = path.read_bytes()
    if fault == 'missing' or not good:
      path.unlink()
      expected = 'is missing'
    else:
      path.write_bytes(good[:-1])
      expected = f'has {len(good) - 1:,} bytes'
    pattern = re.escape(f'{path} {expected}')
    with pytest.raises(UserError, match=pattern):
      writer.restore_params(1)
    path.write_bytes(good)
  assert writer.restore_params(1)


def test_other_vocabulary_is_refused(open_checkpoints):
  writer = open_checkpoints()
  writer.save(1, make_state(), b'', HASHES)
  writer.wait()
  other = {**HASHES, 'vocabulary': 'c' * 64}
  with pytest.raises(UserError, match=r'vocabulary a{12}, .* has c{12}'):
    writer.restore(1, abstract(make_state()), other)
  fewer = {'settings': HASHES['settings']}
  with pytest.raises(UserError, match=r'vocabulary a{12}, .* has absent'):
    writer.restore(1, abstract(make_state()), fewer)


def test_other_shapes_types_and_trees_are_refused(open_checkpoints):
  writer = open_checkpoints()
  writer.save(1, make_state(), b'', HASHES)
  writer.wait()
  cast = abstract(make_state(dtype=jnp.float16))
  with pytest.raises(UserError, match=r'float32\[16, 8\], .* float16\[16, 8'):
    writer.restore(1, cast, HASHES)
  tree = abstract(make_state())
  more = tree.replace(params={**tree.params, 'head': tree.step})
  with pytest.raises(UserError, match=r'params/head as absent'):
    writer.restore(1, more, HASHES)


def test_unknown_step_names_those_there_are(open_checkpoints):
  writer = open_checkpoints()
  writer.save(5, make_state(), b'', HASHES)
  writer.wait()
  with pytest.raises(UserError, match=r'no checkpoint of step 4 .*are: 5\)'):
    writer.verify(4)


def test_refuses_to_start_without_space(open_checkpoints, monkeypatch):
  state = make_state()
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  usage = shutil.disk_usage('.')
  full = usage._replace(free=2 * size - 1)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: full)
  writer = open_checkpoints()
  with pytest.raises(UserError, match='bytes are free') as caught:
    writer.check_space(state)
  assert f'{size:,}' in str(caught.value)
  # One fits: a running training still saves.
  writer.save(1, state, b'', HASHES)
  writer.wait()


def test_relative_paths_and_files_in_the_way(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  relative = checkpoints_lib.Checkpoints('here')
  assert relative.directory == tmp_path / 'here'
  relative.close()
  pathlib.Path('file').touch()
  with pytest.raises(UserError, match='expected a folder'):
    checkpoints_lib.Checkpoints('file')


WRITER = """
import resource, signal, sys
import jax.numpy as jnp
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.types import UserError
checkpoints = Checkpoints(sys.argv[1], keep=2)
limit = int(sys.argv[2])
state = {'params': {'w': jnp.arange(1 << 18, dtype=jnp.float32) * 1.7}}
checkpoints.save(1, state, b'', {})
checkpoints.wait()
print('saved', flush=True)
if limit:
  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
  for step in range(2, 100):
    checkpoints.save(step, state, b'', {})
  checkpoints.wait()
except UserError as error:
  sys.exit(f'error: {error}')
"""


def start_writer(folder, limit=0):
  return subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(WRITER), str(folder), str(limit)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def test_a_failing_disk_is_one_line_and_keeps_the_last(tmp_path):
  process = start_writer(tmp_path / 'c', limit=1 << 16)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 1
  last = errors.strip().splitlines()[-1]
  assert last.startswith('error: could not save')
  assert 'step_00000002' in last
  assert 'bytes are free' in last
  reader = checkpoints_lib.Checkpoints(tmp_path / 'c')
  assert reader.steps() == [1]
  assert reader.restore_params(1)['w'].shape == (1 << 18,)
  reader.close()


def test_a_kill_leaves_the_last_good_step(tmp_path):
  process = start_writer(tmp_path / 'c')
  assert process.stdout.readline() == 'saved\n'
  process.send_signal(signal.SIGKILL)
  process.communicate(timeout=60)
  reader = checkpoints_lib.Checkpoints(tmp_path / 'c')
  assert reader.latest() >= 1
  expected = np.asarray(jnp.arange(1 << 18, dtype=jnp.float32) * 1.7)
  for step in reader.steps():
    found = reader.restore_params(step)['w']
    assert found.tobytes() == expected.tobytes()
  reader.close()
