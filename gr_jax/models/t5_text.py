"""The whole T5: text in, scores of the tokens of another text out."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.models import layers
from gr_jax.models.t5 import T5Config, T5EncoderStack, token_table
from gr_jax.models.t5_collection import T5CollectionStack


class T5TextDecoder(T5CollectionStack):
  """The decoder stack with the output head of version 1.1."""

  def setup(self):
    super().setup()
    if not self.config.logits_via_embedding:
      self.logits_dense = layers.Dense(
        features=self.config.vocab_size,
        axes=('embed', 'vocab'),
        # T5X computes logits in float32 whatever the states are.
        dtype='float32',
        kernel_init=nn.initializers.variance_scaling(
          1.0, 'fan_in', 'truncated_normal'
        ),
      )

  def logits(self, states_RLM) -> jax.Array:
    """[R, L, V] float32 scores of the untied head."""
    return self.logits_dense(states_RLM)


class T5(nn.Module):
  """Encoder, text decoder and output head; parameters as in T5X.

  Attributes:
    config: sizes.
  """

  config: T5Config

  def setup(self):
    self.token_embedder = token_table(self.config)
    self.encoder = T5EncoderStack(self.config)
    self.decoder = T5TextDecoder(self.config)

  def __call__(self, tokens_BS, target_inputs_BL, *, deterministic=True):
    """[B, L, V] float32 logits of the next token of each target prefix."""
    mask_BS = layers.token_mask(tokens_BS)
    states_BSE = self.encode(tokens_BS, deterministic=deterministic)
    outputs_BLM = self.decoder(
      self.token_embedder(target_inputs_BL),
      states_BSE,
      mask_BS,
      deterministic=deterministic,
    )
    return self.logits(outputs_BLM)

  def encode(self, tokens_BS, *, deterministic=True):
    """[B, S, E] states of texts."""
    return self.encoder(
      self.token_embedder(tokens_BS),
      layers.token_mask(tokens_BS),
      deterministic,
    )

  def logits(self, outputs_BLM):
    """[B, L, V] float32 logits from the decoder's states."""
    if not self.config.logits_via_embedding:
      return self.decoder.logits(outputs_BLM)
    # The tied table has unit variance, so the states are scaled down.
    scaled = outputs_BLM * self.config.emb_dim**-0.5
    return self.token_embedder.attend(scaled).astype(jnp.float32)
