"""A step on a mesh of 8 devices is the step on one."""

import dataclasses

import jax
import numpy as np
import pytest
from test_step import MODEL, SETTINGS, batch

from gr_jax.objectives.weighted_sum import ObjectiveSettings
from gr_jax.training.initial import init_params, make_state
from gr_jax.training.mesh import (
  MeshSettings,
  active,
  make_mesh,
  put_batch,
  shardings_for,
)
from gr_jax.training.optimizer import make_optimizer
from gr_jax.training.step import make_step

pytestmark = pytest.mark.mesh


def run(mesh_settings, devices, accumulate):
  """Losses of three steps, the codes after them, and the last state."""
  settings = dataclasses.replace(SETTINGS, accumulate=accumulate)
  optimizer = make_optimizer(settings.optimizer, settings.steps)
  with active(make_mesh(mesh_settings, jax.devices()[:devices])) as mesh:
    params, axes, usage = init_params(MODEL, 0, documents=16)
    state = make_state(params, usage, optimizer, train_encoder=False)
    state = jax.device_put(state, shardings_for(mesh, axes, state))
    step = make_step(
      MODEL,
      optimizer=optimizer,
      settings=settings,
      objective_settings=ObjectiveSettings(),
      upkeep=None,
      seed=0,
    )
    rows = {name: np.asarray(array) for name, array in batch(16).items()}
    losses = []
    for _ in range(3):
      state, metrics = step(state, put_batch(mesh, rows))
      losses.append(float(metrics['loss'][0]))
    codes = MODEL.apply(
      {'params': jax.device_get(state.all_params())},
      rows['document_vectors'],
      rows['document_index'],
      method='assign',
    )
  return losses, np.asarray(codes), state


@pytest.mark.parametrize(
  'mesh_settings, accumulate',
  [
    (MeshSettings(data=8), 1),
    (MeshSettings(data=2, fsdp=2, model=2), 1),
    (MeshSettings(data=2, fsdp=2, model=2), 2),
  ],
  ids=['data', 'all three', 'all three, microbatches'],
)
def test_losses_and_codes_do_not_depend_on_the_mesh(mesh_settings, accumulate):
  losses, codes, _ = run(MeshSettings(), 1, accumulate)
  spread, spread_codes, state = run(mesh_settings, 8, accumulate)
  np.testing.assert_allclose(losses, spread, rtol=2e-4)
  np.testing.assert_array_equal(codes, spread_codes)
  # The update keeps the state where it lies.
  codebooks = state.params['indexer']['codebooks']
  parts = mesh_settings.fsdp, mesh_settings.model
  assert codebooks.sharding.shard_shape(codebooks.shape) == (
    2,
    4 // parts[1],
    8 // parts[0],
  )
