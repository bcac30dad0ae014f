"""The T5 encoder, versions 1.0 and 1.1 (Raffel et al. 2020, 1910.10683).

Parameters are named as in T5X's minimal T5, so that its checkpoints load.
Scores are not scaled by the head width: the initial query weights are.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.models import layers
from gr_jax.models.rematerialisation import rematerialised
from gr_jax.parameters import parameter


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of a T5; the defaults are those of t5.1.1.small.

  Attributes:
    vocab_size: rows of the table of token vectors.
    emb_dim: width of the states.
    num_heads: attention heads.
    head_dim: width of a head; heads x head_dim need not be emb_dim.
    num_encoder_layers: layers of the encoder.
    num_decoder_layers: layers of the decoder.
    mlp_dim: width inside the feed-forward blocks.
    mlp_activations: one name, or two for a gated block (v1.1).
    logits_via_embedding: whether the output head is the token table (v1.0).
    relpos_buckets: buckets of relative distances.
    relpos_max_distance: distance from which all share the last bucket.
    norm_epsilon: added to the mean square in layer norms.
    dropout_rate: share of activations and attention weights zeroed.
    dtype: of the computation, 'float32' or 'bfloat16'.
    remat: what layers compute again for their gradients, to keep less: 'none',
      'full' (all of a layer) or 'dots' (all but the products with weights).
  """

  vocab_size: int = 32128
  emb_dim: int = 512
  num_heads: int = 6
  head_dim: int = 64
  num_encoder_layers: int = 8
  num_decoder_layers: int = 8
  mlp_dim: int = 1024
  mlp_activations: tuple[str, ...] = ('gelu_new', 'linear')
  logits_via_embedding: bool = False
  relpos_buckets: int = 32
  relpos_max_distance: int = 128
  norm_epsilon: float = 1e-6
  dropout_rate: float = 0.1
  dtype: str = 'float32'
  remat: str = 'none'


def relative_buckets(
  offsets: jax.Array, buckets: int, max_distance: int, bidirectional: bool
) -> jax.Array:
  """Buckets of relative positions: exact when near, logarithmic when far.

  Args:
    offsets: key position minus query position, int32 of any shape.
    buckets: number of buckets.
    max_distance: from here on all distances share the last bucket.
    bidirectional: whether half of the buckets are for keys that come after;
      otherwise those fall into bucket 0.

  Returns:
    int32 buckets of the shape of offsets.
  """
  start = jnp.zeros_like(offsets)
  if bidirectional:
    buckets //= 2
    start = jnp.where(offsets > 0, buckets, 0)
    distance = jnp.abs(offsets)
  else:
    distance = jnp.maximum(-offsets, 0)
  exact = buckets // 2
  ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
  steps = jnp.log(ratio) / math.log(max_distance / exact) * (buckets - exact)
  far = jnp.minimum(exact + steps.astype(jnp.int32), buckets - 1)
  return start + jnp.where(distance < exact, distance, far)


class RelativePositionBias(nn.Module):
  """A learned score for each head and bucket, shared by all layers.

  Attributes:
    config: sizes.
    bidirectional: True in encoders.
  """

  config: T5Config
  bidirectional: bool

  def setup(self):
    self.rel_embedding = parameter(
      'rel_embedding',
      nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform'),
      (self.config.num_heads, self.config.relpos_buckets),
      ('heads', 'relpos_buckets'),
    )

  def __call__(self, queries_Q: jax.Array, keys_S: jax.Array) -> jax.Array:
    """[1, H, Q, S] float32 biases for positions of queries and keys."""
    buckets_QS = relative_buckets(
      keys_S[None, :] - queries_Q[:, None],
      self.config.relpos_buckets,
      self.config.relpos_max_distance,
      self.bidirectional,
    )
    return jnp.take(self.rel_embedding, buckets_QS, axis=1)[None]


def dropout(config: T5Config) -> nn.Dropout:
  """Dropout with one mask for all positions, as T5X has it."""
  return nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))


class T5Projections(nn.Module):
  """Query, key, value and output maps of an attention, without biases.

  Attributes:
    config: sizes.
  """

  config: T5Config

  def setup(self):
    config = self.config
    init = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
    # The variance takes the place of dividing the scores by sqrt(head_dim).
    query_init = nn.initializers.variance_scaling(
      1.0 / config.head_dim, 'fan_in', 'normal'
    )
    joined = config.num_heads * config.head_dim
    into, out_of = ('embed', 'joined_kv'), ('joined_kv', 'embed')
    dense = functools.partial(layers.Dense, dtype=config.dtype)
    self.query = dense(joined, into, kernel_init=query_init)
    self.key = dense(joined, into, kernel_init=init)
    self.value = dense(joined, into, kernel_init=init)
    self.out = dense(config.emb_dim, out_of, kernel_init=init)
    self.dropout = dropout(config)

  def heads(self, joined: jax.Array) -> jax.Array:
    return layers.split_heads(joined, self.config.num_heads)

  def attend(self, query_BHQD, key_BHSD, value_BHSD, bias, deterministic):
    """[B, Q, heads x head_dim] attended values, before the output map."""
    drop = functools.partial(self.dropout, deterministic=deterministic)
    attended = layers.attend(query_BHQD, key_BHSD, value_BHSD, bias, drop)
    return layers.join_heads(attended)


class T5SelfAttention(T5Projections):
  """Self-attention over a whole sequence."""

  def __call__(self, inputs_BSM, bias_BHSS, deterministic: bool):
    maps = self.query, self.key, self.value
    read = [self.heads(dense(inputs_BSM)) for dense in maps]
    return self.out(self.attend(*read, bias_BHSS, deterministic))


class T5Mlp(nn.Module):
  """The feed-forward block; gated when there are two activations.

  Attributes:
    config: sizes.
  """

  config: T5Config

  @nn.compact
  def __call__(self, inputs_BSM, deterministic: bool):
    config = self.config
    init = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
    dense = functools.partial(
      layers.Dense, dtype=config.dtype, kernel_init=init
    )
    gated = len(config.mlp_activations) > 1
    hidden = None
    for i, activation in enumerate(config.mlp_activations):
      name = f'wi_{i}' if gated else 'wi'
      part = dense(config.mlp_dim, ('embed', 'mlp'), name=name)(inputs_BSM)
      part = layers.activation(activation)(part)
      hidden = part if hidden is None else hidden * part
    hidden = dropout(config)(hidden, deterministic=deterministic)
    hidden = layers.constrain(hidden, 'batch', 'length', 'mlp')
    return dense(config.emb_dim, ('mlp', 'embed'), name='wo')(hidden)


def norm(config: T5Config) -> layers.RootMeanSquareNorm:
  """T5's layer norm with the settings of a configuration."""
  return layers.RootMeanSquareNorm(config.norm_epsilon, config.dtype)


class T5EncoderLayer(nn.Module):
  """Norm before, residual after attention and feed-forward block.

  Attributes:
    config: sizes.
  """

  config: T5Config

  def setup(self):
    self.pre_attention_layer_norm = norm(self.config)
    self.attention = T5SelfAttention(self.config)
    self.pre_mlp_layer_norm = norm(self.config)
    self.mlp = T5Mlp(self.config)
    self.dropout = dropout(self.config)

  def __call__(self, states_BSM, bias_BHSS, deterministic: bool):
    attended = self.attention(
      self.pre_attention_layer_norm(states_BSM), bias_BHSS, deterministic
    )
    states_BSM += self.dropout(attended, deterministic=deterministic)
    hidden = self.mlp(self.pre_mlp_layer_norm(states_BSM), deterministic)
    states_BSM += self.dropout(hidden, deterministic=deterministic)
    return layers.constrain(states_BSM, 'batch', 'length', 'embed')


class T5EncoderStack(nn.Module):
  """The layers of the encoder with their shared position bias.

  Attributes:
    config: sizes.
  """

  config: T5Config

  def setup(self):
    config = self.config
    self.relpos_bias = RelativePositionBias(config, bidirectional=True)
    layer = T5EncoderLayer
    if config.remat != 'none':
      layer = rematerialised(layer, config.remat)
    self.layers = [layer(config) for _ in range(config.num_encoder_layers)]
    self.encoder_norm = norm(config)
    self.dropout = dropout(config)

  def __call__(self, inputs_BSM, mask_BS, deterministic: bool) -> jax.Array:
    positions_S = jnp.arange(inputs_BSM.shape[1])
    bias_BHSS = layers.attention_bias(mask_BS) + self.relpos_bias(
      positions_S, positions_S
    )
    states = self.dropout(inputs_BSM, deterministic=deterministic)
    states = layers.constrain(states, 'batch', 'length', 'embed')
    for layer in self.layers:
      states = layer(states, bias_BHSS, deterministic)
    return self.dropout(self.encoder_norm(states), deterministic=deterministic)


def token_table(config: T5Config) -> layers.Embed:
  """The table of token vectors, shared by encoder, decoder and v1.0's head."""
  return layers.Embed(config.vocab_size, config.emb_dim, dtype=config.dtype)


class T5Encoder(nn.Module):
  """Token ids to states; padding (id 0) is never read.

  Attributes:
    config: sizes.
  """

  config: T5Config

  def setup(self):
    self.token_embedder = token_table(self.config)
    self.encoder = T5EncoderStack(self.config)

  def __call__(self, tokens_BS, *, deterministic: bool = True) -> jax.Array:
    """Encodes a batch.

    Args:
      tokens_BS: int32 ids, padded with 0.
      deterministic: False applies dropout, with the rng named 'dropout'.

    Returns:
      [B, S, E] states; those of padding have no meaning.
    """
    mask_BS = layers.token_mask(tokens_BS)
    return self.encoder(self.token_embedder(tokens_BS), mask_BS, deterministic)
