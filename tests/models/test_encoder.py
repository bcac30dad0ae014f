import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from reference_models import fresh

from gr_jax.models.bert import BertConfig, BertEncoder
from gr_jax.models.encoder import Encoder, pool
from gr_jax.models.t5 import T5Config, T5Encoder
from gr_jax.types import UserError

BERT = BertConfig(
  vocab_size=12,
  emb_dim=8,
  num_heads=2,
  num_layers=2,
  mlp_dim=16,
  max_length=6,
)
T5 = T5Config(
  vocab_size=12,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  num_encoder_layers=2,
  mlp_dim=16,
)
KINDS = {BertEncoder: BERT, T5Encoder: T5}
TOKENS = jnp.asarray([[3, 9, 4, 1], [7, 2, 0, 0]])


@pytest.mark.parametrize('kind', KINDS)
def test_parameters_are_those_of_the_encoder_alone(kind):
  config = KINDS[kind]
  alone = fresh(kind(config), TOKENS)
  together = jax.eval_shape(Encoder(config).init, jax.random.key(0), TOKENS)
  assert jax.tree.map(jnp.shape, alone['params']) == jax.tree.map(
    lambda leaf: leaf.shape, together['params']
  )
  output = jax.jit(Encoder(config).apply)(alone, TOKENS)
  states = jax.jit(kind(config).apply)(alone, TOKENS)
  np.testing.assert_allclose(output.states_BSE, states, atol=1e-6)
  np.testing.assert_array_equal(output.mask_BS, TOKENS > 0)
  np.testing.assert_allclose(
    output.pooled_BE[1], jnp.mean(states[1, :2], axis=0), atol=1e-6
  )


def test_pooling():
  states_BSE = jnp.arange(12.0).reshape(2, 3, 2)
  mask_BS = jnp.asarray([[True, True, False], [False, False, False]])
  mean = pool(states_BSE, mask_BS, 'mean')
  np.testing.assert_array_equal(mean, [[1, 2], [0, 0]])
  first = pool(states_BSE.astype(jnp.bfloat16), mask_BS, 'first')
  np.testing.assert_array_equal(first, [[0, 1], [6, 7]])
  assert first.dtype == jnp.float32


def test_unknown_pooling_is_refused():
  with pytest.raises(UserError, match="did you mean 'first'"):
    Encoder(BERT, pooling='frist').init(jax.random.key(0), TOKENS)


def test_bert_parameters_have_t5x_axes():
  variables = jax.eval_shape(BertEncoder(BERT).init, jax.random.key(0), TOKENS)
  flat = traverse_util.flatten_dict(variables['params'], sep='/')
  axes = traverse_util.flatten_dict(variables['params_axes'], sep='/')
  known = {'embed', 'joined_kv', 'mlp', 'vocab', 'abspos_buckets'}
  assert {f'{name}_axes' for name in flat} == set(axes)
  for name, leaf in flat.items():
    assert leaf.dtype == jnp.float32, name
    assert len(axes[f'{name}_axes'].names) == leaf.ndim, name
    assert set(axes[f'{name}_axes'].names) <= known, name


def test_bert_ignores_padding():
  encoder = BertEncoder(BERT)
  variables = fresh(encoder, TOKENS)
  apply = jax.jit(encoder.apply)
  states = apply(variables, TOKENS)
  padded = apply(variables, jnp.pad(TOKENS, ((0, 0), (0, 2))))
  mask = np.asarray(TOKENS) > 0
  np.testing.assert_allclose(states[mask], padded[:, :4][mask], atol=1e-5)


def test_bert_refuses_texts_longer_than_its_positions():
  tokens = jnp.ones((1, 7), jnp.int32)
  with pytest.raises(UserError, match=r'6 positions.*7 tokens'):
    BertEncoder(BERT).init(jax.random.key(0), tokens)


def test_bert_dropout_needs_its_rng_and_changes_states():
  encoder = BertEncoder(BERT)
  variables = fresh(encoder, TOKENS)
  states = [
    encoder.apply(variables, TOKENS, deterministic=False, rngs={'dropout': rng})
    for rng in jax.random.split(jax.random.key(1), 2)
  ]
  assert not np.allclose(states[0], states[1])
