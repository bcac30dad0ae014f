"""Scores of one run, query by query, from one search of each split.

A run is searched once at its widest; smaller budgets take the first of these
candidates, and every weight orders them anew. The measures are therefore in
numpy here: ir_measures (metrics.score), whose values they have, takes seconds
for each order.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gr_jax.evaluation import judging
from gr_jax.evaluation.metrics import DEPTH, NAMES
from gr_jax.types import NO_DOC, UserError

# Weights of the generative score beside a dense score of weight 1.
GENERATIVE_WEIGHTS = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
# (generative, dense): what is fitted, and the identifiers' scores alone.
WEIGHTS = tuple((weight, 1.0) for weight in GENERATIVE_WEIGHTS) + ((1.0, 0.0),)
GENERATIVE_ALONE = (1.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Judged:
  """The queries of a split that have a relevant document.

  Attributes:
    split: its name.
    texts: [B] of the queries.
    query_ids: [B].
    relevant: [B] relevance of each relevant document row.
    places_N: rank of each document's id among all ids, which orders ties.
  """

  split: str
  texts: Sequence[str]
  query_ids: Sequence[str]
  relevant: Sequence[Mapping[int, int]]
  places_N: np.ndarray


@dataclasses.dataclass(frozen=True)
class Found:
  """The candidates of each query in generative order.

  Attributes:
    documents_BC: document rows, NO_DOC behind the last.
    generative_BC: log-probabilities of their identifiers.
    dense_BC: dot products of query and document vectors.
  """

  documents_BC: np.ndarray
  generative_BC: np.ndarray
  dense_BC: np.ndarray

  def fused(self, weights: tuple[float, float]) -> np.ndarray:
    """[B, C] scores under weights of the generative and the dense score."""
    return weights[0] * self.generative_BC + weights[1] * self.dense_BC

  def first(self, count: int) -> 'Found':
    """The same with fewer documents scored."""
    return Found(
      self.documents_BC[:, :count],
      self.generative_BC[:, :count],
      self.dense_BC[:, :count],
    )


def judged(asked: judging.Questions, document_ids: Sequence[str]) -> Judged:
  """Prepares a split for many rankings.

  Args:
    asked: queries and judgements.
    document_ids: the id of each document row.
  """
  rows = {document: row for row, document in enumerate(document_ids)}
  relevant: dict[str, dict[int, int]] = {}
  for judgement in asked.judgements:
    if judgement.relevance > 0:
      if judgement.document_id not in rows:
        raise UserError(
          f'split {asked.split!r} judges document {judgement.document_id!r}, '
          'which the run does not know: was the corpus changed?'
        )
      documents = relevant.setdefault(judgement.query_id, {})
      documents[rows[judgement.document_id]] = judgement.relevance
  queries = [query for query in asked.queries if query.id in relevant]
  if not queries:
    raise UserError(
      f'no query of split {asked.split!r} has a relevant document'
    )
  order = sorted(
    range(len(document_ids)), key=lambda n: document_ids[n].encode()
  )
  places_N = np.empty(len(order), np.int64)
  places_N[order] = np.arange(len(order))
  return Judged(
    asked.split,
    [query.text for query in queries],
    [query.id for query in queries],
    [relevant[query.id] for query in queries],
    places_N,
  )


def measures(
  documents_BC: np.ndarray, scores_BC: np.ndarray, asked: Judged
) -> dict[str, np.ndarray]:
  """Each of metrics.NAMES for each query; equal scores as trec_eval has them.

  Args:
    documents_BC: document rows in any order, NO_DOC where there is none.
    scores_BC: of these documents.
    asked: the queries, in the same order.

  Returns:
    {'R@10': [B], ...}.
  """
  empty_BC = documents_BC == NO_DOC
  places_BC = np.where(empty_BC, 0, asked.places_N[documents_BC])
  scores_BC = np.where(empty_BC, -np.inf, scores_BC.astype(np.float32))
  order_BC = np.lexsort((-places_BC, -scores_BC))[:, :DEPTH]
  ranked_BC = np.take_along_axis(documents_BC, order_BC, axis=1)
  gains_BC = np.zeros((len(ranked_BC), DEPTH))
  ideal_BC = np.zeros_like(gains_BC)
  count_B = np.zeros(len(ranked_BC))
  for query, relevant in enumerate(asked.relevant):
    for row, relevance in relevant.items():
      gains_BC[query, : ranked_BC.shape[1]][ranked_BC[query] == row] = relevance
    best = sorted(relevant.values(), reverse=True)[:DEPTH]
    ideal_BC[query, : len(best)] = best
    count_B[query] = len(relevant)
  hits_BC = gains_BC > 0
  first_B = np.argmax(hits_BC, axis=1)
  discount_C = 1 / np.log2(np.arange(10) + 2)
  found = {f'R@{k}': hits_BC[:, :k].sum(axis=1) / count_B for k in (1, 10, 100)}
  found['RR@10'] = hits_BC[:, :10].any(axis=1) / (1.0 + first_B)
  found['nDCG@10'] = (gains_BC[:, :10] @ discount_C) / (
    ideal_BC[:, :10] @ discount_C
  )
  return {name: found[name] for name in NAMES}


def fit_weights(
  found: Found, asked: Judged, names: Sequence[str]
) -> tuple[float, float]:
  """The weights of the grid with the largest mean; the first of equals.

  Of several measures together, as SearchSettings.fit_measures: one alone moves
  less between two weights than it does between two seeds.

  Args:
    found: candidates of dev.
    asked: dev.
    names: of metrics.NAMES, whose mean counts.

  Returns:
    Weights of the generative and of the dense score.
  """

  def mean(weights):
    scores_BC = found.fused(weights)
    values = measures(found.documents_BC, scores_BC, asked)
    return np.mean([values[name] for name in names])

  return max(WEIGHTS, key=mean)
