"""Random identifiers: the control that only memory can serve."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.indexers.interface import CodeAssignment, learned_codebooks


@dataclasses.dataclass(frozen=True)
class RandomConfig:
  """Codes drawn by the document's number, without a look at its text.

  Attributes:
    positions: L, codes of an identifier.
    codes: K, codes of each position.
    seed: of the draw.
  """

  positions: int = 8
  codes: int = 128
  seed: int = 0


class RandomIndexer(nn.Module):
  """Uniform random codes with learned codewords, fixed for a document.

  Attributes:
    config: sizes and seed.
    width: D, of the codewords.
  """

  config: RandomConfig
  width: int

  def setup(self):
    config = self.config
    self.codebooks_LKD = learned_codebooks(
      config.positions, config.codes, self.width
    )

  def __call__(self, vectors_BD, documents_B, *, temperature, noise, rng):
    """The documents' codes as one-hot samples; nothing is drawn per step."""
    del temperature, noise, rng
    codes_BL = self.assign(vectors_BD, documents_B)
    onehot_BLK = jax.nn.one_hot(codes_BL, self.config.codes)
    codewords_BLD = jnp.einsum('BLK,LKD->BLD', onehot_BLK, self.codebooks_LKD)
    return CodeAssignment(
      probs_BLK=onehot_BLK,
      sample_BLK=onehot_BLK,
      codes_BL=codes_BL,
      codewords_BLD=codewords_BLD,
      quantised_BD=jnp.sum(codewords_BLD, axis=1),
    )

  def assign(self, vectors_BD, documents_B):
    """[B, L] int32 codes of the documents, from their numbers alone."""
    del vectors_BD
    key = jax.random.key(self.config.seed)

    def draw(document):
      return jax.random.randint(
        jax.random.fold_in(key, document),
        (self.config.positions,),
        0,
        self.config.codes,
      )

    return jax.vmap(draw)(documents_B)

  def codebooks(self):
    """[L, K, D] codewords."""
    return self.codebooks_LKD
