"""Differentiable product quantization: each position codes a part."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.indexers import interface
from gr_jax.indexers.candidates import cheapest_identifiers
from gr_jax.indexers.sampling import (
  SamplingConfig,
  chosen_codewords,
  sample_codes,
)
from gr_jax.parameters import parameter
from gr_jax.precision import widened
from gr_jax.types import UserError, check_option

SCORES = ('centroid', 'softmax')


@dataclasses.dataclass(frozen=True)
class ProductConfig:
  """Differentiable product quantization (Chen et al., arXiv 1908.09756).

  Attributes:
    positions: L, parts of a vector; the vectors' width is a multiple of it.
    codes: K, codes of each part: one number, or one a position.
    sampling: how codes are drawn while training.
    initialisation: as ResidualConfig's.
    scores: 'centroid' (negative squared distance, DPQ-VQ) or 'softmax' (dot
      product, DPQ-SX).
    tied: whether the keys that are compared are the values that a code stands
      for.
    rotation: whether a learned rotation of the vectors comes before the cut
      into parts (as OPQ's; it starts as OPQ's).
  """

  positions: int = 8
  codes: int | tuple[int, ...] = 128
  sampling: SamplingConfig = SamplingConfig()
  initialisation: str = 'coded'
  scores: str = 'centroid'
  tied: bool = True
  rotation: bool = True

  def __post_init__(self):
    check_option('ProductConfig.scores', self.scores, SCORES)

  @property
  def code_sizes(self):
    """Codes of each position."""
    return interface.code_sizes(self.positions, self.codes)


class ProductIndexer(nn.Module):
  """z_t = argmin_k |(R h)_t - K_t,k|^2; codewords R^T of the values in part t.

  The differentiable product quantization module of ASI++ (arXiv 2405.14280),
  our reconstruction. R = (I - A)(I + A)^-1 with A skew-symmetric (Cayley), so
  that it stays a rotation whatever the optimizer does.

  Attributes:
    config: sizes and sampling.
    width: D, of the vectors.
  """

  config: ProductConfig
  width: int

  def setup(self):
    config = self.config
    if self.width % config.positions:
      raise UserError(
        f'product quantization cuts vectors of {self.width} into '
        f'{config.positions} parts: set ProductConfig.positions to a divisor'
      )
    sizes = config.code_sizes
    part = self.width // config.positions
    self.values_LKP = interface.learned_codebooks(sizes, part)
    self.keys_LKP = self.values_LKP
    if not config.tied:
      self.keys_LKP = interface.learned_codebooks(sizes, part, 'keys')
    self.absent_LK = interface.absent_codes(sizes)
    if config.rotation:
      self.skew_DD = parameter(
        'skew',
        nn.initializers.zeros_init(),
        (self.width, self.width),
        ('width', 'embed'),
      )

  def __call__(self, vectors_BD, *, temperature, noise, usage_LK, rng):
    """Codes of a batch of documents, as ResidualIndexer's."""
    turned_DD = self._rotation()
    parts_LBP = self._parts(vectors_BD, turned_DD)

    def sample(part_BP, scores_BK, values_KP, usage_K, key):
      probs_BK, sample_BK = sample_codes(
        scores_BK,
        self.config.sampling,
        temperature=temperature,
        noise=noise,
        usage_K=usage_K,
        rng=key,
      )
      value_BP = chosen_codewords(
        sample_BK, values_KP, part_BP, self.config.sampling
      )
      return probs_BK, sample_BK, value_BP

    probs_LBK, sample_LBK, values_LBP = jax.vmap(sample)(
      parts_LBP,
      self._scores(parts_LBP),
      self.values_LKP,
      usage_LK,
      jax.random.split(rng, self.config.positions),
    )
    codewords_LBD = self._whole(values_LBP, turned_DD)
    return interface.assignment(
      (probs_LBK, sample_LBK, codewords_LBD, parts_LBP)
    )

  def _rotation(self):
    """[D, D] rotation R; vectors are turned as h @ R."""
    if not self.config.rotation:
      return jnp.eye(self.width)
    return cayley(self.skew_DD)

  def _parts(self, vectors_BD, turned_DD):
    """[L, B, D / L] parts of the turned vectors."""
    turned_BD = jnp.matmul(
      widened(vectors_BD),
      turned_DD,
      precision=jax.lax.Precision.HIGHEST,
    )
    parts_BLP = turned_BD.reshape(len(turned_BD), self.config.positions, -1)
    return parts_BLP.swapaxes(0, 1)

  def _whole(self, values_LNP, turned_DD):
    """[L, N, D] vectors of parts: the other parts are zero, turned back."""
    parts_LPD = turned_DD.T.reshape(self.config.positions, -1, self.width)
    return jnp.einsum(
      'LNP,LPD->LND',
      values_LNP,
      parts_LPD,
      precision=jax.lax.Precision.HIGHEST,
    )

  def _scores(self, parts_LBP):
    """[L, B, K] scores of each part's codes."""
    if self.config.scores == 'centroid':
      scores_LBK = -jax.vmap(interface.squared_distances)(
        parts_LBP, self.keys_LKP
      )
    else:
      scores_LBK = jnp.einsum(
        'LBP,LKP->LBK',
        parts_LBP,
        self.keys_LKP,
        precision=jax.lax.Precision.HIGHEST,
      )
    return scores_LBK + self.absent_LK[:, None, :]

  def candidates(self, vectors_BD, beams):
    """[B, W, L] identifiers, the nearest first, and their costs [B, W]."""
    scores_LBK = self._scores(self._parts(vectors_BD, self._rotation()))

    def cost(before_X, residual_XD, scores_BK):
      del residual_XD
      return before_X[:, None] - jnp.repeat(scores_BK, beams, axis=0)

    return cheapest_identifiers(
      cost, vectors_BD, scores_LBK, self.codebooks(), beams
    )

  def codebooks(self):
    """[L, K, D] codewords."""
    return self._whole(self.values_LKP, self._rotation())


def cayley(skew_DD):
  """The rotation (I - A)(I + A)^-1 of A = (S - S^T) / 2."""
  skew_DD = (skew_DD - skew_DD.T) / 2
  eye_DD = jnp.eye(len(skew_DD), dtype=skew_DD.dtype)
  return jnp.linalg.solve(eye_DD + skew_DD, eye_DD - skew_DD)
