"""Retrieval metrics on documents, per query and averaged, by ir_measures."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import ir_measures
import numpy as np

from gr_jax.evaluation.rankings import Rankings, canonical
from gr_jax.types import NO_DOC, Judgement, UserError

# R@k is recall: the share of a query's relevant documents in the first k.
_MEASURES = (
  ir_measures.R @ 1,
  ir_measures.R @ 10,
  ir_measures.R @ 100,
  ir_measures.RR @ 10,
  ir_measures.nDCG @ 10,
)
NAMES = tuple(str(measure) for measure in _MEASURES)
# Places of a ranking that the measures look at.
DEPTH = 100


@dataclasses.dataclass(frozen=True)
class Scores:
  """Metrics of one system.

  Attributes:
    query_ids: the queries with a relevant document, in the order asked.
    values: for each of NAMES the value of each of those queries.
    without_relevant: queries left out because no document is relevant.
  """

  query_ids: tuple[str, ...]
  values: dict[str, np.ndarray]
  without_relevant: int

  def means(self) -> dict[str, float]:
    """The mean over queries of each measure."""
    return {name: float(np.mean(v)) for name, v in self.values.items()}


@dataclasses.dataclass(frozen=True)
class Difference:
  """Mean of a paired difference with its 95 % interval."""

  mean: float
  low: float
  high: float


def score(
  rankings: Rankings,
  query_ids: Sequence[str],
  document_ids: Sequence[str],
  judgements: Iterable[Judgement],
) -> Scores:
  """Judges rankings; a query that found nothing counts as 0.

  Args:
    rankings: the answers to `query_ids`, in that order.
    query_ids: ids of the queries asked, distinct.
    document_ids: the id of each document row of the rankings.
    judgements: which documents are relevant (relevance 1 and up).

  Returns:
    Values per query of those that have a relevant document.

  Raises:
    UserError: rows that appear twice for a query, scores that are not
      finite, a query asked twice, or no query with a relevant document.
  """
  if len(set(query_ids)) != len(query_ids):
    raise UserError('a query id is asked twice: query ids should be distinct')
  if len(query_ids) != len(rankings.rows_BC):
    raise UserError(
      f'{len(query_ids)} queries were asked and '
      f'{len(rankings.rows_BC)} answered'
    )
  qrels = _relevance(judgements)
  judged = _judged(query_ids, qrels)
  rows_BC = canonical(rankings, document_ids).rows_BC[:, :DEPTH]
  # Ranks stand for scores: the measures come from several providers that
  # treat ties differently, and here no two places are tied.
  run = {
    query_id: {
      document_ids[row]: float(-rank)
      for rank, row in enumerate(rows_BC[position].tolist())
      if row != NO_DOC
    }
    for position, query_id in judged
  }
  place = {query_id: at for at, (_, query_id) in enumerate(judged)}
  values = {name: np.zeros(len(judged)) for name in NAMES}
  wanted = {query_id: qrels[query_id] for _, query_id in judged}
  for metric in ir_measures.iter_calc(_MEASURES, wanted, run):
    values[str(metric.measure)][place[metric.query_id]] = metric.value
  return Scores(
    tuple(query_id for _, query_id in judged),
    values,
    len(query_ids) - len(judged),
  )


def _relevance(judgements: Iterable[Judgement]) -> dict[str, dict[str, int]]:
  """{query id: {document id: relevance}}."""
  qrels: dict[str, dict[str, int]] = {}
  for judgement in judgements:
    documents = qrels.setdefault(judgement.query_id, {})
    documents[judgement.document_id] = judgement.relevance
  return qrels


def _judged(
  query_ids: Sequence[str], qrels: Mapping[str, Mapping[str, int]]
) -> list[tuple[int, str]]:
  """Position and id of the queries that have a relevant document."""
  judged = [
    (position, query_id)
    for position, query_id in enumerate(query_ids)
    if any(relevance > 0 for relevance in qrels.get(query_id, {}).values())
  ]
  if not judged:
    raise UserError(
      f'none of the {len(query_ids)} queries has a relevant document: check '
      'that the judgements belong to these queries'
    )
  return judged


def paired_bootstrap(
  a: np.ndarray, b: np.ndarray, seed: int = 0, samples: int = 10_000
) -> Difference:
  """The mean of a - b over queries with a percentile bootstrap interval.

  Args:
    a: [B] a metric of one system, a value for each query; or [R, B], a row
      for each seed of a run, which is then resampled as well.
    b: the same of the other system, for the same queries and seeds.
    seed: of the resampling.
    samples: how many times the queries (and seeds) are drawn with replacement.

  Returns:
    Mean difference and its 95 % interval.
  """
  if a.shape != b.shape or a.ndim not in (1, 2) or not a.size:
    raise UserError(
      'paired values should be over the same queries (and seeds), got '
      f'{a.shape} and {b.shape}'
    )
  difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
  return bootstrap_means([np.atleast_2d(difference)], seed, samples)[0]


def bootstrap_means(
  differences: Sequence[np.ndarray], seed: int = 0, samples: int = 10_000
) -> list[Difference]:
  """Means over seeds and queries with percentile bootstrap intervals.

  A sample draws queries, and seeds on their own, with replacement. All
  differences see the same draws of queries, which costs little more than one.

  Args:
    differences: [R, B] paired differences, for each of R seeds and of the
      same B queries; R may differ.
    seed: of the resampling.
    samples: how often is drawn.
  """
  rows_RB = np.concatenate(differences).astype(np.float64)
  queries = rows_RB.shape[1]
  rng = np.random.default_rng(seed)
  # 2^22 indices at a time bound the memory at 64 MB for any query count.
  at_once = max(1, 2**22 // queries)
  parts = []
  for start in range(0, samples, at_once):
    count = min(at_once, samples - start)
    drawn = rng.integers(queries, size=(count, queries))
    drawn += np.arange(count)[:, None] * queries
    times = np.bincount(drawn.ravel(), minlength=count * queries)
    parts.append(times.reshape(count, queries) @ rows_RB.T / queries)
  means_SR = np.concatenate(parts)
  found, first = [], 0
  for difference_RB in differences:
    runs = len(difference_RB)
    mine_SR = means_SR[:, first : first + runs]
    first += runs
    drawn_SR = rng.integers(runs, size=mine_SR.shape)
    means_S = np.take_along_axis(mine_SR, drawn_SR, axis=1).mean(axis=1)
    low, high = np.quantile(means_S, [0.025, 0.975])
    found.append(
      Difference(float(difference_RB.mean()), float(low), float(high))
    )
  return found
