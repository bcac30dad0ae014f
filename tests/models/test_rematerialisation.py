"""What is computed again for gradients changes nothing but memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.models.bert import BertConfig, BertEncoder
from gr_jax.models.t5 import T5Config, T5Encoder
from gr_jax.models.t5_decoder import T5DecoderStack
from gr_jax.types import UserError

T5 = T5Config(
  vocab_size=20,
  emb_dim=16,
  num_heads=2,
  head_dim=4,
  num_encoder_layers=1,
  num_decoder_layers=1,
  mlp_dim=32,
)
BERT = BertConfig(
  vocab_size=20, emb_dim=16, num_heads=2, num_layers=1, mlp_dim=32
)
TOKENS = jax.random.randint(jax.random.key(0), (4, 32), 1, 20)
VECTORS = jax.random.normal(jax.random.key(1), (4, 5, 16))
STATES = VECTORS[:, :3]
KINDS = {
  'bert': (BERT, BertEncoder, (TOKENS,)),
  't5': (T5, T5Encoder, (TOKENS,)),
  'decoder': (T5, T5DecoderStack, (VECTORS, STATES, jnp.ones((4, 3), bool))),
}


def gradients(kind, remat):
  """Of a sum of squares under dropout: the compiled program, and parameters."""
  config, stack, inputs = KINDS[kind]
  module = stack(dataclasses.replace(config, remat=remat))
  params = stack(config).init(jax.random.key(0), *inputs)['params']
  same = jax.eval_shape(module.init, jax.random.key(0), *inputs)['params']
  assert jax.tree.structure(same) == jax.tree.structure(params)

  def loss(params):
    states = module.apply(
      {'params': params},
      *inputs,
      deterministic=False,
      rngs={'dropout': jax.random.key(2)},
    )
    return jnp.sum(states**2)

  return jax.jit(jax.grad(loss)).lower(params).compile(), params


@pytest.mark.soak
@pytest.mark.parametrize(
  'kind, policies',
  [
    ('t5', ('dots', 'full')),
    ('bert', ('full',)),
    ('decoder', ('full',)),
  ],
)
def test_gradients_are_the_same_and_more_is_computed(kind, policies):
  plain, params = gradients(kind, 'none')
  expected = plain(params)
  flops = [plain.cost_analysis()['flops']]
  for remat in policies:
    again, _ = gradients(kind, remat)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
      again(params),
      expected,
    )
    flops.append(again.cost_analysis()['flops'])
  # Attention is computed again, then the products with weights too.
  assert flops == sorted(set(flops))


def test_an_unknown_policy_is_refused():
  config = dataclasses.replace(T5, remat='dot')
  with pytest.raises(UserError, match="did you mean 'dots'"):
    T5Encoder(config).init(jax.random.key(0), TOKENS)
