"""Chooses how candidates are ranked: one search of dev, ranked in many ways.

Free of the packages that `evaluate` needs, as every indexing fits: it counts
what stands above each relevant document instead of sorting.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from gr_jax.data.collection import Collection
from gr_jax.retrieval.found import SearchBatch
from gr_jax.retrieval.fusion import fuse
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher
from gr_jax.types import NO_DOC

# More queries would only cost time: the weights are two numbers.
QUERIES = 2000
# Searched and ranked together on a device, which bounds the memory.
_BATCH = 256
_GENERATIVE = (0, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
_RECIPROCAL = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
_DECAY = (0.01, 0.03, 0.1, 0.3, 1)


@dataclasses.dataclass(frozen=True)
class Judged:
  """Queries to fit on.

  Attributes:
    texts: the queries.
    relevant: rows of each query's relevant documents in the index.
    counts_B: relevant documents of each query, in the index or not.
  """

  texts: Sequence[str]
  relevant: Sequence[np.ndarray]
  counts_B: np.ndarray


@dataclasses.dataclass(frozen=True)
class Fit:
  """What was chosen, and what it brought.

  Attributes:
    settings: with the chosen fusion and weights.
    queries: that were asked.
    before: the measures with the weights that were there.
    after: the measures with those that were chosen.
  """

  settings: SearchSettings
  queries: int
  before: dict[str, float]
  after: dict[str, float]

  def __str__(self):
    chosen = self.settings
    if chosen.fusion == 'log_linear':
      how = f'log-linear, generative weight {chosen.generative_weight:g}'
    else:
      how = (
        f'reciprocal, weight {chosen.reciprocal_weight:g}, decay '
        f'{chosen.reciprocal_decay:g}'
      )
    gains = ', '.join(
      f'{name} {self.before[name]:.3f} -> {self.after[name]:.3f}'
      for name in self.before
    )
    return f'fitted on {self.queries:,} {chosen.fit_on} queries: {how}: {gains}'


def judged_queries(
  collection: Collection,
  split: str,
  document_ids: Sequence[str],
  limit: int = QUERIES,
) -> Judged:
  """The queries of a split that have a relevant document.

  Args:
    collection: queries and judgements.
    split: of the judgements.
    document_ids: the id of each row of the index.
    limit: queries at most; spread evenly over the collection's order.
  """
  relevant_ids: dict[str, list[str]] = {}
  for judgement in collection.judgements(split):
    if judgement.relevance > 0:
      documents = relevant_ids.setdefault(judgement.query_id, [])
      documents.append(judgement.document_id)
  row_of = {name: row for row, name in enumerate(document_ids)}
  queries = [
    query for query in collection.queries() if query.id in relevant_ids
  ]
  if len(queries) > limit:
    places = np.linspace(0, len(queries) - 1, limit).round().astype(int)
    queries = [queries[place] for place in places]
  wanted = [relevant_ids[query.id] for query in queries]
  return Judged(
    texts=[query.text for query in queries],
    relevant=[
      np.array([row_of[name] for name in names if name in row_of], np.int64)
      for names in wanted
    ],
    counts_B=np.array([len(names) for names in wanted]),
  )


def grid(settings: SearchSettings) -> list[SearchSettings]:
  """What is tried: the settings as they are, then both fusions."""
  log_linear = [
    {'fusion': 'log_linear', 'generative_weight': float(weight)}
    for weight in _GENERATIVE
  ]
  reciprocal = [
    {
      'fusion': 'reciprocal',
      'reciprocal_weight': float(weight),
      'reciprocal_decay': float(decay),
    }
    for weight in _RECIPROCAL
    for decay in _DECAY
  ]
  return [
    settings,
    *(
      dataclasses.replace(settings, dense_weight=1.0, **changes)
      for changes in (*log_linear, *reciprocal)
    ),
  ]


def fit(searcher: Searcher, judged: Judged) -> Fit:
  """The best of `grid` for the mean of `SearchSettings.fit_measures`.

  Ties keep what stands first, and the weights that were there stand first.

  Args:
    searcher: over the index; all of its candidates are looked at.
    judged: one query or more, of a split that is not the test split.
  """
  tried = grid(searcher.settings)
  names = searcher.settings.fit_measures
  sums = np.zeros((len(tried), len(names)))
  budget = searcher.settings.budget(searcher.documents)
  for part in _parts(judged):
    found = searcher.search_batch(part.texts, budget)
    for row, places in enumerate(relevant_places(found, part, tried)):
      values = measures(places, part.counts_B)
      sums[row] += [values[name].sum() for name in names]
  means = sums / len(judged.texts)
  best = int(np.argmax(means.mean(axis=1)))
  return Fit(
    settings=tried[best],
    queries=len(judged.texts),
    before=dict(zip(names, means[0].tolist(), strict=True)),
    after=dict(zip(names, means[best].tolist(), strict=True)),
  )


def _parts(judged: Judged) -> Iterator[Judged]:
  size = _BATCH * len(jax.local_devices())
  for start in range(0, len(judged.texts), size):
    part = slice(start, start + size)
    yield Judged(
      judged.texts[part], judged.relevant[part], judged.counts_B[part]
    )


@dataclasses.dataclass(frozen=True)
class Places:
  """Where relevant documents stand.

  Attributes:
    queries_P: query of each relevant document that was found.
    ranks_P: its place in the ranking, from 1.
  """

  queries_P: np.ndarray
  ranks_P: np.ndarray


def relevant_places(
  found: SearchBatch, judged: Judged, tried: Sequence[SearchSettings]
) -> Iterator[Places]:
  """Where relevant documents would stand, for each of several settings.

  Args:
    found: all candidates of the queries.
    judged: the same queries.
    tried: settings, of which fusion and weights are read.

  Yields:
    Places under each of the settings.
  """
  there_BC = found.documents_BC != NO_DOC
  # Generative order, corpus order within a bucket: where the search, which
  # sorts stably, starts from.
  first_BC = np.where(there_BC, found.ranks_BC, np.iinfo(np.int32).max)
  order_BC = np.lexsort((found.documents_BC, first_BC), axis=1)
  documents_BC, dense_BC, generative_BC, ranks_BC, there_BC = (
    np.take_along_axis(rows, order_BC, axis=1)
    for rows in (
      found.documents_BC,
      found.dense_BC,
      found.generative_BC,
      # No division by zero where there is no document.
      np.maximum(found.ranks_BC, 0),
      there_BC,
    )
  )
  pairs = [
    (query, row)
    for query, rows in enumerate(judged.relevant)
    for row in rows.tolist()
  ]
  queries_P, rows_P = np.array(pairs, np.int64).reshape(-1, 2).T
  match_PC = documents_BC[queries_P] == rows_P[:, None]
  kept_P = match_PC.any(axis=1)
  queries_P, own_P = queries_P[kept_P], match_PC[kept_P].argmax(axis=1)
  before_PC = np.arange(documents_BC.shape[1])[None, :] < own_P[:, None]
  for settings in tried:
    scores_BC = fuse(
      settings.fusion, settings.weights, dense_BC, generative_BC, ranks_BC
    )
    scores_BC = np.where(there_BC, scores_BC, -np.inf)
    scores_PC = scores_BC[queries_P]
    own_P1 = np.take_along_axis(scores_PC, own_P[:, None], axis=1)
    above_PC = (scores_PC > own_P1) | ((scores_PC == own_P1) & before_PC)
    yield Places(queries_P, 1 + above_PC.sum(axis=1))


def measures(places: Places, counts_B: np.ndarray) -> dict[str, np.ndarray]:
  """Values per query of retrieval.fusion.FIT_MEASURES.

  Args:
    places: of the relevant documents that were found.
    counts_B: relevant documents of each query.
  """
  values = {}
  for depth in (1, 10, 100):
    hits_B = np.zeros(len(counts_B))
    np.add.at(hits_B, places.queries_P, places.ranks_P <= depth)
    values[f'R@{depth}'] = hits_B / counts_B
  best_B = np.zeros(len(counts_B))
  worth_P = np.where(places.ranks_P <= 10, 1 / places.ranks_P, 0.0)
  np.maximum.at(best_B, places.queries_P, worth_P)
  values['MRR@10'] = best_B
  return values
