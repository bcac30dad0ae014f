"""Static identifiers: given before the codes train, and fixed from then on."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.indexers import interface
from gr_jax.types import check_option

# How each kind chooses identifiers is in clusterings.py and numberings.py.
NUMBERINGS = ('atomic', 'naive_string', 'random', 'hash')
CLUSTERINGS = (
  'hierarchical_kmeans',
  'pq',
  'rq_kmeans',
  'balanced_kmeans',
  'bottleneck_minimal',
)


@dataclasses.dataclass(frozen=True)
class StaticConfig:
  """Identifiers that do not learn; their codewords do, from generation.

  Attributes:
    kind: 'atomic' (one code a document: positions 1, codes N or more),
      'naive_string' (the digits of the document's number, base K), 'random',
      'hash' (of the document's id, so that the order of the corpus does not
      matter), 'hierarchical_kmeans' (DSI), 'pq', 'rq_kmeans',
      'balanced_kmeans' (residual k-means with an equal share of the documents
      for every code) or 'bottleneck_minimal' (residual k-means of the mean
      vector of a document's queries, arXiv 2405.10974).
    positions: L, codes of an identifier.
    codes: K, codes of each position: one number, or one a position.
    initialisation: what is clustered, as ResidualConfig's; the kinds that do
      not cluster do not read it, nor does 'bottleneck_minimal', which
      clusters queries.
  """

  kind: str = 'rq_kmeans'
  positions: int = 8
  codes: int | tuple[int, ...] = 128
  initialisation: str = 'documents'

  def __post_init__(self):
    check_option('StaticConfig.kind', self.kind, NUMBERINGS + CLUSTERINGS)

  @property
  def code_sizes(self):
    """Codes of each position."""
    return interface.code_sizes(self.positions, self.codes)


class StaticIndexer(nn.Module):
  """Returns the identifiers it is given, with learned codewords.

  Attributes:
    config: sizes and kind.
    width: D, of the codewords.
  """

  config: StaticConfig
  width: int

  def setup(self):
    sizes = self.config.code_sizes
    self.codebooks_LKD = interface.learned_codebooks(sizes, self.width)
    self.absent_LK = interface.absent_codes(sizes)

  def __call__(
    self, vectors_BD, known_BL, *, temperature, noise, usage_LK, rng
  ):
    """The documents' codes as one-hot samples; nothing is drawn per step."""
    del vectors_BD, temperature, noise, usage_LK, rng
    onehot_LBK = jax.nn.one_hot(known_BL.T, self.codebooks_LKD.shape[1])
    codewords_LBD = jnp.einsum('LBK,LKD->LBD', onehot_LBK, self.codebooks_LKD)
    return interface.assignment(
      (onehot_LBK, onehot_LBK, codewords_LBD, codewords_LBD)
    )

  def assign(self, vectors_BD, known_BL):
    """[B, L] int32 codes; a document that has none gets the nearest.

    Nearest in the residual codewords, position by position: the rule of
    residual and product k-means, our choice for all others.
    """
    nearest_BL = residual_codes(vectors_BD, self.codebooks_LKD, self.absent_LK)
    return jnp.where(known_BL >= 0, known_BL, nearest_BL)

  def codebooks(self):
    """[L, K, D] codewords."""
    return self.codebooks_LKD


def residual_codes(vectors_BD, codebooks_LKD, absent_LK):
  """[B, L] int32 nearest codes of what the earlier positions left."""

  def step(residual_BD, inputs):
    codebook_KD, absent_K = inputs
    scores_BK = absent_K[None] - interface.squared_distances(
      residual_BD, codebook_KD
    )
    codes_B = jnp.argmax(scores_BK, axis=-1)
    return residual_BD - codebook_KD[codes_B], codes_B

  _, codes_LB = jax.lax.scan(
    step, vectors_BD.astype(jnp.float32), (codebooks_LKD, absent_LK)
  )
  return codes_LB.T.astype(jnp.int32)
