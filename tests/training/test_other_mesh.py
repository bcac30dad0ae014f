"""What was saved on one mesh comes back on another, state and data."""

import jax
import numpy as np
import pytest
from prepared_by_hand import digest, write_prepared
from test_step import MODEL, SETTINGS

from gr_jax.data import loader
from gr_jax.data.prepared import PreparedData
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.training.initial import init_params, make_state
from gr_jax.training.mesh import MeshSettings, make_mesh, shardings_for
from gr_jax.training.optimizer import make_optimizer

pytestmark = pytest.mark.mesh

RATES = {'labelled': 1.0, 'spans': 2.0}
MESHES = {
  'one device': (MeshSettings(), 1),
  'data': (MeshSettings(data=8), 8),
  'fsdp': (MeshSettings(fsdp=8), 8),
  'model': (MeshSettings(data=4, model=2), 8),
  'all three': (MeshSettings(data=2, fsdp=2, model=2), 8),
}


def filled(state):
  """Every number another one, in moments and statistics as well."""
  rng = np.random.default_rng(0)
  leaves, structure = jax.tree.flatten(state)
  return structure.unflatten(
    rng.permutation(x.size * 3)[: x.size].reshape(x.shape).astype(x.dtype)
    for x in leaves
  )


@pytest.fixture(scope='module')
def drawn():
  params, axes, usage = init_params(MODEL, 0, documents=16)
  optimizer = make_optimizer(SETTINGS.optimizer, SETTINGS.steps)
  return filled(make_state(params, usage, optimizer, False)), axes


def place(name, drawn, state=None):
  """A state on a mesh by our rules."""
  settings, devices = MESHES[name]
  mesh = make_mesh(settings, jax.devices()[:devices])
  state = drawn[0] if state is None else state
  return jax.device_put(state, shardings_for(mesh, drawn[1], state))


@pytest.mark.parametrize(
  'first, other',
  [('one device', 'all three'), *[('all three', other) for other in MESHES]],
)
def test_another_mesh_has_the_same_state_and_data(
  first, other, drawn, tmp_path
):
  data = PreparedData(write_prepared(tmp_path))
  settings = loader.LoaderSettings(batch_size=16, rates=RATES)
  batches = loader.batches(data, settings)
  for _ in range(3):
    next(batches)
  writer = Checkpoints(tmp_path / 'checkpoints')
  writer.save(3, place(first, drawn), batches.get_state(), {})
  writer.close()
  expected = [digest(next(batches)) for _ in range(3)]
  reader = Checkpoints(tmp_path / 'checkpoints')
  wanted = place(other, drawn, jax.tree.map(np.zeros_like, drawn[0]))
  resumed = loader.batches(data, settings)
  state = reader.resume(wanted, resumed, {})
  reader.close()
  assert [digest(next(resumed)) for _ in range(3)] == expected
  assert jax.tree.structure(state) == jax.tree.structure(drawn[0])
  leaves = map(jax.tree.leaves, (state, wanted, drawn[0]))
  for found, placed, saved in zip(*leaves, strict=True):
    assert found.sharding.is_equivalent_to(placed.sharding, found.ndim)
    assert found.dtype == saved.dtype
    assert np.asarray(found).tobytes() == saved.tobytes()
