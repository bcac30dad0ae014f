"""A cross-encoder reads each query with its document and says if they fit."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gr_jax.querygen.candidates import Candidate, chosen, flat
from gr_jax.querygen.query_settings import RelevanceSettings
from gr_jax.types import Document


class PairRanker(Protocol):
  """Scores pairs of a query and a document.

  Attributes:
    sha256: of its weights.
  """

  sha256: str

  def scores(
    self, queries: Sequence[str], documents: Sequence[Document]
  ) -> np.ndarray:
    """[pairs] float32, higher ones for better documents."""
    ...


class Relevance:
  """Keeps the queries that a ranker scores high with their document.

  Attributes:
    provenance: SHA-256 of the ranker's weights.
  """

  name = 'relevance'

  def __init__(self, ranker: PairRanker, settings: RelevanceSettings):
    """Takes the ranker, and what is asked of its scores."""
    self._ranker, self._settings = ranker, settings
    self.provenance = ranker.sha256

  def keep(
    self,
    documents: Sequence[Document],
    candidates: Sequence[list[Candidate]],
    first: int,
  ) -> list[list[Candidate]]:
    """See candidates.Filter."""
    asked = flat(candidates)
    if not asked:
      return list(candidates)
    scores_X = self._ranker.scores(
      [candidate.text for _, candidate in asked],
      [documents[place] for place, _ in asked],
    )
    threshold, best = self._settings.threshold, self._settings.best
    keep_X = np.ones(len(asked), bool)
    if threshold is not None:
      keep_X = scores_X >= threshold
    if best:
      start = 0
      for of_document in candidates:
        part = slice(start, start + len(of_document))
        # Of equal scores the earlier queries stay.
        order = np.argsort(-scores_X[part], kind='stable')
        keep_X[part][order[best:]] = False
        start = part.stop
    return chosen(candidates, keep_X.tolist())
