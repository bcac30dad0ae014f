"""Residual quantization: each position codes what the earlier ones left."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.indexers.gumbel import gumbel_softmax
from gr_jax.indexers.interface import CodeAssignment, learned_codebooks


@dataclasses.dataclass(frozen=True)
class ResidualConfig:
  """Residual quantization with learned codebooks.

  Attributes:
    positions: L, codes of an identifier.
    codes: K, size of each position's codebook.
    straight_through: one-hot samples in the forward pass (else soft ones).
    initialisation: what k-means starts the codebooks from: 'documents',
      'queries' (the mean vector of a document's training queries), 'half'
      (half of each, our reconstruction of bottleneck-minimal indexing, arXiv
      2405.10974), or 'none' for random codebooks. The training queries are
      the labelled and the generated ones that are trained on ('labelled',
      'pseudo'); without them the 'extractive' ones, without those the
      'spans'. A document without any stands for itself.
  """

  positions: int = 8
  codes: int = 128
  straight_through: bool = True
  initialisation: str = 'half'


class ResidualIndexer(nn.Module):
  """z_t = argmin_k |r_t - E_t,k|^2, r_0 = h_d, r_t+1 = r_t - y_t E_t.

  The residual quantization module of ASI++ (arXiv 2405.14280), our
  reconstruction: scores are negative squared distances.

  Attributes:
    config: sizes and sampling.
    width: D, of the vectors.
  """

  config: ResidualConfig
  width: int

  def setup(self):
    config = self.config
    self.codebooks_LKD = learned_codebooks(
      config.positions, config.codes, self.width
    )

  def __call__(self, vectors_BD, documents_B, *, temperature, noise, rng):
    """Codes of a batch of documents, see interface.CodeAssignment.

    Args:
      vectors_BD: unit vectors of the documents.
      documents_B: unused: the codes depend on the vectors alone.
      temperature: tau of the Gumbel-softmax, in squared distance.
      noise: scale of the Gumbel noise, in squared distance.
      rng: key of the noise.

    Returns:
      The CodeAssignment.
    """
    del documents_B

    def step(residual_BD, inputs):
      codebook_KD, key = inputs
      logits_BK = -squared_distances(residual_BD, codebook_KD)
      sample_BK = gumbel_softmax(
        logits_BK,
        temperature=temperature,
        noise=noise,
        straight_through=self.config.straight_through,
        rng=key,
      )
      codeword_BD = jnp.matmul(
        sample_BK, codebook_KD, precision=jax.lax.Precision.HIGHEST
      )
      probs_BK = jax.nn.softmax(logits_BK / temperature)
      return residual_BD - codeword_BD, (probs_BK, sample_BK, codeword_BD)

    keys = jax.random.split(rng, self.config.positions)
    vectors_BD = vectors_BD.astype(jnp.float32)
    residual_BD, (probs_LBK, sample_LBK, codewords_LBD) = jax.lax.scan(
      step, vectors_BD, (self.codebooks_LKD, keys)
    )
    sample_BLK = sample_LBK.swapaxes(0, 1)
    return CodeAssignment(
      probs_BLK=probs_LBK.swapaxes(0, 1),
      sample_BLK=sample_BLK,
      codes_BL=jnp.argmax(sample_BLK, axis=-1).astype(jnp.int32),
      codewords_BLD=codewords_LBD.swapaxes(0, 1),
      quantised_BD=vectors_BD - residual_BD,
    )

  def assign(self, vectors_BD, documents_B):
    """[B, L] codes without noise; the same vectors give the same codes."""
    del documents_B
    return residual_codes(vectors_BD, self.codebooks_LKD)

  def codebooks(self):
    """[L, K, D] codewords."""
    return self.codebooks_LKD


def squared_distances(vectors_BD, codebook_KD):
  """[B, K] squared distances of vectors to codewords, in float32.

  At the highest precision: large terms cancel, and the fewer bits of an
  accelerator's default would choose other codes than a CPU does.
  """
  products_BK = jnp.matmul(
    vectors_BD, codebook_KD.T, precision=jax.lax.Precision.HIGHEST
  )
  return (
    jnp.sum(vectors_BD**2, axis=-1)[:, None]
    - 2 * products_BK
    + jnp.sum(codebook_KD**2, axis=-1)[None, :]
  )


def residual_codes(vectors_BD, codebooks_LKD):
  """[B, L] int32 nearest codes, position by position."""

  def step(residual_BD, codebook_KD):
    codes_B = jnp.argmin(squared_distances(residual_BD, codebook_KD), axis=-1)
    return residual_BD - codebook_KD[codes_B], codes_B

  _, codes_LB = jax.lax.scan(
    step, vectors_BD.astype(jnp.float32), codebooks_LKD
  )
  return codes_LB.T.astype(jnp.int32)
