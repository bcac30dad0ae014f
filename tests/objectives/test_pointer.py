"""The pointer's likelihood against the mixture written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.objectives.pointer import (
  mixed_log_probs,
  token_log_probs,
  writing_loss,
)

R, L, M, V, S = 3, 6, 5, 11, 4
STATES = jax.random.normal(jax.random.key(0), (R, L, M))
HEAD = jax.random.normal(jax.random.key(1), (M, V))
TARGETS = np.array(
  [[3, 9, 4, 1, 0, 0], [7, 2, 1, 0, 0, 0], [5, 10, 2, 2, 8, 1]], np.int32
)
SOURCE = np.array([[9, 4, 9, 0], [2, 1, 3, 7], [8, 0, 0, 0]], np.int32)
GATES = jax.random.normal(jax.random.key(2), (R, L))
# Of one row the pointer is nearly sure.
ATTENTION = jax.nn.softmax(
  jax.random.normal(jax.random.key(3), (R, L, S)).at[0].multiply(10.0)
)


def loss(parts, states_RLM, head_MV, gates_RL, attention_RLS):
  same_RLS = SOURCE[:, None, :] == TARGETS[:, :, None]
  log_probs_RL = mixed_log_probs(
    token_log_probs(states_RLM, head_MV, TARGETS, parts),
    jnp.sum(attention_RLS, axis=-1, where=same_RLS),
    gates_RL,
  )
  return writing_loss(log_probs_RL, TARGETS)


def written_out(states_RLM, head_MV, gates_RL, attention_RLS):
  """p = g softmax(s) + (1 - g) sum of attention to equal tokens."""
  vocabulary_RLV = jax.nn.softmax(states_RLM @ head_MV)
  of_source_RSV = jax.nn.one_hot(SOURCE, V)
  copies_RLV = jnp.einsum('RLS,RSV->RLV', attention_RLS, of_source_RSV)
  gates_RL1 = jax.nn.sigmoid(gates_RL)[..., None]
  mixture_RLV = gates_RL1 * vocabulary_RLV + (1 - gates_RL1) * copies_RLV
  wanted_RLV = jax.nn.one_hot(TARGETS, V)
  log_RL = jnp.log(jnp.sum(mixture_RLV * wanted_RLV, axis=-1))
  return -jnp.sum(jnp.where(TARGETS > 0, log_RL, 0)) / np.sum(TARGETS > 0)


@pytest.mark.parametrize('parts', [1, 2, 4])
def test_loss_and_gradients_are_those_of_the_mixture(parts):
  arguments = STATES, HEAD, GATES, ATTENTION
  places = tuple(range(4))
  found, metrics = jax.jit(functools.partial(loss, parts))(*arguments)
  expected, by_expected = jax.jit(jax.value_and_grad(written_out, places))(
    *arguments
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  by = jax.jit(jax.grad(lambda *a: loss(parts, *a)[0], places))(*arguments)
  for got, wanted in zip(by, by_expected, strict=True):
    np.testing.assert_allclose(got, wanted, atol=2e-6)
  total, count = metrics['token_loss']
  assert count == 13
  np.testing.assert_allclose(total, expected * 13, rtol=1e-5)


def test_parts_never_make_the_scores_of_all_positions():
  def of_parts(states_RLM):
    return jnp.sum(token_log_probs(states_RLM, HEAD, TARGETS, parts=3))

  for function in (of_parts, jax.grad(of_parts)):
    program = str(jax.make_jaxpr(function)(STATES))
    assert f'f32[{R},{L // 3},{V}]' in program
    assert f'f32[{R},{L},{V}]' not in program


def test_a_token_that_cannot_be_copied_has_finite_gradients():
  gates = jnp.array([80.0, 0.0, -80.0])

  def mixed(written, copied, gates):
    return jnp.sum(mixed_log_probs(written, copied, gates))

  written, copied = jnp.full(3, -2.0), jnp.zeros(3)
  by = jax.grad(mixed, (0, 1, 2))(written, copied, gates)
  for each in by:
    assert np.isfinite(each).all()
  # A gate that is shut leaves next to nothing, not minus infinity.
  assert np.isfinite(mixed_log_probs(written, copied, gates)).all()


def test_padding_alone_is_no_loss():
  nothing = jnp.zeros((2, 3), jnp.int32)
  value, metrics = writing_loss(jnp.full((2, 3), -4.0), nothing)
  assert value == 0
  assert metrics['token_loss'] == (0, 0)
