"""Five steps on a mesh of 8 devices are five steps on one.

In float64 to 1e-9, losses, metrics, parameters and codes: what is summed in
another order differs by 1e-15 there, so that anything else is a fault. In
float32 losses to 1e-5 and the same hard codes; AdamW divides gradients that
are zero but for rounding by their own size, which leaves single parameters
1e-4 apart.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers.neural import NeuralConfig
from gr_jax.indexers.product import ProductConfig
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.indexers.sampling import SamplingConfig
from gr_jax.indexers.static import StaticConfig
from gr_jax.indexers.upkeep import UpkeepConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.objectives.weighted_sum import ObjectiveSettings, only
from gr_jax.schedule import Schedule
from gr_jax.training.initial import init_params, make_state
from gr_jax.training.mesh import (
  MeshSettings,
  active,
  make_mesh,
  put_batch,
  shardings_for,
)
from gr_jax.training.optimizer import make_optimizer
from gr_jax.training.state import TrainingSettings
from gr_jax.training.step import make_step

STEPS, ROWS, DOCUMENTS = 5, 16, 14
ONE = MeshSettings(data=1)
MESHES = {
  'data 8': MeshSettings(data=8),
  'data 4 x model 2': MeshSettings(data=4, model=2),
  'data 2 x model 4': MeshSettings(data=2, model=4),
  'data 2 x fsdp 2 x model 2': MeshSettings(data=2, fsdp=2, model=2),
}
BALANCED = SamplingConfig(balance='sinkhorn', noise='uncertainty')
INDEXERS = {
  'residual': ResidualConfig(positions=2, codes=4),
  'conditioned, Sinkhorn': ResidualConfig(
    positions=2, codes=4, conditioned=True, sampling=BALANCED
  ),
  'product': ProductConfig(positions=2, codes=4, tied=False),
  'neural': NeuralConfig(positions=2, codes=4, hidden=8),
  'rotation, frequency': ResidualConfig(
    positions=2,
    codes=(4, 3),
    sampling=SamplingConfig(gradient='rotation', noise='frequency'),
  ),
  'static': StaticConfig('random', positions=2, codes=4),
}
CRITERIA = [
  field.name
  for field in dataclasses.fields(ObjectiveSettings)
  if field.name != 'temperature'
]
EVERYTHING = ObjectiveSettings(**dict.fromkeys(CRITERIA, 0.5))
# What the kinds of indexers differ in; the other criteria are the same code.
FEW = only(ObjectiveSettings(), 'generation', 'quantised', 'commitment')


@dataclasses.dataclass(frozen=True)
class Case:
  """What is trained.

  Attributes:
    indexer: name in INDEXERS.
    objective: criteria.
    everything: whether all that is off by default is on.
    encodes: whether a text encoder trains too.
    layers: of encoder and decoder.
    accumulate: microbatches.
  """

  indexer: str
  objective: ObjectiveSettings = FEW
  everything: bool = False
  encodes: bool = False
  layers: int = 0
  accumulate: int = 1

  def model(self, dtype):
    """The Retriever that computes in this type."""
    sizes = T5Config(
      vocab_size=32,
      emb_dim=8,
      num_heads=4,
      head_dim=2,
      num_encoder_layers=self.layers,
      num_decoder_layers=self.layers,
      mlp_dim=8,
      dtype=dtype,
    )
    config = RetrieverConfig(
      encoder=sizes,
      indexer=INDEXERS[self.indexer],
      decoder=CodeDecoderConfig(stack=sizes, attends_tokens=self.encodes),
      width=8,
      indexer_gradient=0.5,
      # All identifiers that were drawn.
      queue=STEPS * ROWS,
    )
    if self.everything:
      config = dataclasses.replace(
        config,
        reads_queries=True,
        reconstructs=True,
        upkeep=UpkeepConfig(average=0.9, reseed_every=2, dead=0.5),
      )
    return Retriever(config)

  def batch(self, dtype):
    """A numpy batch; some documents stand in it twice."""
    rng = np.random.default_rng(0)
    rows = {'document_index': np.arange(ROWS, dtype=np.int32) % DOCUMENTS}
    if self.encodes:
      tokens = rng.integers(1, 32, (ROWS, 6)).astype(np.int32)
      tokens[::3, 4:] = 0
      rows |= {'query_tokens': tokens[:, :4], 'document_tokens': tokens}
    else:
      vectors = rng.normal(size=(ROWS, 8)).astype(dtype)
      near = vectors + 0.1 * rng.normal(size=(ROWS, 8)).astype(dtype)
      rows |= {'query_vectors': near, 'document_vectors': vectors}
    if self.everything:
      others = rng.integers(0, DOCUMENTS, (ROWS, 2)).astype(np.int32)
      rows['negative_index'] = others
      if self.encodes:
        rows['negative_tokens'] = rows['document_tokens'][others]
      else:
        rows['negative_vectors'] = rows['document_vectors'][others]
    return rows


@functools.cache
def drawn(case):
  """Parameters with tables that say something, their axes, and the usage."""
  params, axes, usage = init_params(case.model('float32'), 0, DOCUMENTS)
  rng = np.random.default_rng(1)
  table = rng.integers(0, 3, params['identifiers']['table'].shape)
  params['identifiers'] = {'table': table.astype(np.int32)}
  if 'query_means' in params:
    means = rng.normal(size=params['query_means']['table'].shape)
    params['query_means'] = {'table': means.astype(np.float16)}
  return jax.device_get(params), axes, jax.device_get(usage)


def cast(tree, dtype):
  """The tree with this type in place of float32."""
  return jax.tree.map(
    lambda x: x.astype(dtype) if x.dtype == np.float32 else x, tree
  )


def start(case, mesh, dtype):
  """The jitted step, and the first state and batch on the mesh."""
  model = case.model(dtype)
  training = TrainingSettings(
    steps=50,
    noise=Schedule(0.1, kind='constant'),
    train_encoder=case.encodes,
    accumulate=case.accumulate,
  )
  optimizer = make_optimizer(training.optimizer, training.steps)
  params, axes, usage = drawn(case)
  state = make_state(
    cast(params, dtype), cast(usage, dtype), optimizer, case.encodes
  )
  step = make_step(
    model,
    optimizer=optimizer,
    settings=training,
    objective_settings=case.objective,
    upkeep=model.config.upkeep,
    seed=0,
  )
  state = jax.device_put(state, shardings_for(mesh, axes, state))
  return step, state, put_batch(mesh, case.batch(dtype))


def train(case, mesh_settings, dtype):
  """Trains for some steps.

  Args:
    case: what.
    mesh_settings: on which devices.
    dtype: 'float64' or 'float32'.

  Returns:
    The metrics of each step, the state after the last, and the compiled step.
  """
  drawn(case)  # In float32 and on one device, whatever is trained.
  devices = jax.devices()[: 1 if mesh_settings == ONE else 8]
  with (
    jax.enable_x64(dtype == 'float64'),
    active(make_mesh(mesh_settings, devices)) as mesh,
  ):
    step, state, batch = start(case, mesh, dtype)
    step = step.lower(state, batch).compile()
    metrics = []
    for _ in range(STEPS):
      state, measured = step(state, batch)
      metrics.append({n: float(v[0]) for n, v in measured.items()})
    return metrics, state, step


@functools.cache
def on_one_device(case, dtype):
  """The same on one device."""
  return train(case, ONE, dtype)


def assert_alike(one, spread, rtol, names=None):
  """Metrics of each step agree.

  All but one: documents that share an identifier have one score, and rounding
  says which of them counts as first.
  """
  for ours, theirs in zip(one, spread, strict=True):
    assert ours.keys() == theirs.keys()
    for name in {*(names or ours)} - {'quantised_accuracy'}:
      np.testing.assert_allclose(
        theirs[name], ours[name], rtol=rtol, atol=1e-12, err_msg=name
      )


def assert_same_in_float64(case, mesh_settings):
  """Trains on one device and on a mesh; returns the latter's compiled step."""
  one, state, _ = on_one_device(case, 'float64')
  spread, state_8, step = train(case, mesh_settings, 'float64')
  assert one[-1]['loss'] != one[1]['loss']
  assert_alike(one, spread, 1e-9)
  jax.tree_util.tree_map_with_path(
    lambda path, ours, theirs: np.testing.assert_allclose(
      theirs, ours, rtol=0, atol=1e-9, err_msg=jax.tree_util.keystr(path)
    ),
    jax.device_get((state.params, state.usage)),
    jax.device_get((state_8.params, state_8.usage)),
  )
  floats = {
    str(x.dtype)
    for x in jax.tree.leaves((state_8.params, state_8.opt_state))
    if jnp.issubdtype(x.dtype, jnp.floating)
  }
  assert floats == {'float64'}
  return state_8, step


@pytest.mark.mesh
def test_everything_is_the_same_on_data_fsdp_and_model():
  """All criteria, Sinkhorn, upkeep, queue, negatives, microbatches."""
  case = Case(
    'conditioned, Sinkhorn',
    EVERYTHING,
    everything=True,
    accumulate=2,
  )
  mesh_settings = MESHES['data 2 x fsdp 2 x model 2']
  state, step = assert_same_in_float64(case, mesh_settings)
  # The update keeps each array where it lies.
  (inputs, batch), _ = step.input_shardings
  outputs, _ = step.output_shardings
  for leaf, given, returned in zip(
    *map(jax.tree.leaves, (state, inputs, outputs)), strict=True
  ):
    assert returned.is_equivalent_to(given, leaf.ndim)
  for name, sharding in batch.items():
    shape = case.batch('float64')[name].shape
    assert sharding.shard_shape(shape)[0] == ROWS // 4, name
  # Rows of query means are looked up in parts, and the table never gathered.
  program = step.as_text()
  assert f'f16[{DOCUMENTS},2]' in program
  assert f'f16[{DOCUMENTS},8]' not in program
  assert whole_on_each_device(state.params) == {
    'decoder/log_sharpness',
    'learned_noise/scale',
  }
  assert whole_on_each_device(state.opt_state[1][0].mu) == {
    'decoder/log_sharpness',
    'learned_noise/scale',
  }


@pytest.mark.mesh
def test_the_second_step_is_not_compiled_anew():
  """What a step returns lies as what it was given, so that jit knows it."""
  compiled = []
  listen = jax.monitoring.register_event_duration_secs_listener
  listen(lambda event, *_, **__: compiled.append(event))
  case = Case('residual', only(FEW, 'commitment'), everything=True)
  drawn(case)
  with active(make_mesh(MESHES['data 2 x fsdp 2 x model 2'])) as mesh:
    step, state, batch = start(case, mesh, 'float32')
    state, _ = step(state, batch)
    first = sum('backend_compile' in event for event in compiled)
    for _ in range(2):
      state, _ = step(state, batch)
  assert first
  assert sum('backend_compile' in event for event in compiled) == first


def whole_on_each_device(tree):
  """Names of the arrays of which every device has all."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if leaf.sharding.is_fully_replicated
  }


@pytest.mark.soak
@pytest.mark.parametrize('mesh', MESHES)
@pytest.mark.parametrize('indexer', INDEXERS)
def test_every_kind_is_the_same_on_every_mesh(indexer, mesh):
  case = Case(indexer, ObjectiveSettings(), layers=1)
  assert_same_in_float64(case, MESHES[mesh])
  assert_alike_in_float32(case, MESHES[mesh])


@pytest.mark.soak
@pytest.mark.parametrize('mesh', MESHES)
def test_a_text_encoder_is_the_same_on_every_mesh(mesh):
  case = Case('residual', EVERYTHING, everything=True, encodes=True, layers=1)
  assert_same_in_float64(case, MESHES[mesh])
  assert_alike_in_float32(case, MESHES[mesh])


def assert_alike_in_float32(case, mesh_settings):
  """Losses to 1e-5 and the same identifiers, drawn in all of the steps."""
  one, state, _ = on_one_device(case, 'float32')
  spread, state_8, _ = train(case, mesh_settings, 'float32')
  assert_alike(one, spread, 1e-5, ['loss'])
  np.testing.assert_array_equal(
    state.usage['usage']['codes'], state_8.usage['usage']['codes']
  )


@pytest.mark.mesh
def test_losses_and_codes_are_the_same_in_float32():
  case = Case('residual', ObjectiveSettings(), layers=1)
  assert_alike_in_float32(case, MESHES['data 2 x fsdp 2 x model 2'])
