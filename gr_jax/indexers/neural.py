"""Neural quantization: a head for every position scores its codes."""

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


@dataclasses.dataclass(frozen=True)
class NeuralConfig:
  """Neural quantization with a two-layer head a position.

  Attributes:
    positions: L, codes of an identifier.
    codes: K, codes of each position: one number, or one a position.
    sampling: how codes are drawn while training.
    initialisation: as ResidualConfig's.
    conditioned: whether a head sees what the codewords so far left of the
      vector (it then starts as residual k-means) or the vector alone (it then
      starts as product k-means).
    hidden: width of the heads' hidden layer.
  """

  positions: int = 8
  codes: int | tuple[int, ...] = 128
  sampling: SamplingConfig = SamplingConfig()
  initialisation: str = 'coded'
  conditioned: bool = True
  hidden: int = 128

  @property
  def code_sizes(self):
    """Codes of each position."""
    return interface.code_sizes(self.positions, self.codes)


class NeuralIndexer(nn.Module):
  """p_t = softmax((2 (x + f_t(x)) . K_t,k - b_t,k) / tau), x = h_d or r_t.

  The neural quantization module of ASI++ (arXiv 2405.14280), our
  reconstruction: keys K and codewords E are apart, so that what a code stands
  for and when it is chosen are learned separately; f_t starts at zero.

  Attributes:
    config: sizes and sampling.
    width: D, of the vectors.
  """

  config: NeuralConfig
  width: int

  def setup(self):
    config = self.config
    sizes = config.code_sizes
    self.codebooks_LKD = interface.learned_codebooks(sizes, self.width)
    self.keys_LKD = interface.learned_codebooks(sizes, self.width, 'keys')
    self.absent_LK = interface.absent_codes(sizes)

    zeros = nn.initializers.zeros_init()
    count, hidden = config.positions, config.hidden
    self.bias_LK = parameter(
      'bias', zeros, (count, max(sizes)), ('code_positions', 'codes')
    )
    self.into_LDM = parameter(
      'into',
      nn.initializers.lecun_normal(batch_axis=(0,)),
      (count, self.width, hidden),
      ('code_positions', 'width', 'mlp'),
    )
    self.out_LMD = parameter(
      'out',
      zeros,
      (count, hidden, self.width),
      ('code_positions', 'mlp', 'embed'),
    )

  def __call__(self, vectors_BD, *, temperature, noise, usage_LK, rng):
    """Codes of a batch of documents, as ResidualIndexer's."""

    def step(residual_BD, inputs):
      head, codebook_KD, usage_K, key = inputs
      probs_BK, sample_BK = sample_codes(
        self._scores(vectors_BD, residual_BD, head),
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
    _, by_position = jax.lax.scan(
      step, vectors_BD, (self._heads(), self.codebooks_LKD, usage_LK, keys)
    )
    return interface.assignment(by_position)

  def _heads(self):
    """What `_scores` reads, position by position."""
    return (
      self.keys_LKD,
      self.bias_LK,
      self.into_LDM,
      self.out_LMD,
      self.absent_LK,
    )

  def _scores(self, vectors_BD, residual_BD, head):
    """[B, K] scores of a position's codes, in squared distance."""
    keys_KD, bias_K, into_DM, out_MD, absent_K = head
    seen_BD = residual_BD if self.config.conditioned else vectors_BD
    # The index must choose what training chose: at the highest precision.
    with jax.default_matmul_precision('highest'):
      moved_BD = seen_BD + jax.nn.relu(seen_BD @ into_DM) @ out_MD
      return (2 * moved_BD @ keys_KD.T) - bias_K[None] + absent_K[None]

  def candidates(self, vectors_BD, beams):
    """[B, W, L] identifiers, the nearest first, and their costs [B, W]."""
    vectors_XD = jnp.repeat(vectors_BD, beams, axis=0)

    def cost(before_X, residual_XD, head):
      scores_XK = self._scores(vectors_XD, residual_XD, head)
      if self.config.conditioned:
        # What is left of the vector after each code, as for residual codes.
        before_X = jnp.sum(residual_XD**2, axis=-1)
      return before_X[:, None] - scores_XK

    return cheapest_identifiers(
      cost, vectors_BD, self._heads(), self.codebooks_LKD, beams
    )

  def codebooks(self):
    """[L, K, D] codewords."""
    return self.codebooks_LKD
