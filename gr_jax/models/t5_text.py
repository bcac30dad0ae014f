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

  def head(self) -> jax.Array:
    """[M, V] the untied head."""
    return self.logits_dense.get_variable('params', 'kernel')


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
    return self.logits(
      self._decoded(tokens_BS, target_inputs_BL, deterministic)
    )

  def before_head(self, tokens_BS, target_inputs_BL, *, deterministic=True):
    """What `objectives.text.text_loss` makes scores of, a part at a time.

    Args:
      tokens_BS: int32 ids of texts, padded with 0.
      target_inputs_BL: int32 ids before each that is to be written.
      deterministic: False applies dropout, with the rng named 'dropout'.

    Returns:
      [B, L, M] states and [M, V] head, both in the dtype of the computation:
      in bfloat16 scores are what a TPU makes of T5X's float32 operands.
    """
    outputs_BLM = self._decoded(tokens_BS, target_inputs_BL, deterministic)
    if self.config.logits_via_embedding:
      outputs_BLM = self._scaled(outputs_BLM)
      head_MV = self.token_embedder.embedding.T
    else:
      head_MV = self.decoder.head()
    return outputs_BLM, head_MV.astype(self.config.dtype)

  def _decoded(self, tokens_BS, target_inputs_BL, deterministic):
    return self.decoder(
      self.token_embedder(target_inputs_BL),
      self.encode(tokens_BS, deterministic=deterministic),
      layers.token_mask(tokens_BS),
      deterministic=deterministic,
    )

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
    scaled = self._scaled(outputs_BLM)
    return self.token_embedder.attend(scaled).astype(jnp.float32)

  def _scaled(self, outputs_BLM):
    """The tied table has unit variance, so the states are scaled down."""
    return outputs_BLM * self.config.emb_dim**-0.5
