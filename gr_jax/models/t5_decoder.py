"""T5's decoder stack, over vectors: of codes here, of tokens in t5_text.

Two ways through the stack give the same states: all positions at once
(training), and one position at a time over an explicit cache (`step`, what beam
search uses). T5X's own decoding has a third one, in t5_collection.

Rows of decoder inputs may be a multiple of the rows of encoder states: row
b * W + w attends to the states of row b. So W beams share one set of keys
and values, which is neither tiled nor moved when beams are reordered.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from gr_jax.models import layers
from gr_jax.models.rematerialisation import rematerialised
from gr_jax.models.t5 import (
  RelativePositionBias,
  T5Config,
  T5Mlp,
  T5Projections,
  T5SelfAttention,
  dropout,
  norm,
)


class DecoderMemory(struct.PyTreeNode):
  """What cross-attention reads, made once for each text.

  Attributes:
    keys: of each layer, [B, H, S, head_dim].
    values: of each layer, [B, H, S, head_dim].
    bias_B11S: float32, hides padding.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]
  bias_B11S: jax.Array


class DecoderCache(struct.PyTreeNode):
  """What self-attention has read so far; rows follow their beams.

  Attributes:
    keys: of each layer, [rows, H, head_dim, L], as T5X lays it out.
    values: of each layer, [rows, H, head_dim, L].
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]


def empty_cache(config: T5Config, rows: int, length: int) -> DecoderCache:
  """A cache for `length` positions of `rows` sequences, before the first."""
  shape = (rows, config.num_heads, config.head_dim, length)
  zeros = tuple(
    jnp.zeros(shape, config.dtype) for _ in range(config.num_decoder_layers)
  )
  return DecoderCache(keys=zeros, values=zeros)


class T5CausalSelfAttention(T5SelfAttention):
  """Self-attention that can go on position by position.

  Over all positions at once it is what its bias makes it.
  """

  def step(self, inputs_R1M, bias_1H1L, keys_RHDL, values_RHDL, position):
    """One position: attended inputs, and the cache with it written."""
    keys_RHDL = _write(keys_RHDL, self.heads(self.key(inputs_R1M)), position)
    values_RHDL = _write(
      values_RHDL, self.heads(self.value(inputs_R1M)), position
    )
    attended = self.attend(
      self.heads(self.query(inputs_R1M)),
      jnp.swapaxes(keys_RHDL, -1, -2),
      jnp.swapaxes(values_RHDL, -1, -2),
      bias_1H1L,
      deterministic=True,
    )
    return self.out(attended), keys_RHDL, values_RHDL


def _write(cached_RHDL, new_RH1D, position) -> jax.Array:
  """The cache with one position replaced."""
  new_RHD1 = jnp.swapaxes(new_RH1D, -1, -2).astype(cached_RHDL.dtype)
  return jax.lax.dynamic_update_slice_in_dim(
    cached_RHDL, new_RHD1, position, axis=-1
  )


class T5CrossAttention(T5Projections):
  """Attention of decoder positions to encoder states."""

  def memory(self, states_BSE) -> tuple[jax.Array, jax.Array]:
    """Keys and values, [B, H, S, head_dim]."""
    return self.heads(self.key(states_BSE)), self.heads(self.value(states_BSE))

  def __call__(self, inputs_RLM, key_BHSD, value_BHSD, bias, deterministic):
    """[R, L, M] attended inputs; row b * W + w reads row b of the memory."""
    rows, length, _ = inputs_RLM.shape
    joined = self.query(inputs_RLM)
    # W beams of L positions are W x L queries of one text.
    by_text = joined.reshape(key_BHSD.shape[0], -1, joined.shape[-1])
    attended = self.attend(
      self.heads(by_text), key_BHSD, value_BHSD, bias, deterministic
    )
    return self.out(attended.reshape(rows, length, -1))


class T5DecoderLayer(nn.Module):
  """Self-attention, cross-attention and feed-forward block.

  Attributes:
    config: sizes.
  """

  config: T5Config

  def setup(self):
    config = self.config
    self.pre_self_attention_layer_norm = norm(config)
    self.self_attention = T5CausalSelfAttention(config)
    self.pre_cross_attention_layer_norm = norm(config)
    self.encoder_decoder_attention = T5CrossAttention(config)
    self.pre_mlp_layer_norm = norm(config)
    self.mlp = T5Mlp(config)
    self.dropout = dropout(config)

  def __call__(self, inputs_RLM, bias_1HLL, memory, deterministic: bool):
    """All positions; memory is (keys, values, bias) of this layer."""
    attended = self.self_attention(
      self.pre_self_attention_layer_norm(inputs_RLM), bias_1HLL, deterministic
    )
    inputs_RLM += self.dropout(attended, deterministic=deterministic)
    return self._after_self_attention(inputs_RLM, memory, deterministic)

  def step(self, inputs_R1M, bias_1H1L, memory, cache, position):
    """One position: states, keys and values; cache is (keys, values)."""
    attended, keys, values = self.self_attention.step(
      self.pre_self_attention_layer_norm(inputs_R1M),
      bias_1H1L,
      *cache,
      position,
    )
    states = self._after_self_attention(
      inputs_R1M + attended, memory, deterministic=True
    )
    return states, keys, values

  def _after_self_attention(self, inputs_RLM, memory, deterministic):
    attended = self.encoder_decoder_attention(
      self.pre_cross_attention_layer_norm(inputs_RLM), *memory, deterministic
    )
    inputs_RLM += self.dropout(attended, deterministic=deterministic)
    hidden = self.mlp(self.pre_mlp_layer_norm(inputs_RLM), deterministic)
    inputs_RLM += self.dropout(hidden, deterministic=deterministic)
    return layers.constrain(inputs_RLM, 'batch', 'length', 'embed')


class T5DecoderStack(nn.Module):
  """The layers of the decoder with their shared position bias.

  Attributes:
    config: sizes; inputs have the width emb_dim, states may have another.
  """

  config: T5Config

  def setup(self):
    config = self.config
    self.relpos_bias = RelativePositionBias(config, bidirectional=False)
    layer = T5DecoderLayer
    if config.remat != 'none':
      layer = rematerialised(layer, config.remat)
    self.layers = [layer(config) for _ in range(config.num_decoder_layers)]
    self.decoder_norm = norm(config)
    self.dropout = dropout(config)

  def __call__(
    self,
    inputs_RLM: jax.Array,
    states_BSE: jax.Array,
    mask_BS: jax.Array,
    *,
    deterministic: bool = True,
  ) -> jax.Array:
    """Decodes all positions.

    Args:
      inputs_RLM: R = B x W rows of vectors, beams of a text side by side.
      states_BSE: what the encoder says of the texts.
      mask_BS: which states are text.
      deterministic: False applies dropout, with the rng named 'dropout'.

    Returns:
      [R, L, M] states after the last norm.
    """
    memory = self.memory(states_BSE, mask_BS)
    positions_L = jnp.arange(inputs_RLM.shape[1])
    bias_1HLL = self._causal_bias(positions_L, positions_L)
    outputs = self.dropout(
      inputs_RLM.astype(self.config.dtype), deterministic=deterministic
    )
    for i, layer in enumerate(self.layers):
      outputs = layer(outputs, bias_1HLL, _memory_of(memory, i), deterministic)
    return self.dropout(self.decoder_norm(outputs), deterministic=deterministic)

  def memory(self, states_BSE, mask_BS) -> DecoderMemory:
    """Keys and values of all cross-attentions, to be made once a text."""
    pairs = [
      layer.encoder_decoder_attention.memory(states_BSE)
      for layer in self.layers
    ]
    return DecoderMemory(
      keys=tuple(keys for keys, _ in pairs),
      values=tuple(values for _, values in pairs),
      bias_B11S=layers.attention_bias(mask_BS),
    )

  def step(
    self,
    inputs_RM: jax.Array,
    memory: DecoderMemory,
    cache: DecoderCache,
    position: jax.Array,
  ) -> tuple[jax.Array, DecoderCache]:
    """Decodes one position.

    Args:
      inputs_RM: the vectors of that position.
      memory: of B texts, R = B x W.
      cache: of the positions before; from `empty_cache` at the first.
      position: int32 scalar, the same for all rows; may be traced.

    Returns:
      [R, M] states after the last norm, and the cache with this position.
    """
    # Without layers there is no cache to tell the length, and no need of it.
    length = cache.keys[0].shape[-1] if cache.keys else 0
    bias_1H1L = self._causal_bias(
      jnp.full((1,), position, jnp.int32), jnp.arange(length)
    )
    outputs = inputs_RM[:, None, :].astype(self.config.dtype)
    keys, values = [], []
    for i, layer in enumerate(self.layers):
      outputs, key, value = layer.step(
        outputs,
        bias_1H1L,
        _memory_of(memory, i),
        (cache.keys[i], cache.values[i]),
        position,
      )
      keys.append(key)
      values.append(value)
    cache = DecoderCache(keys=tuple(keys), values=tuple(values))
    return self.decoder_norm(outputs)[:, 0], cache

  def _causal_bias(self, queries_Q, keys_S) -> jax.Array:
    """[1, H, Q, S] float32: position bias, and HIDDEN for later keys."""
    later_QS = keys_S[None, :] > queries_Q[:, None]
    hidden_QS = jnp.where(later_QS, layers.HIDDEN, 0.0)
    return self.relpos_bias(queries_Q, keys_S) + hidden_QS[None, None]


def _memory_of(memory: DecoderMemory, layer: int) -> tuple[jax.Array, ...]:
  """Keys, values and bias of one layer."""
  return memory.keys[layer], memory.values[layer], memory.bias_B11S
