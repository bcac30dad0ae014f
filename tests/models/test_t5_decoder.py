import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_models import fresh

from gr_jax.models.t5 import T5Config
from gr_jax.models.t5_collection import T5CollectionStack
from gr_jax.models.t5_decoder import T5DecoderStack, empty_cache

BATCH, BEAMS, LENGTH, WIDTH, TOKENS, STATES = 2, 3, 5, 8, 4, 6
CONFIG = T5Config(
  emb_dim=WIDTH,
  num_heads=2,
  head_dim=3,
  num_decoder_layers=2,
  mlp_dim=16,
)
STACK = T5DecoderStack(CONFIG)
APPLY = jax.jit(STACK.apply)
MEMORY = jax.jit(functools.partial(STACK.apply, method='memory'))


@pytest.fixture(scope='module')
def problem():
  """Variables, inputs of B x W rows, states of another width, and a mask."""
  keys = jax.random.split(jax.random.key(0))
  rows = BATCH * BEAMS
  inputs_RLM = jax.random.normal(keys[0], (rows, LENGTH, WIDTH))
  states_BSE = jax.random.normal(keys[1], (BATCH, TOKENS, STATES))
  mask_BS = jnp.asarray([[True] * TOKENS, [True, True, False, False]])
  variables = fresh(STACK, inputs_RLM, states_BSE, mask_BS)
  return variables, inputs_RLM, states_BSE, mask_BS


@pytest.fixture(scope='module')
def parallel(problem):
  return APPLY(*problem)


def test_one_position_at_a_time_equals_all_at_once(problem, parallel):
  variables, inputs_RLM, states_BSE, mask_BS = problem
  memory = MEMORY(variables, states_BSE, mask_BS)

  def body(cache, x):
    inputs_RM, position = x
    outputs_RM, cache = STACK.apply(
      variables, inputs_RM, memory, cache, position, method='step'
    )
    return cache, outputs_RM

  inputs_LRM = jnp.swapaxes(inputs_RLM, 0, 1)
  cache = empty_cache(CONFIG, BATCH * BEAMS, LENGTH)
  _, outputs_LRM = jax.jit(
    lambda cache: jax.lax.scan(body, cache, (inputs_LRM, jnp.arange(LENGTH)))
  )(cache)
  np.testing.assert_allclose(
    jnp.swapaxes(outputs_LRM, 0, 1), parallel, atol=1e-5
  )


def test_cache_collection_equals_all_at_once(problem, parallel):
  variables, inputs_RLM, states_BSE, mask_BS = problem

  @jax.jit
  def advance(cache, inputs_RLM):
    return T5CollectionStack(CONFIG).apply(
      variables | cache,
      inputs_RLM,
      states_BSE,
      mask_BS,
      decode=True,
      mutable=['cache'],
    )

  everything, cache = advance({}, inputs_RLM)
  np.testing.assert_allclose(everything, parallel, atol=1e-5)
  names = {'cached_key', 'cached_value', 'cache_index'}
  assert set(cache['cache']['layers_1']['self_attention']) == names
  for position in range(LENGTH):
    outputs, cache = advance(cache, inputs_RLM[:, position : position + 1])
    np.testing.assert_allclose(outputs[:, 0], parallel[:, position], atol=1e-5)
  leaves = cache['cache']['layers_0']['self_attention']
  assert leaves['cache_index'] == LENGTH
  explicit = empty_cache(CONFIG, BATCH * BEAMS, LENGTH)
  assert leaves['cached_key'].shape == explicit.keys[0].shape


def test_beams_read_the_states_of_their_text(problem, parallel):
  variables, inputs_RLM, states_BSE, mask_BS = problem
  tiled = APPLY(
    variables,
    inputs_RLM,
    jnp.repeat(states_BSE, BEAMS, axis=0),
    jnp.repeat(mask_BS, BEAMS, axis=0),
  )
  np.testing.assert_allclose(parallel, tiled, atol=1e-5)


def test_later_positions_and_hidden_states_are_not_read(problem, parallel):
  variables, inputs_RLM, states_BSE, mask_BS = problem
  changed = APPLY(
    variables,
    inputs_RLM.at[:, 3:].add(1.0),
    jnp.where(mask_BS[:, :, None], states_BSE, 100.0),
    mask_BS,
  )
  np.testing.assert_allclose(changed[:, :3], parallel[:, :3], atol=1e-5)
  assert not np.allclose(changed[:, 3:], parallel[:, 3:], atol=1e-2)


def test_reordered_beams_take_their_cache_along(problem):
  variables, inputs_RLM, states_BSE, mask_BS = problem
  memory = MEMORY(variables, states_BSE, mask_BS)
  # Within each text: beam 0 stays, beams 1 and 2 both come from beam 2.
  order = jnp.asarray([0, 2, 2, 3, 5, 5])
  cache = empty_cache(CONFIG, BATCH * BEAMS, 2)
  step = jax.jit(lambda *a: STACK.apply(variables, *a, method='step'))
  _, cache = step(inputs_RLM[:, 0], memory, cache, 0)
  cache = jax.tree.map(lambda leaf: leaf[order], cache)
  outputs, _ = step(inputs_RLM[:, 1], memory, cache, 1)
  history = jnp.stack([inputs_RLM[order, 0], inputs_RLM[:, 1]], axis=1)
  expected = APPLY(variables, history, states_BSE, mask_BS)
  np.testing.assert_allclose(outputs, expected[:, 1], atol=1e-5)


def test_without_layers_only_the_norm_is_left():
  stack = T5DecoderStack(dataclasses.replace(CONFIG, num_decoder_layers=0))
  inputs_RLM = jax.random.normal(jax.random.key(0), (2, 1, WIDTH))
  states_BSE, mask_BS = jnp.ones((2, 1, STATES)), jnp.ones((2, 1), bool)
  variables = fresh(stack, inputs_RLM, states_BSE, mask_BS)
  memory = stack.apply(variables, states_BSE, mask_BS, method='memory')
  outputs, _ = stack.apply(
    variables,
    inputs_RLM[:, 0],
    memory,
    empty_cache(stack.config, 2, 1),
    0,
    method='step',
  )
  np.testing.assert_allclose(
    outputs,
    stack.apply(variables, inputs_RLM, states_BSE, mask_BS)[:, 0],
    atol=1e-6,
  )
