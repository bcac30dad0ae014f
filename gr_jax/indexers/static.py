"""Static identifiers: given before the codes train, and fixed from then on."""

import dataclasses

from flax import linen as nn

from gr_jax.indexers import interface
from gr_jax.indexers.candidates import nearest_identifiers
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
  """Learned codewords of identifiers that are given.

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

  def candidates(self, vectors_BD, beams):
    """[B, W, L] identifiers, the nearest first, and their costs [B, W].

    For documents that have none yet. Nearest in the residual codewords: the
    rule of residual and product k-means, our choice for all others.
    """
    return nearest_identifiers(
      vectors_BD, self.codebooks_LKD, self.absent_LK, beams
    )

  def codebooks(self):
    """[L, K, D] codewords."""
    return self.codebooks_LKD
