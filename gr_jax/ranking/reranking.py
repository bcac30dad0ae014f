"""How well a cross-encoder puts BM25's answers in order, while it trains."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gr_jax.data.collection import Collection
from gr_jax.evaluation import metrics
from gr_jax.evaluation.lexical import Lexical
from gr_jax.evaluation.rankings import Rankings
from gr_jax.ranking.ranker import Ranker
from gr_jax.types import NO_DOC, Document, Judgement, Query, UserError

_MEASURE = 'RR@10'


class Reranking:
  """Queries of a split with the documents that BM25 finds for them.

  Attributes:
    before: MRR@10 of BM25's own order, for comparison.
  """

  def __init__(
    self,
    queries: Sequence[Query],
    judgements: Sequence[Judgement],
    documents: Sequence[Document],
    depth: int,
  ):
    """Searches the queries.

    Args:
      queries: that are asked.
      judgements: of them.
      documents: the corpus.
      depth: documents of a query that are put in order.
    """
    self._queries, self._judgements = queries, judgements
    lexical = Lexical(documents)
    found = lexical.search([query.text for query in queries], depth)
    self._rows_BC = found.rows_BC
    self._ids = lexical.document_ids
    # Of all documents only those that are put in order are kept.
    self._documents = {
      row: documents[row] for row in np.unique(found.rows_BC) if row != NO_DOC
    }
    self.before = self._measure(found)

  def __call__(self, ranker: Ranker) -> float:
    """MRR@10 of a ranker's order; documents not found by BM25 are missed."""
    there_BC = self._rows_BC != NO_DOC
    places = np.argwhere(there_BC)
    scores_BC = np.full(self._rows_BC.shape, -np.inf, np.float32)
    scores_BC[there_BC] = ranker.scores(
      [self._queries[query].text for query, _ in places],
      [self._documents[self._rows_BC[query, at]] for query, at in places],
    )
    order_BC = np.argsort(-scores_BC, axis=1, kind='stable')
    rows_BC = np.take_along_axis(self._rows_BC, order_BC, axis=1)
    scores_BC = np.take_along_axis(scores_BC, order_BC, axis=1)
    counts_B = np.count_nonzero(there_BC, axis=1)
    return self._measure(
      Rankings(rows_BC, scores_BC, counts_B, np.zeros_like(counts_B))
    )

  def _measure(self, rankings: Rankings) -> float:
    names = [query.id for query in self._queries]
    found = metrics.score(rankings, names, self._ids, self._judgements)
    return found.means()[_MEASURE]


def sampled(
  collection: Collection, split: str, size: int, depth: int, seed: int = 0
) -> Reranking:
  """Some queries of a split, drawn by a seed.

  Args:
    collection: queries, judgements and corpus.
    split: of the judgements.
    size: queries at most.
    depth: documents of a query that are put in order.
    seed: of the draw.

  Raises:
    UserError: when no query of the split has a relevant document.
  """
  judgements = collection.judgements(split)
  relevant = {j.query_id for j in judgements if j.relevance > 0}
  queries = [query for query in collection.queries() if query.id in relevant]
  if not queries:
    raise UserError(
      f'split {split!r} of {collection.directory} should hold queries with a '
      'relevant document, it holds none'
    )
  order = np.random.default_rng(seed).permutation(len(queries))[:size]
  chosen = [queries[place] for place in sorted(order)]
  return Reranking(chosen, judgements, list(collection.documents()), depth)


def reranking_hook(
  model: Any, prepared: Any, reranking: Reranking
) -> Callable[[int, Any], dict[str, float]]:
  """What a training loop calls to judge the cross-encoder as it is.

  Args:
    model: the CrossEncoder.
    prepared: data.prepared.PreparedData, for vocabulary and lengths.
    reranking: what it is judged by.

  Returns:
    (step, state) -> {'dev/MRR@10': ..., 'dev/MRR@10_of_BM25': ...}.
  """
  make = functools.partial(
    Ranker,
    vocabulary=prepared.vocabulary(),
    sha256='',
    query_length=prepared.query_length,
    document_length=prepared.document_length,
  )

  def hook(step, state):
    del step
    return {
      'dev/MRR@10': reranking(make(model, state.all_params())),
      'dev/MRR@10_of_BM25': reranking.before,
    }

  return hook
