"""One interface for all encoders: token ids to states and a pooled vector."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from gr_jax.models import layers
from gr_jax.models.bert import BertConfig, BertEncoder
from gr_jax.models.t5 import T5Config, T5Encoder
from gr_jax.precision import widened
from gr_jax.types import check_option

POOLINGS = ('mean', 'first')


class EncoderOutput(struct.PyTreeNode):
  """What an encoder says of a batch of texts.

  Attributes:
    states_BSE: a state of each token, in the encoder's dtype.
    mask_BS: True where a token is text and not padding.
    pooled_BE: float32, one vector a text, not normalised.
  """

  states_BSE: jax.Array
  mask_BS: jax.Array
  pooled_BE: jax.Array


def pool(states_BSE, mask_BS, pooling: str) -> jax.Array:
  """Pools states over the tokens of each text, in float32.

  Args:
    states_BSE: states of tokens.
    mask_BS: which tokens are text.
    pooling: 'mean' of the text's states, or the state of the 'first' token.

  Returns:
    [B, E] float32; zeros for the mean of a row without text.
  """
  states_BSE = widened(states_BSE)
  if pooling == 'first':
    return states_BSE[:, 0]
  total_BE = jnp.sum(states_BSE, axis=1, where=mask_BS[:, :, None])
  return total_BE / jnp.maximum(jnp.sum(mask_BS, axis=1, keepdims=True), 1)


class Encoder(nn.Module):
  """An encoder with pooling; its parameters are those of the encoder alone.

  Attributes:
    config: a T5Config or a BertConfig; its type chooses the encoder.
    pooling: 'mean' or 'first'.
  """

  config: T5Config | BertConfig
  pooling: str = 'mean'

  def setup(self):
    check_option('RetrieverConfig.pooling', self.pooling, POOLINGS)
    kind = BertEncoder if isinstance(self.config, BertConfig) else T5Encoder
    self.transformer = kind(self.config)
    # The tree of imported weights fits without a name put before it.
    nn.share_scope(self, self.transformer)

  def __call__(self, tokens_BS, *, deterministic: bool = True) -> EncoderOutput:
    """Encodes a batch of token ids, padded with 0."""
    states_BSE = self.transformer(tokens_BS, deterministic=deterministic)
    mask_BS = layers.token_mask(tokens_BS)
    pooled_BE = pool(states_BSE, mask_BS, self.pooling)
    return EncoderOutput(states_BSE, mask_BS, pooled_BE)
