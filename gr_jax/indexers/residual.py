"""Residual quantization: each position codes what the earlier ones left."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.indexers import candidates, interface
from gr_jax.indexers.conditioning import prefix_maps
from gr_jax.indexers.interface import squared_distances
from gr_jax.indexers.sampling import (
  SamplingConfig,
  chosen_codewords,
  sample_codes,
)


@dataclasses.dataclass(frozen=True)
class ResidualConfig:
  """Residual quantization with learned codebooks.

  Attributes:
    positions: L, codes of an identifier.
    codes: K, size of each position's codebook: one number, or one a position.
    sampling: how codes are drawn while training.
    initialisation: what k-means starts the codebooks from: 'coded' (what
      identifiers code, see RetrieverConfig.query_share), 'documents',
      'queries' (the mean vector of a document's training queries; bottleneck-
      minimal indexing, arXiv 2405.10974), 'half' (half of each), or 'none' for
      random codebooks. The training queries are the labelled and the
      generated ones that are trained on ('labelled', 'pseudo'); without them
      the 'extractive' ones, without those the 'spans'. A document without any
      stands for itself.
    balanced: whether that k-means gives every code of a position an equal
      share of the documents (as GenRet starts, arXiv 2304.04171).
    conditioned: whether a learned map of the codewords so far moves what a
      position looks for; it starts at zero.
  """

  positions: int = 8
  codes: int | tuple[int, ...] = 128
  sampling: SamplingConfig = SamplingConfig()
  initialisation: str = 'coded'
  balanced: bool = True
  conditioned: bool = False

  @property
  def code_sizes(self):
    """Codes of each position."""
    return interface.code_sizes(self.positions, self.codes)


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
    sizes = self.config.code_sizes
    self.codebooks_LKD = interface.learned_codebooks(sizes, self.width)
    self.absent_LK = interface.absent_codes(sizes)
    self.condition_LDD = None
    if self.config.conditioned:
      self.condition_LDD = prefix_maps(len(sizes), self.width)

  def __call__(self, vectors_BD, *, temperature, noise, usage_LK, rng):
    """Codes of a batch of documents, see interface.CodeAssignment.

    Args:
      vectors_BD: unit vectors of the documents.
      temperature: tau of the Gumbel-softmax, in squared distance.
      noise: scale of the Gumbel noise, in squared distance.
      usage_LK: recent share of use of each code.
      rng: key of the noise.

    Returns:
      The CodeAssignment.
    """

    def step(residual_BD, inputs):
      codebook_KD, absent_K, condition_DD, usage_K, key = inputs
      wanted_BD = residual_BD
      if condition_DD is not None:
        wanted_BD += (vectors_BD - residual_BD) @ condition_DD
      probs_BK, sample_BK = sample_codes(
        absent_K[None] - squared_distances(wanted_BD, codebook_KD),
        self.config.sampling,
        temperature=temperature,
        noise=noise,
        usage_K=usage_K,
        rng=key,
      )
      codeword_BD = chosen_codewords(
        sample_BK, codebook_KD, residual_BD, self.config.sampling
      )
      found = (probs_BK, sample_BK, codeword_BD, residual_BD)
      return residual_BD - codeword_BD, found

    keys = jax.random.split(rng, self.config.positions)
    books = self.codebooks_LKD, self.absent_LK, self.condition_LDD
    _, by_position = jax.lax.scan(step, vectors_BD, (*books, usage_LK, keys))
    return interface.assignment(by_position)

  def candidates(self, vectors_BD, beams):
    """Identifiers by squared distance to what they stand for.

    Args:
      vectors_BD: unit vectors of documents.
      beams: W, identifiers a document.

    Returns:
      [B, W, L] identifiers, the nearest first, and their costs [B, W].
    """
    if not self.config.conditioned:
      return candidates.nearest_identifiers(
        vectors_BD, self.codebooks_LKD, self.absent_LK, beams
      )
    vectors_XD = jnp.repeat(vectors_BD, beams, axis=0)

    def cost(before_X, residual_XD, part):
      del before_X
      codebook_KD, absent_K, condition_DD = part
      wanted_XD = residual_XD + (vectors_XD - residual_XD) @ condition_DD
      return squared_distances(wanted_XD, codebook_KD) - absent_K[None]

    return candidates.cheapest_identifiers(
      cost,
      vectors_BD,
      (self.codebooks_LKD, self.absent_LK, self.condition_LDD),
      self.codebooks_LKD,
      beams,
    )

  def codebooks(self):
    """[L, K, D] codewords."""
    return self.codebooks_LKD
