"""The retriever: tokens or vectors, gradients, and names of all axes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers.residual import ResidualConfig
from gr_jax.indexers.static import StaticConfig
from gr_jax.indexers.tables import TABLES
from gr_jax.models.bert import BertConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.projection import scale_gradient
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.objectives.weighted_sum import ObjectiveSettings, objective
from gr_jax.training.mesh import check_axis_names
from gr_jax.types import UserError

STACK = T5Config(
  vocab_size=20,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  num_encoder_layers=1,
  num_decoder_layers=1,
  mlp_dim=16,
)
BERT = BertConfig(
  vocab_size=20, emb_dim=8, num_heads=2, num_layers=1, mlp_dim=16
)


def config(**changes):
  base = RetrieverConfig(
    encoder=BERT,
    indexer=ResidualConfig(positions=3, codes=5),
    decoder=CodeDecoderConfig(stack=STACK),
    width=8,
  )
  return dataclasses.replace(base, **changes)


def batch(rows=4):
  tokens = jax.random.randint(jax.random.key(0), (2, rows, 6), 1, 20)
  return {
    'query_tokens': tokens[0].at[:, 4:].set(0),
    'document_tokens': tokens[1],
    'document_index': jnp.arange(rows),
  }


def initial(model, **changes):
  return model.init(
    {'params': jax.random.key(1), 'dropout': jax.random.key(2)},
    batch(),
    temperature=0.5,
    noise=0.0,
    deterministic=True,
    **changes,
  )


def outputs(model, params, inputs, noise=0.0):
  return model.apply(
    {'params': params, 'usage': usage(model)},
    inputs,
    temperature=0.5,
    noise=noise,
    deterministic=True,
    rngs={'dropout': jax.random.key(3)},
  )


@functools.cache
def usage(model):
  """What balance looks at, before the first batch."""
  return initial(model)['usage']


CONFIGS = {
  'bert': config(),
  't5 attending tokens': config(
    encoder=STACK, decoder=CodeDecoderConfig(stack=STACK, attends_tokens=True)
  ),
  'static codes, other width': config(
    indexer=StaticConfig('random', positions=3, codes=(5, 4, 2)), width=6
  ),
}


@pytest.mark.parametrize('name', CONFIGS)
def test_all_parts_learn_and_every_axis_has_a_rule(name):
  model = Retriever(CONFIGS[name])
  variables = initial(model)
  check_axis_names(variables['params_axes'])

  tables = {k: v for k, v in variables['params'].items() if k in TABLES}
  trained = {k: v for k, v in variables['params'].items() if k not in TABLES}
  # Static kinds have theirs from the start.
  tables['identifiers'] = {'table': jnp.array([[0, 1, 1]] * 4, jnp.int32)}

  usage(model)  # Or what is kept would be of the trace.

  def loss(params):
    out = outputs(model, {**tables, **params}, batch())
    return objective(
      out,
      batch()['document_index'],
      model.config.code_sizes,
      ObjectiveSettings(),
      0.5,
    )[0]

  gradients = jax.jit(jax.grad(loss))(trained)
  for part in ('encoder', 'projection', 'indexer', 'decoder'):
    leaves = jax.tree.leaves(gradients[part])
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves), part
    assert any(np.any(np.abs(leaf) > 0) for leaf in leaves), part


def test_pooled_vectors_stand_in_for_tokens():
  model = Retriever(config())
  params = initial(model)['params']
  inputs = batch()
  pooled = {
    name: model.apply(
      {'params': params}, inputs[f'{name}_tokens'], method='backbone'
    ).pooled_BE
    for name in ('query', 'document')
  }
  frozen = {
    'query_vectors': pooled['query'],
    'document_vectors': pooled['document'],
    'document_index': inputs['document_index'],
  }
  whole, cached = outputs(model, params, inputs), outputs(model, params, frozen)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, cached
  )


def test_vectors_have_unit_length_and_start_as_the_encoders():
  model = Retriever(config())
  params = initial(model)['params']
  pooled = jax.random.normal(jax.random.key(5), (4, 8))
  vectors = model.apply({'params': params}, pooled, method='project')
  np.testing.assert_allclose(
    vectors, pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True), rtol=1e-5
  )


def test_without_a_projection_vectors_are_the_encoders():
  model = Retriever(config(projection=False))
  params = initial(model)['params']
  assert 'projection' not in params
  pooled = jax.random.normal(jax.random.key(5), (4, 8))
  vectors = model.apply({'params': params}, pooled, method='project')
  np.testing.assert_allclose(
    vectors, pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True), rtol=1e-5
  )
  with pytest.raises(UserError, match='that of the encoder, 8, not 6'):
    initial(Retriever(config(projection=False, width=6)))


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
def test_the_share_of_generation_that_reaches_the_indexer(share):
  model = Retriever(config(indexer_gradient=share))
  only = ObjectiveSettings(
    **{
      field.name: 0.0
      for field in dataclasses.fields(ObjectiveSettings)
      if field.name not in ('generation', 'temperature')
    }
  )
  params = initial(model)['params']

  def loss(params):
    out = outputs(model, params, batch())
    return objective(out, jnp.arange(4), (5, 5, 5), only, 0.5)[0]

  gradient = jax.grad(loss, allow_int=True)(params)
  reached = np.max(np.abs(gradient['indexer']['codebooks']))
  assert (reached > 0) == (share > 0)
  assert np.max(np.abs(gradient['decoder']['output']['kernel'])) > 0


def test_scaled_gradients_leave_the_value_alone():
  x = jnp.array([1.1, -2.7])
  value, gradient = jax.value_and_grad(
    lambda x: jnp.sum(scale_gradient(x, 0.25) ** 2)
  )(x)
  assert value == jnp.sum(x**2)
  np.testing.assert_allclose(gradient, 0.25 * 2 * x, rtol=1e-6)
