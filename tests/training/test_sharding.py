"""Nothing of a model is replicated without a word: names, arrays, programs."""

import ast
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import partitioning
from jax.sharding import PartitionSpec as P

from gr_jax import parameters
from gr_jax.indexers.neural import NeuralConfig
from gr_jax.indexers.product import ProductConfig
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.indexers.sampling import SamplingConfig
from gr_jax.indexers.static import StaticConfig
from gr_jax.indexers.upkeep import UpkeepConfig
from gr_jax.models.bert import BertConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.training import initial
from gr_jax.training.mesh import (
  RULES,
  MeshSettings,
  active,
  check_axis_names,
  make_mesh,
  put_batch,
  shardings_for,
)
from gr_jax.training.optimizer import OptimizerSettings, make_optimizer
from gr_jax.training.state import TrainingSettings

ROOT = pathlib.Path(parameters.__file__).parent
T5 = T5Config(
  vocab_size=32,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  num_encoder_layers=1,
  num_decoder_layers=1,
  mlp_dim=16,
)
BERT = BertConfig(
  vocab_size=32, emb_dim=8, num_heads=2, num_layers=1, mlp_dim=16, max_length=16
)
CONFIG = RetrieverConfig(
  encoder=T5,
  indexer=ResidualConfig(positions=2, codes=4),
  decoder=CodeDecoderConfig(stack=T5, attends_tokens=True),
  width=8,
  reads_queries=True,
  reconstructs=True,
  upkeep=UpkeepConfig(average=0.9, reseed_every=2),
)
KINDS = {
  'residual': CONFIG,
  'conditioned': dataclasses.replace(
    CONFIG,
    indexer=ResidualConfig(
      positions=2,
      codes=4,
      conditioned=True,
      sampling=SamplingConfig(noise='uncertainty'),
    ),
  ),
  'product': dataclasses.replace(
    CONFIG, indexer=ProductConfig(positions=2, codes=4, tied=False)
  ),
  'neural': dataclasses.replace(
    CONFIG, indexer=NeuralConfig(positions=2, codes=4, hidden=8)
  ),
  'static, untied, BERT': dataclasses.replace(
    CONFIG,
    encoder=BERT,
    indexer=StaticConfig('random', positions=2, codes=4),
    decoder=CodeDecoderConfig(stack=T5, tied=False),
    reads_queries=False,
    upkeep=UpkeepConfig(),
  ),
}
# No other axis is as long, so that a shape tells where the batch is.
ROWS, PARTS = 24, 4


def tokens():
  rng = np.random.default_rng(0)
  return {
    'query_tokens': rng.integers(1, 32, (ROWS, 5)).astype(np.int32),
    'document_tokens': rng.integers(1, 32, (ROWS, 6)).astype(np.int32),
    'document_index': np.arange(ROWS, dtype=np.int32),
    'negative_tokens': rng.integers(1, 32, (ROWS, 1, 6)).astype(np.int32),
    'negative_index': np.arange(ROWS, dtype=np.int32)[:, None],
  }


@pytest.fixture
def mesh():
  return make_mesh(MeshSettings(data=2, fsdp=2, model=2))


def outputs_of(model, params, usage, batch):
  """What a training batch gives, with the output of every module."""
  return model.apply(
    {'params': params, 'usage': usage},
    batch,
    temperature=1.0,
    noise=0.1,
    deterministic=False,
    rngs={'dropout': jax.random.key(0)},
    capture_intermediates=True,
    mutable=['intermediates', 'usage'],
  )


@pytest.mark.mesh
@pytest.mark.parametrize('kind', KINDS)
def test_every_axis_name_has_a_rule(kind, monkeypatch):
  """Of parameters and activations, as the modules name them when they run."""
  named = set()

  def recorded(array, axes):
    assert len(axes) == array.ndim
    named.update(axes)
    return array

  monkeypatch.setattr(partitioning, 'with_sharding_constraint', recorded)
  model = Retriever(KINDS[kind])
  _, axes, _ = jax.eval_shape(lambda: initial.init_params(model, 0, ROWS))
  check_axis_names(axes)
  assert {'batch', 'code_positions', 'codes', 'width'} <= named
  assert named - {None} <= {name for name, _ in RULES}


@pytest.mark.mesh
def test_no_axis_name_in_the_code_is_unknown():
  """Those too that stand where no default run comes by."""
  known, calls = {name for name, _ in RULES}, 0
  for path in sorted((ROOT).rglob('*.py')):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if not isinstance(node, ast.Call):
        continue
      name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
      if name != 'constrain':
        continue
      calls += 1
      for argument in node.args[1:]:
        if isinstance(argument, ast.Constant) and argument.value is not None:
          assert argument.value in known, (path, argument.value)
  assert calls >= 10


@pytest.mark.mesh
def test_a_bfloat16_model_hands_float32_to_the_criteria():
  low = dataclasses.replace(T5, dtype='bfloat16')
  config = dataclasses.replace(
    CONFIG,
    encoder=low,
    decoder=CodeDecoderConfig(stack=low, attends_tokens=True),
  )
  model = Retriever(config)
  params, usage = jax.eval_shape(
    lambda: initial.init_params(model, 0, ROWS)[::2]
  )
  outputs, _ = jax.eval_shape(
    lambda p, u: outputs_of(model, p, u, tokens()), params, usage
  )
  floats = {
    leaf.dtype
    for leaf in jax.tree.leaves(outputs)
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  }
  assert floats == {jnp.dtype('float32')}


@pytest.mark.parametrize(
  'kind',
  [
    pytest.param('residual', marks=pytest.mark.mesh),
    pytest.param('static, untied, BERT', marks=pytest.mark.soak),
  ],
)
def test_every_activation_is_spread_over_the_batch(kind, mesh):
  """Outputs of all modules, as the compiled program lays them."""
  model = Retriever(KINDS[kind])
  with active(mesh):
    params, _, usage = initial.init_params(model, 0, ROWS, mesh)
    batch = put_batch(mesh, tokens())
    call = jax.jit(lambda p, u, b: outputs_of(model, p, u, b))
    lowered = call.lower(params, usage, batch)
    spread = lowered.compile().output_shardings
  seen = {'batch': 0, 'heads': 0, 'mlp': 0}
  for (path, leaf), sharding in zip(
    jax.tree_util.tree_leaves_with_path(lowered.out_info),
    jax.tree.leaves(spread),
    strict=True,
  ):
    name, part = jax.tree_util.keystr(path), sharding.shard_shape(leaf.shape)
    if 'usage' in name:
      continue  # The step keeps it whole.
    if leaf.shape[:1] != (ROWS,):
      # What all rows have in common.
      shared = ('queue', 'relpos_bias', 'position_embedder', 'type_embedder')
      assert any(part in name for part in shared), name
      continue
    assert part[0] == ROWS // PARTS, (name, leaf.shape, part)
    seen['batch'] += 1
    for kind_of, marks in (('heads', 'attention'), ('mlp', 'mlp')):
      if marks in name and ('query' in name or 'wi' in name):
        assert part[-1] == leaf.shape[-1] // 2, (name, leaf.shape, part)
        seen[kind_of] += 1
  assert seen['batch'] > 40 and seen['heads'] and seen['mlp'], seen


@pytest.mark.parametrize(
  'name',
  [
    pytest.param('adamw', marks=pytest.mark.mesh),
    pytest.param('adafactor', marks=pytest.mark.soak),
  ],
)
def test_a_state_is_made_where_it_belongs(name, mesh):
  """The same numbers as on one device, and never more than a part of them."""
  model = Retriever(CONFIG)
  optimizer = make_optimizer(OptimizerSettings(name=name), 10)
  settings = dataclasses.make_dataclass(
    'Settings',
    ['seed', 'model', 'encoder_weights', 'trained_run', 'training'],
  )(0, CONFIG, '', '', TrainingSettings(train_encoder=True))
  one, _, _ = initial.first_state(settings, model, ROWS, optimizer)
  with active(mesh):
    state, _, _ = initial.first_state(settings, model, ROWS, optimizer, mesh)
  jax.tree_util.tree_map_with_path(
    lambda path, a, b: np.testing.assert_allclose(
      a, b, rtol=1e-6, err_msg=jax.tree_util.keystr(path)
    ),
    jax.device_get(one),
    jax.device_get(state),
  )
  specs = {
    'encoder/token_embedder/embedding': P('model', 'fsdp'),
    'encoder/encoder/layers_0/mlp/wi_0/kernel': P('fsdp', 'model'),
    'encoder/encoder/layers_0/attention/out/kernel': P('model', 'fsdp'),
    'indexer/codebooks': P(None, 'model', 'fsdp'),
    'projection/kernel': P('fsdp', None),
    'decoder/log_sharpness': P(None),
  }
  for path, spec in specs.items():
    assert leaf_at(state.params, path).sharding.spec == spec, path
    if name == 'adamw':
      moments = state.opt_state[1][0]
      for tree in (moments.mu, moments.nu):
        assert leaf_at(tree, path).sharding.spec == spec, path
  means = state.frozen['query_means']['table']
  assert means.sharding.spec == P(None, ('data', 'fsdp'))
  assert all(len(x.sharding.device_set) == 8 for x in jax.tree.leaves(state))


def leaf_at(tree, path):
  for key in path.split('/'):
    tree = tree[key]
  return tree


@pytest.mark.mesh
def test_on_one_device_the_draws_are_those_of_init():
  model = Retriever(CONFIG)
  params, _, _ = initial.init_params(model, 3, ROWS)
  keys = jax.random.split(jax.random.key(3))
  pair = jnp.ones((2, 2), jnp.int32)
  drawn = jax.jit(
    lambda: model.init(
      {'params': keys[0], 'dropout': keys[1]},
      {
        'query_tokens': pair,
        'document_tokens': pair,
        'document_index': jnp.arange(2),
      },
      temperature=1.0,
      noise=0.0,
      deterministic=True,
    )['params']
  )()
  for name in ('identifiers', 'query_means'):
    assert len(params[name]['table']) == ROWS
    drawn[name] = {'table': jnp.repeat(drawn[name]['table'], ROWS, axis=0)}
  jax.tree.map(np.testing.assert_array_equal, params, drawn)


@pytest.mark.mesh
def test_imported_weights_are_put_leaf_by_leaf(mesh, monkeypatch):
  model = Retriever(CONFIG)
  rng = np.random.default_rng(0)

  def imported(params, config, source):
    weights = jax.tree.map(
      lambda x: rng.normal(size=x.shape).astype(x.dtype), params['encoder']
    )
    return {**params, 'encoder': weights}, 'sha'

  monkeypatch.setattr(initial, 'import_params', imported)
  settings = dataclasses.make_dataclass(
    'Settings',
    ['seed', 'model', 'encoder_weights', 'trained_run', 'training'],
  )(0, CONFIG, 'x', '', TrainingSettings())
  optimizer = make_optimizer(OptimizerSettings(), 10)
  with active(mesh):
    state, _, _ = initial.first_state(settings, model, ROWS, optimizer, mesh)
  table = state.frozen['encoder']['token_embedder']['embedding']
  assert table.sharding.spec == P('model', 'fsdp')
  assert table.addressable_shards[0].data.shape == (16, 4)
  assert np.std(table) > 0.5


@pytest.mark.mesh
def test_what_is_imported_is_not_drawn_and_changes_no_other_draw():
  model = Retriever(CONFIG)
  all_drawn, _, _ = initial.init_params(model, 3, ROWS)
  params, _, _ = initial.init_params(model, 3, ROWS, imported=('encoder',))
  awaited, drawn = params.pop('encoder'), all_drawn.pop('encoder')
  for leaf, expected in zip(
    *map(jax.tree.leaves, (awaited, drawn)), strict=True
  ):
    assert isinstance(leaf, jax.ShapeDtypeStruct)
    assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)
  jax.tree.map(np.testing.assert_array_equal, params, all_drawn)


@pytest.mark.mesh
@pytest.mark.parametrize('width, part', [(12, 3), (10, 10)])
def test_query_means_of_any_width_find_a_place(width, part, mesh):
  config = dataclasses.replace(CONFIG, width=width)
  params, axes, _ = jax.eval_shape(
    lambda: initial.init_params(Retriever(config), 0, ROWS)
  )
  tables = {'query_means': params['query_means']}
  sharding = shardings_for(mesh, axes, tables)['query_means']['table']
  assert sharding.shard_shape((ROWS, width)) == (ROWS, part)
