"""Queries that say what an earlier one said already."""

from collections.abc import Sequence

from gr_jax.querygen.candidates import Candidate
from gr_jax.querygen.similar_sets import SimilarSets
from gr_jax.querygen.words import Frequencies, overlap, words
from gr_jax.types import Document


class Duplicates:
  """Leaves out repetitions within a document; the first one stays."""

  name = 'duplicates'
  provenance = None

  def __init__(self, threshold: float):
    """Takes the Jaccard similarity of word sets that makes a repetition."""
    self._threshold = threshold

  def keep(
    self,
    documents: Sequence[Document],
    candidates: Sequence[list[Candidate]],
    first: int,
  ) -> list[list[Candidate]]:
    """See candidates.Filter."""
    return [self._distinct(of_document) for of_document in candidates]

  def _distinct(self, candidates: list[Candidate]) -> list[Candidate]:
    kept, seen = [], []
    for candidate in candidates:
      items = frozenset(words(candidate.text))
      if all(overlap(items, other) < self._threshold for other in seen):
        kept.append(candidate)
        seen.append(items)
    return kept


class Across:
  """Leaves out repetitions of what earlier documents have been given.

  All documents must come in the order of the corpus.
  """

  name = 'across_documents'

  def __init__(self, threshold: float, frequencies: Frequencies):
    """Starts with no query.

    Args:
      threshold: Jaccard similarity of word sets that makes a repetition.
      frequencies: of the corpus.
    """
    self._seen = SimilarSets(threshold, frequencies.count)

  def keep(self, queries: Sequence[str]) -> list[str]:
    """The queries of the next document that are new."""
    sets = [frozenset(words(query)) for query in queries]
    kept = [self._seen.find(items) is None for items in sets]
    # Within a document other rules decide.
    for items, new in zip(sets, kept, strict=True):
      if new:
        self._seen.add(items)
    return [query for query, new in zip(queries, kept, strict=True) if new]
