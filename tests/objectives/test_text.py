"""Text loss in parts against the loss and gradients written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.models.t5 import T5Config
from gr_jax.models.t5_text import T5
from gr_jax.objectives.text import text_loss

B, L, M, V = 3, 6, 5, 11
Z = 0.01
STATES = jax.random.normal(jax.random.key(0), (B, L, M))
HEAD = jax.random.normal(jax.random.key(1), (M, V))
TARGETS = np.array(
  [[3, 9, 4, 1, 0, 0], [7, 2, 1, 0, 0, 0], [5, 10, 2, 2, 8, 1]]
)


def written_out(states_BLM, head_MV):
  scores_BLV = jnp.einsum('BLM,MV->BLV', states_BLM, head_MV)
  log_sums_BL = jnp.log(jnp.sum(jnp.exp(scores_BLV), axis=-1))
  wanted_BL = jnp.sum(scores_BLV * jax.nn.one_hot(TARGETS, V), axis=-1)
  loss_BL = log_sums_BL - wanted_BL + Z * log_sums_BL**2
  return jnp.sum(jnp.where(TARGETS > 0, loss_BL, 0)) / np.sum(TARGETS > 0)


@pytest.mark.parametrize('parts', [1, 3, 4])
def test_parts_change_nothing(parts):
  loss = functools.partial(
    text_loss, targets_BL=TARGETS, z_weight=Z, parts=parts
  )
  value, metrics = jax.jit(loss)(STATES, HEAD)
  expected, expected_by = jax.value_and_grad(written_out, (0, 1))(STATES, HEAD)
  expected = float(expected)
  assert value == pytest.approx(expected, rel=1e-5)
  # Three times the loss: the gradient of what comes after passes through.
  by = jax.jit(jax.grad(lambda *args: 3 * loss(*args)[0], (0, 1)))(STATES, HEAD)
  for got, wanted in zip(by, expected_by, strict=True):
    np.testing.assert_allclose(got, 3 * wanted, atol=1e-5)
  total, count = metrics['text']
  assert count == 13
  assert total == pytest.approx(expected * 13, rel=1e-5)
  scores = np.einsum('BLM,MV->BLV', STATES, HEAD)
  hits = (scores.argmax(-1) == TARGETS) & (TARGETS > 0)
  assert metrics['token_accuracy'] == (hits.sum(), 13)


def test_nothing_but_padding_is_no_loss():
  gradient, metrics = jax.grad(text_loss, has_aux=True)(
    STATES, HEAD, jnp.zeros((B, L), jnp.int32), Z
  )
  assert metrics['text'] == (0, 1)
  np.testing.assert_array_equal(gradient, 0)


def test_scores_are_never_made_for_all_tokens_at_once():
  def loss(states_BLM):
    return text_loss(states_BLM, HEAD, TARGETS, Z, parts=3)[0]

  for function in (loss, jax.grad(loss)):
    program = str(jax.make_jaxpr(function)(STATES))
    assert f'f32[{B},{L // 3},{V}]' in program
    assert f'f32[{B},{L},{V}]' not in program


@pytest.mark.parametrize('tied', [True, False])
def test_states_before_the_head_make_the_logits(tied):
  model = T5(
    T5Config(
      vocab_size=V,
      emb_dim=8,
      num_heads=2,
      head_dim=4,
      num_encoder_layers=0,
      num_decoder_layers=0,
      mlp_dim=16,
      logits_via_embedding=tied,
    )
  )
  inputs = jnp.pad(jnp.asarray(TARGETS), ((0, 0), (1, 0)))[:, :-1]

  @jax.jit
  def both(key):
    variables = model.init(key, TARGETS, inputs)
    states_BLM, head_MV = model.apply(
      variables, TARGETS, inputs, method=T5.before_head
    )
    return states_BLM @ head_MV, model.apply(variables, TARGETS, inputs)

  np.testing.assert_allclose(*both(jax.random.key(0)), atol=1e-5)
