import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from reference_models import fresh

from gr_jax.models.t5 import (
  T5Config,
  T5Encoder,
  T5SelfAttention,
  relative_buckets,
)
from gr_jax.models.t5_sizes import T5_SIZES, t5_config
from gr_jax.models.t5_text import T5
from gr_jax.types import UserError

TOKENS = jnp.ones((1, 1), jnp.int32)
DEPTHS = ('num_encoder_layers', 'num_decoder_layers')

# Parameters of the published models, the shared table counted once.
PARAMETERS = {
  ('1.0', 'small'): 60_506_624,
  ('1.0', 'base'): 222_903_552,
  ('1.0', 'large'): 737_668_096,
  ('1.0', 'xl'): 2_851_598_336,
  ('1.0', 'xxl'): 11_307_321_344,
  ('1.1', 'small'): 76_961_152,
  ('1.1', 'base'): 247_577_856,
  ('1.1', 'large'): 783_150_080,
  ('1.1', 'xl'): 2_849_757_184,
  ('1.1', 'xxl'): 11_135_332_352,
}


def shapes(module, *inputs):
  variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  flat = traverse_util.flatten_dict(variables['params'], sep='/')
  axes = traverse_util.flatten_dict(variables['params_axes'], sep='/')
  return flat, axes


def parameters(config, **changes):
  model = T5(dataclasses.replace(config, **changes))
  flat, _ = shapes(model, TOKENS, TOKENS)
  return sum(leaf.size for leaf in flat.values())


@pytest.mark.parametrize(('version', 'size'), PARAMETERS)
def test_published_sizes(version, size):
  """Layers are alike: those of large models are not traced one by one."""
  config = t5_config(size, version)
  depths = {name: getattr(config, name) for name in DEPTHS}
  if size in ('small', 'base'):
    count = parameters(config)
  else:
    one = dict.fromkeys(DEPTHS, 1)
    count = first = parameters(config, **one)
    for name, depth in depths.items():
      more = parameters(config, **one | {name: 2}) - first
      count += (depth - 1) * more
  assert count == PARAMETERS[version, size]


@pytest.mark.parametrize('version', T5_SIZES)
def test_every_parameter_is_float32_and_has_t5x_axes(version):
  model = T5(t5_config('tiny', version, dtype='bfloat16'))
  flat, axes = shapes(model, TOKENS, TOKENS)
  known = {'embed', 'heads', 'joined_kv', 'mlp', 'vocab', 'relpos_buckets'}
  assert {f'{name}_axes' for name in flat} == set(axes)
  for name, leaf in flat.items():
    assert leaf.dtype == jnp.float32, name
    assert len(axes[f'{name}_axes'].names) == leaf.ndim, name
    assert set(axes[f'{name}_axes'].names) <= known, name


def test_names_of_sizes_are_checked():
  with pytest.raises(UserError, match="did you mean 'large'"):
    t5_config('larg')
  with pytest.raises(UserError, match='version'):
    t5_config('small', '2.0')


def bucket(offset, buckets, max_distance, bidirectional):
  """The definition of Raffel et al., one offset at a time."""
  start = 0
  if bidirectional:
    buckets //= 2
    start = buckets if offset > 0 else 0
    distance = abs(offset)
  else:
    distance = max(-offset, 0)
  exact = buckets // 2
  if distance < exact:
    return start + distance
  far = np.log(np.float32(distance) / exact) / np.log(max_distance / exact)
  return start + min(exact + int(far * (buckets - exact)), buckets - 1)


@pytest.mark.parametrize('bidirectional', [True, False])
def test_relative_buckets(bidirectional):
  offsets = np.arange(-200, 201)
  # Distances at the border of two buckets depend on float rounding.
  borders = {16, 32, 64, 128}
  offsets = np.array([o for o in offsets if abs(o) not in borders])
  got = relative_buckets(jnp.asarray(offsets), 32, 128, bidirectional)
  expected = [bucket(int(o), 32, 128, bidirectional) for o in offsets]
  np.testing.assert_array_equal(got, expected)
  assert got.min() == 0
  assert got.max() == 31


@pytest.mark.parametrize('version', T5_SIZES)
def test_padding_and_row_order_change_nothing(version):
  config = small(version)
  tokens = jnp.asarray([[3, 9, 4, 1], [7, 2, 1, 0], [5, 0, 0, 0]])
  variables = fresh(T5Encoder(config), tokens)
  encode = jax.jit(T5Encoder(config).apply)
  states = encode(variables, tokens)
  padded = encode(variables, jnp.pad(tokens, ((0, 0), (0, 5))))
  flipped = encode(variables, tokens[::-1])[::-1]
  mask = np.asarray(tokens) > 0
  np.testing.assert_allclose(states[mask], padded[:, :4][mask], atol=1e-5)
  np.testing.assert_allclose(states, flipped, atol=1e-5)


def test_a_row_without_text_is_finite():
  tokens = jnp.zeros((2, 3), jnp.int32)
  encoder = T5Encoder(small('1.1'))
  states = jax.jit(encoder.apply)(fresh(encoder, tokens), tokens)
  assert np.isfinite(states).all()


def test_dropout_needs_its_rng_and_changes_states():
  tokens = jnp.asarray([[3, 9, 4, 1]])
  encoder = T5Encoder(small('1.1'))
  variables = fresh(encoder, tokens)
  states = [
    encoder.apply(variables, tokens, deterministic=False, rngs={'dropout': rng})
    for rng in jax.random.split(jax.random.key(1), 2)
  ]
  assert not np.allclose(states[0], states[1])


def small(version):
  """A T5 that compiles in a moment."""
  return T5Config(
    vocab_size=12,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=2,
    num_decoder_layers=2,
    mlp_dim=16,
    mlp_activations=('relu',) if version == '1.0' else ('gelu_new', 'linear'),
    logits_via_embedding=version == '1.0',
  )


def test_initial_queries_stand_in_for_scaled_scores():
  attention = T5SelfAttention(
    T5Config(emb_dim=64, num_heads=8, head_dim=16, dropout_rate=0.0)
  )
  inputs = jnp.zeros((1, 2, 64))
  bias = jnp.zeros((1, 1, 2, 2))
  init = jax.jit(attention.init, static_argnums=3)
  params = init(jax.random.key(0), inputs, bias, True)['params']
  stddev = {name: np.std(params[name]['kernel']) for name in params}
  assert stddev['query'] == pytest.approx((64 * 16) ** -0.5, rel=0.05)
  assert stddev['key'] == pytest.approx(64**-0.5, rel=0.05)
