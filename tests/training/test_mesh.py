"""Parameters lie where the rules say; unknown axis names are refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.linen import partitioning
from jax.sharding import PartitionSpec as P

from gr_jax.training import mesh as mesh_lib
from gr_jax.training.mesh import MeshSettings
from gr_jax.types import UserError

pytestmark = pytest.mark.mesh


class Toy(nn.Module):
  axes: tuple[str, str] = ('embed', 'mlp')

  @nn.compact
  def __call__(self, x_BE):
    kernel_EF = partitioning.param_with_axes(
      'kernel', nn.initializers.ones, (16, 32), jnp.float32, axes=self.axes
    )
    hidden_BF = nn.with_logical_constraint(x_BE @ kernel_EF, ('batch', 'mlp'))
    bias_F = partitioning.param_with_axes(
      'bias', nn.initializers.zeros, (32,), jnp.float32, axes=('mlp',)
    )
    return hidden_BF + bias_F[None]


@pytest.fixture
def mesh():
  return mesh_lib.make_mesh(MeshSettings(data=2, fsdp=2, model=2))


def init(model):
  return jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((4, 16), jnp.float32)
  )


def test_mesh_takes_what_is_left():
  mesh = mesh_lib.make_mesh(MeshSettings(model=2))
  assert dict(mesh.shape) == {'data': 4, 'fsdp': 1, 'model': 2}


@pytest.mark.parametrize(
  'sizes', [{'model': 3}, {'data': 2}, {'data': 16}, {'fsdp': 16}]
)
def test_mesh_that_does_not_cover_is_refused(sizes):
  with pytest.raises(UserError, match='does not cover 8 devices'):
    mesh_lib.make_mesh(MeshSettings(**sizes))


@pytest.mark.parametrize('sizes', [{'model': 0}, {'fsdp': -1}, {'data': 0}])
def test_sizes_below_one_are_refused(sizes):
  with pytest.raises(UserError, match='is a number of devices'):
    MeshSettings(**sizes)


def test_parameters_and_moments_are_sharded_as_intended(mesh):
  variables = init(Toy())
  params = variables['params']
  state = {
    'params': params,
    'opt': jax.eval_shape(optax.adamw(1e-3).init, params),
  }
  shardings = mesh_lib.shardings_for(mesh, variables['params_axes'], state)
  assert shardings['params']['kernel'].spec == P('fsdp', 'model')
  assert shardings['params']['bias'].spec == P('model')
  moments = shardings['opt'][0]
  assert moments.mu['kernel'].spec == P('fsdp', 'model')
  assert moments.nu['bias'].spec == P('model')
  assert moments.count.spec == P()
  placed = jax.device_put(jnp.ones((16, 32)), shardings['params']['kernel'])
  assert placed.addressable_shards[0].data.shape == (8, 16)


def test_adafactor_statistics_are_replicated(mesh):
  variables = init(Toy())
  optimizer = optax.adafactor(1e-3, min_dim_size_to_factor=4)
  state = jax.eval_shape(optimizer.init, variables['params'])
  shardings = mesh_lib.shardings_for(mesh, variables['params_axes'], state)
  rows = [s for s in jax.tree.leaves(shardings) if s.spec == P(None)]
  assert rows, 'factored statistics are vectors of another rank'


def test_constraints_hold_under_jit(mesh):
  """`active` + jax.jit is the pair under which flax's constraints act."""
  model = Toy()
  variables = init(model)
  with mesh_lib.active(mesh):
    shardings = mesh_lib.shardings_for(
      mesh, variables['params_axes'], variables['params']
    )
    params = jax.jit(
      lambda key: model.init(key, jnp.zeros((4, 16)))['params'],
      out_shardings=shardings,
    )(jax.random.key(0))
    batch = mesh_lib.put_batch(mesh, {'x': np.ones((8, 16), np.float32)})
    apply = jax.jit(lambda p, x: model.apply({'params': p}, x))
    compiled = apply.lower(params, batch['x']).compile()
    result = apply(params, batch['x'])
  assert params['kernel'].sharding.spec == P('fsdp', 'model')
  sharding = compiled.output_shardings
  assert sharding.shard_shape((8, 32)) == (2, 16)
  np.testing.assert_array_equal(result, np.full((8, 32), 16, np.float32))


def test_misspelt_axis_is_refused(mesh):
  variables = init(Toy(axes=('embed', 'mpl')))
  with pytest.raises(UserError, match=r"'mpl'.*did you mean 'mlp'"):
    mesh_lib.shardings_for(mesh, variables['params_axes'], variables['params'])


def test_uneven_cut_is_refused(mesh):
  axes = init(Toy())['params_axes']
  odd = {'kernel': jax.ShapeDtypeStruct((16, 33), jnp.float32)}
  with pytest.raises(UserError, match=r'kernel \[16, 33\] cannot be cut'):
    mesh_lib.shardings_for(mesh, axes, odd)


def test_batch_must_divide(mesh):
  with pytest.raises(UserError, match='tokens has 6 rows, which 4 data parts'):
    mesh_lib.put_batch(mesh, {'tokens': np.zeros((6, 3), np.int32)})


def test_batch_is_spread_over_data_and_fsdp(mesh):
  batch = {'tokens': np.arange(24, dtype=np.int32).reshape(8, 3)}
  tokens = mesh_lib.put_batch(mesh, batch)['tokens']
  assert tokens.addressable_shards[0].data.shape == (2, 3)
  np.testing.assert_array_equal(tokens, batch['tokens'])
