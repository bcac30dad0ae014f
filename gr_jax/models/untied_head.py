"""A head of the code decoder that learns the geometry of codes anew."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from gr_jax.parameters import parameter
from gr_jax.precision import widened


class UntiedHead(nn.Module):
  """Scores codes by a linear map of each position's own.

  Attributes:
    config: models.code_decoder.CodeDecoderConfig.
    width: D, unused: this head does not look at codewords.
    sizes: codes of each position.
  """

  config: Any
  width: int
  sizes: tuple[int, ...]

  def setup(self):
    self.head_LMK = parameter(
      'head',
      nn.initializers.lecun_normal(batch_axis=(0,)),
      (len(self.sizes), self.config.stack.emb_dim, max(self.sizes)),
      ('code_positions', 'embed', 'codes'),
    )

  def __call__(
    self, hidden_BLM, residuals_BLD, codebooks_LKD, share=1, levels=slice(None)
  ):
    """[B, L, K] scores, see code_decoder.TiedHead."""
    del residuals_BLD, codebooks_LKD, share
    return jnp.einsum(
      'BLM,LMK->BLK', widened(hidden_BLM), self.head_LMK[levels]
    )
