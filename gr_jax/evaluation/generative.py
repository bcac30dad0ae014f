"""A Searcher as a system of the table."""

from collections.abc import Sequence

from gr_jax.evaluation.dense import ExactDense
from gr_jax.evaluation.rankings import Rankings
from gr_jax.retrieval.searcher import Searcher


class Generative:
  """Identifiers from the decoder, documents from their buckets."""

  def __init__(self, searcher: Searcher):
    """Wraps a searcher.

    Args:
      searcher: over the index that is judged.
    """
    self._searcher = searcher
    # The index reads ids from disk one at a time; here all are needed often.
    self.document_ids = list(searcher.document_ids)

  def search(self, texts: Sequence[str], k: int) -> Rankings:
    """Ranks the documents that the beams reach, keeping k."""
    found = self._searcher.search_batch(texts, k)
    return Rankings(
      found.documents_BC,
      found.scores_BC,
      found.documents_scored_B,
      found.code_scores_B,
    )

  def exact_dense(self) -> ExactDense:
    """Exact search with the same encoder and the same document vectors."""
    index = self._searcher.snapshot.visible()
    return ExactDense(
      self._searcher.encode, index.vectors_ND, list(index.document_ids)
    )
