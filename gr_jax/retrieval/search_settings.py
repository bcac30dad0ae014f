"""How an index is searched: settings that gin binds and an index remembers."""

import dataclasses
import math

from gr_jax.decoding.planning import Planning
from gr_jax.retrieval import fusion as fusions
from gr_jax.types import UserError, near_miss


@dataclasses.dataclass(frozen=True)
class SearchSettings:
  """How an index is searched.

  Attributes:
    beams: W, identifiers kept while decoding. More of them than documents are
      scored are of use: prefixes are kept or lost before their last codes have
      spoken, which then choose the documents.
    planning_weight: of the best dense score seen beneath a prefix, beside the
      score of its codes, in the choice of the beams that survive; 0 for none.
      In units of the decoder's scores: four times its sharpness, 80 as it
      starts, does well. Fewer beams are enough with it.
    planning_pool: prefixes that are looked at, for each beam.
    planning_documents: documents that are looked at beneath a prefix.
    fraction: documents scored for a query, as a share of the corpus.
    documents_scored: the same as a number, instead of the share.
    fusion: how the parts of the final score are joined: 'log_linear'
      (dense_weight * dense + generative_weight * generative) or 'reciprocal'
      (dense_weight * dense + reciprocal_weight / (reciprocal_decay * place of
      the identifier + 1)).
    generative_weight: of the identifier's score, for 'log_linear'.
    dense_weight: of the dot product of query and document vectors.
    reciprocal_weight: of the identifier's place, for 'reciprocal'.
    reciprocal_decay: how fast a place loses its worth, for 'reciprocal'.
    fit_on: split on which indexing chooses fusion and weights, instead of
      those above; '' to keep them. Collections without 'dev' keep them too.
    fit_measures: whose mean they are chosen for, of fusion.FIT_MEASURES.
    renormalised: whether the scores of an identifier's codes are
      log-probabilities among the codes that some document has there, as a
      generator with a mask before its softmax would have them, and not among
      all codes. Slower.
    batch_sizes: queries of a compiled program; smaller batches are padded to
      the next of them, larger ones are cut. Two CPU cores answer 1.4 times as
      many queries a second in eights as in thirty-twos; an accelerator wants
      more at once, as (1, 256).
    vector_type: 'float16' or 'float32', what the index keeps vectors in.
  """

  beams: int = 100
  planning_weight: float = 0.0
  planning_pool: int = 8
  planning_documents: int = 4
  fraction: float = 0.05
  documents_scored: int | None = None
  fusion: str = 'log_linear'
  generative_weight: float = 0.005
  dense_weight: float = 1.0
  reciprocal_weight: float = 0.6
  reciprocal_decay: float = 0.03
  fit_on: str = 'dev'
  fit_measures: tuple[str, ...] = ('MRR@10', 'R@10')
  renormalised: bool = False
  batch_sizes: tuple[int, ...] = (1, 8)
  vector_type: str = 'float16'

  def __post_init__(self):
    _require(self.beams >= 1, 'beams', '1 or more', self.beams)
    _require(0 < self.fraction <= 1, 'fraction', 'in (0, 1]', self.fraction)
    budget = self.documents_scored
    _require(
      budget is None or budget >= 1, 'documents_scored', '1 or more', budget
    )
    weight = self.planning_weight
    _require(
      0 <= weight < math.inf, 'planning_weight', 'finite, 0 or more', weight
    )
    for name in ('planning_pool', 'planning_documents'):
      least = getattr(self, name)
      _require(least >= 1, name, '1 or more', least)
    for name in ('generative_weight', 'dense_weight', 'reciprocal_weight'):
      weight = getattr(self, name)
      _require(math.isfinite(weight), name, 'finite', weight)
    decay = self.reciprocal_decay
    _require(
      0 <= decay < math.inf, 'reciprocal_decay', 'finite, 0 or more', decay
    )
    _require(
      self.fusion in fusions.KINDS,
      'fusion',
      ' or '.join(map(repr, fusions.KINDS)),
      f'{self.fusion!r}{near_miss(self.fusion, fusions.KINDS)}',
    )
    _require(
      self.fit_on != 'test', 'fit_on', "no test split, as 'dev'", "'test'"
    )
    known = fusions.FIT_MEASURES
    _require(
      bool(self.fit_measures) and set(self.fit_measures) <= set(known),
      'fit_measures',
      f'of {known}',
      self.fit_measures,
    )
    sizes = self.batch_sizes
    _require(
      bool(sizes) and min(sizes) >= 1 and list(sizes) == sorted(sizes),
      'batch_sizes',
      'rising numbers',
      sizes,
    )
    _require(
      self.vector_type in ('float16', 'float32'),
      'vector_type',
      "'float16' or 'float32'",
      repr(self.vector_type),
    )

  @property
  def weights(self) -> fusions.Weights:
    """The weights of both ways to join the parts."""
    return fusions.Weights(
      dense=self.dense_weight,
      generative=self.generative_weight,
      reciprocal=self.reciprocal_weight,
      decay=self.reciprocal_decay,
    )

  @property
  def planning(self) -> Planning | None:
    """How far a search looks ahead, if it does."""
    if not self.planning_weight:
      return None
    return Planning(
      self.planning_weight, self.planning_pool, self.planning_documents
    )

  def budget(self, documents: int) -> int:
    """Documents scored for a query in a corpus of `documents`."""
    wanted = self.documents_scored
    if wanted is None:
      wanted = max(int(self.fraction * documents), 1)
    return min(wanted, documents)


def _require(holds: bool, name: str, expected: str, got: object) -> None:
  """Refuses a value of the user's."""
  if not holds:
    raise UserError(f'{name} should be {expected}, got {got}')
