"""The BERT encoder, as sentence encoders of the MiniLM and MPNet kinds use it.

Devlin et al. 2018 (arXiv 1810.04805): learned positions, layer norm after
each residual, exact gelu; MPNet (Song et al. 2020, arXiv 2004.09297) has scores
of relative positions besides and no token types. The pooler and the
masked-token head are left out, as no sentence encoder reads them.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.models import layers
from gr_jax.models.rematerialisation import rematerialised
from gr_jax.models.t5 import RelativePositionBias, T5Config
from gr_jax.parameters import parameter
from gr_jax.precision import widened
from gr_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """Sizes of a BERT encoder; the defaults are those of MiniLM-L6.

  Attributes:
    vocab_size: entries of the WordPiece vocabulary.
    emb_dim: width of the states.
    num_heads: attention heads.
    num_layers: encoder layers.
    mlp_dim: width inside the feed-forward blocks.
    max_length: learned positions, in tokens; no text may be longer.
    type_vocab_size: token types; sentence encoders use the first alone; 0 for
      none, as MPNet.
    relpos_buckets: of relative distances, whose learned scores all layers add
      to their attention, as T5Config has them; 0 for none.
    activation: of the feed-forward blocks, a name in layers.ACTIVATIONS.
    norm_epsilon: added to the variance in layer norms.
    dropout_rate: share of activations and attention weights zeroed.
    initializer_stddev: of fresh weights.
    dtype: of the computation, 'float32' or 'bfloat16'.
    remat: what layers compute again for their gradients, as T5Config has it.
  """

  vocab_size: int = 30522
  emb_dim: int = 384
  num_heads: int = 12
  num_layers: int = 6
  mlp_dim: int = 1536
  max_length: int = 512
  type_vocab_size: int = 2
  relpos_buckets: int = 0
  activation: str = 'gelu'
  norm_epsilon: float = 1e-12
  dropout_rate: float = 0.1
  initializer_stddev: float = 0.02
  dtype: str = 'float32'
  remat: str = 'none'


class LayerNorm(nn.Module):
  """The usual layer norm, with scale and bias.

  Attributes:
    epsilon: added to the variance.
    dtype: of the result; the statistics are float32.
  """

  epsilon: float = 1e-12
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    inputs = widened(inputs)
    width = inputs.shape[-1:]
    scale = parameter('scale', nn.initializers.ones_init(), width, ('embed',))
    bias = parameter('bias', nn.initializers.zeros_init(), width, ('embed',))
    centred = inputs - jnp.mean(inputs, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    outputs = centred * jax.lax.rsqrt(variance + self.epsilon)
    outputs *= jnp.broadcast_to(scale, outputs.shape)
    outputs += jnp.broadcast_to(bias, outputs.shape)
    return outputs.astype(self.dtype)


class BertSelfAttention(nn.Module):
  """Bidirectional self-attention with biases in every projection."""

  config: BertConfig

  def setup(self):
    config = self.config
    self.query = self._dense(('embed', 'joined_kv'))
    self.key = self._dense(('embed', 'joined_kv'))
    self.value = self._dense(('embed', 'joined_kv'))
    self.out = self._dense(('joined_kv', 'embed'))
    self.dropout = nn.Dropout(config.dropout_rate)

  def _dense(self, axes: tuple[str, str]) -> layers.Dense:
    config = self.config
    return layers.Dense(
      features=config.emb_dim,
      axes=axes,
      use_bias=True,
      dtype=config.dtype,
      kernel_init=nn.initializers.normal(config.initializer_stddev),
    )

  def __call__(self, states_BSE, bias_BHSS, deterministic: bool):
    config = self.config
    scale = (config.emb_dim // config.num_heads) ** -0.5
    attended = layers.attend(
      layers.split_heads(self.query(states_BSE) * scale, config.num_heads),
      layers.split_heads(self.key(states_BSE), config.num_heads),
      layers.split_heads(self.value(states_BSE), config.num_heads),
      bias_BHSS,
      lambda weights: self.dropout(weights, deterministic=deterministic),
    )
    return self.out(layers.join_heads(attended))


class BertMlp(nn.Module):
  """The feed-forward block."""

  config: BertConfig

  @nn.compact
  def __call__(self, states_BSE):
    config = self.config
    init = nn.initializers.normal(config.initializer_stddev)
    hidden = layers.Dense(
      features=config.mlp_dim,
      axes=('embed', 'mlp'),
      use_bias=True,
      dtype=config.dtype,
      kernel_init=init,
      name='wi',
    )(states_BSE)
    hidden = layers.activation(config.activation)(hidden)
    hidden = layers.constrain(hidden, 'batch', 'length', 'mlp')
    return layers.Dense(
      features=config.emb_dim,
      axes=('mlp', 'embed'),
      use_bias=True,
      dtype=config.dtype,
      kernel_init=init,
      name='wo',
    )(hidden)


class BertLayer(nn.Module):
  """Attention and feed-forward block, each followed by residual and norm."""

  config: BertConfig

  def setup(self):
    config = self.config
    self.attention = BertSelfAttention(config)
    self.mlp = BertMlp(config)
    self.attention_norm = LayerNorm(config.norm_epsilon, config.dtype)
    self.mlp_norm = LayerNorm(config.norm_epsilon, config.dtype)
    self.dropout = nn.Dropout(config.dropout_rate)

  def __call__(self, states_BSE, bias_BHSS, deterministic: bool):
    attended = self.attention(states_BSE, bias_BHSS, deterministic)
    attended = self.dropout(attended, deterministic=deterministic)
    states_BSE = self.attention_norm(states_BSE + attended)
    hidden = self.dropout(self.mlp(states_BSE), deterministic=deterministic)
    states_BSE = self.mlp_norm(states_BSE + hidden)
    return layers.constrain(states_BSE, 'batch', 'length', 'embed')


class BertLayers(nn.Module):
  """The stack of layers, named apart from the embeddings as in T5X."""

  config: BertConfig

  def setup(self):
    config, layer = self.config, BertLayer
    if config.remat != 'none':
      layer = rematerialised(layer, config.remat)
    self.layers = [layer(config) for _ in range(config.num_layers)]

    if config.relpos_buckets:
      self.relpos_bias = RelativePositionBias(
        T5Config(
          num_heads=config.num_heads, relpos_buckets=config.relpos_buckets
        ),
        bidirectional=True,
      )

  def __call__(self, states_BSE, bias_B11S, deterministic: bool):
    bias_BHSS = bias_B11S
    if self.config.relpos_buckets:
      places_S = jnp.arange(states_BSE.shape[1])
      bias_BHSS = bias_B11S + self.relpos_bias(places_S, places_S)
    for layer in self.layers:
      states_BSE = layer(states_BSE, bias_BHSS, deterministic)
    return states_BSE


class BertEncoder(nn.Module):
  """Token ids to states; padding (id 0) is never read.

  Attributes:
    config: sizes.
  """

  config: BertConfig

  def setup(self):
    config = self.config
    self.token_embedder = self._embed(config.vocab_size, 'vocab')
    self.position_embedder = self._embed(config.max_length, 'abspos_buckets')
    if config.type_vocab_size:
      self.type_embedder = self._embed(config.type_vocab_size, 'abspos_buckets')
    self.embedding_norm = LayerNorm(config.norm_epsilon, config.dtype)
    self.dropout = nn.Dropout(config.dropout_rate)
    self.encoder = BertLayers(config)

  def _embed(self, size: int, axis: str) -> layers.Embed:
    return layers.Embed(
      size=size,
      features=self.config.emb_dim,
      axes=(axis, 'embed'),
      dtype=self.config.dtype,
      stddev=self.config.initializer_stddev,
    )

  def __call__(
    self, tokens_BS, types_BS=None, *, deterministic: bool = True
  ) -> jax.Array:
    """Encodes a batch.

    Args:
      tokens_BS: int32 ids, [CLS] first, padded with 0 at the end.
      types_BS: int32 type of each token; the first of all when None.
      deterministic: False applies dropout, with the rng named 'dropout'.

    Returns:
      [B, S, E] states; those of padding have no meaning.
    """
    length = tokens_BS.shape[1]
    if length > self.config.max_length:
      raise UserError(
        f'The BERT encoder has {self.config.max_length} positions, but the '
        f'texts have {length} tokens: lower the length in tokens.'
      )
    # One position, and without types one type, for all rows: [1, S, E].
    place = self.position_embedder(jnp.arange(length)[None])
    if self.config.type_vocab_size:
      if types_BS is None:
        types_BS = jnp.zeros((1, length), jnp.int32)
      place = place + self.type_embedder(types_BS)
    states_BSE = self.token_embedder(tokens_BS) + place
    states_BSE = self.embedding_norm(states_BSE)
    states_BSE = self.dropout(states_BSE, deterministic=deterministic)
    states_BSE = layers.constrain(states_BSE, 'batch', 'length', 'embed')
    bias_B11S = layers.attention_bias(layers.token_mask(tokens_BS))
    return self.encoder(states_BSE, bias_B11S, deterministic)
