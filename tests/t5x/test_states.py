"""States of ours as T5X's, with T5X in this process."""

import dataclasses
import importlib.util
import json

import flax.core
import jax
import numpy as np
import pytest
from flax import serialization, traverse_util
from jax.sharding import PartitionSpec
from test_contract import DOCUMENTS, SETTINGS

from gr_jax.t5x.contract import RetrieverModel
from gr_jax.training.initial import init_params, make_state
from gr_jax.training.optimizer import OptimizerSettings
from gr_jax.training.stages import stage_optimizers
from gr_jax.types import UserError

# A folder of that name, as this one, is found without being installed.
_SPEC = importlib.util.find_spec('t5x')
pytestmark = [
  pytest.mark.t5x,
  pytest.mark.skipif(
    _SPEC is None or _SPEC.origin is None,
    reason='t5x is not installed, see requirements/t5x.in',
  ),
  pytest.mark.filterwarnings('default'),
]


@pytest.fixture(scope='module', params=['adamw', 'adafactor', 'lion'])
def model(request):
  optimizer = OptimizerSettings(name=request.param)
  training = dataclasses.replace(SETTINGS.training, optimizer=optimizer)
  settings = dataclasses.replace(SETTINGS, training=training)
  return RetrieverModel(settings, DOCUMENTS, 'codes')


@pytest.fixture(scope='module')
def state(model):
  """A state of ours that no zero hides, and the axes of its parameters."""
  optimizer = stage_optimizers(model.settings.training)['codes']
  params, axes, usage = init_params(model.module, 0, DOCUMENTS)
  state = make_state(params, usage, optimizer, train_encoder=True)
  random = np.random.default_rng(0)
  drawn = jax.tree.map(
    lambda leaf: (9 * random.standard_normal(leaf.shape)).astype(leaf.dtype),
    state,
  )
  return drawn.replace(step=np.int32(7)), axes


def test_there_and_back_is_bit_equal(model, state, tmp_path):
  from gr_jax.t5x import states

  state, axes = state
  folder = states.write(model, state, axes, tmp_path)
  assert folder == tmp_path / 'checkpoint_7'
  place = (folder / 'dataset' / 'train_ds-000-of-001').read_text()
  assert json.loads(place) == {'next_index': 7}
  like = jax.tree.map(np.zeros_like, state)
  back = states.read(model, like, axes, tmp_path)
  assert jax.tree.structure(back) == jax.tree.structure(state)
  for one, other in zip(
    jax.tree.leaves(state), jax.tree.leaves(back), strict=True
  ):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)
  with pytest.raises(UserError, match='exists'):
    states.write(model, state, axes, tmp_path)


def test_a_checkpoint_of_another_model_is_refused(model, state, tmp_path):
  from gr_jax.t5x import states

  state, axes = state
  with pytest.raises(UserError, match='holds none'):
    states.read(model, state, axes, tmp_path)
  table = {'table': np.zeros((3, 2), np.int32)}
  other = state.replace(frozen={**state.frozen, 'identifiers': table})
  states.write(model, other, axes, tmp_path)
  with pytest.raises(UserError, match='no checkpoint of this run'):
    states.read(model, state, axes, tmp_path)


def test_state_of_the_optimizer_lies_where_its_parameters_lie(model, state):
  from t5x import partitioning, train_state

  from gr_jax.t5x.run import axis_rules

  state, axes = state
  made = train_state.FlaxOptimTrainState.create(
    model.optimizer_def,
    flax.core.freeze(
      model.variables(state.params, state.frozen, state.usage, axes)
    ),
  )
  partitioner = partitioning.PjitPartitioner(
    model_parallel_submesh=(1, 1, 1, 1), logical_axis_rules=axis_rules()
  )
  specs = partitioner.get_mesh_axes(made)
  codebooks = PartitionSpec(None, 'model', None)
  assert specs.params['indexer']['codebooks'] == codebooks
  flat = traverse_util.flatten_dict(
    serialization.to_state_dict(specs.param_states)
  )
  found = [
    spec for path, spec in flat.items() if path[-2:] == ('indexer', 'codebooks')
  ]
  assert codebooks in found
