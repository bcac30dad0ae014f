"""One search of a trained run, and all scores that come of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gr_jax.evaluation import comparison_scores, protocol
from gr_jax.evaluation.comparison_results import (
  BM25,
  DENSE,
  FUSED,
  GENERATIVE,
  UNTRAINED,
  score_key,
)
from gr_jax.evaluation.comparison_scores import GENERATIVE_ALONE, Found, Judged
from gr_jax.evaluation.comparison_settings import MEASURES, ComparisonSettings
from gr_jax.evaluation.dense import exact_top_k
from gr_jax.evaluation.generative import Generative
from gr_jax.evaluation.metrics import DEPTH
from gr_jax.index.index import Index
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher

_BATCH = 256
# Queries of a search at once. On two cores with 283 beams: 8 together take
# 6.6 ms of both a query, 32 take 8.4 ms, as beams of 8 still fit the cache.
_SEARCHED_TOGETHER = {'cpu': (8,)}
_SEARCHED_TOGETHER_ACCELERATOR = (256,)


@dataclasses.dataclass(frozen=True)
class PooledModel:
  """A retriever whose queries are numbers of rows of encoded queries.

  A frozen encoder gives all runs the same pooled vectors of the queries: they
  are encoded once, and no run waits for the encoder again.

  Attributes:
    model: Retriever with a frozen encoder.
  """

  model: Any

  def apply(self, variables: Mapping[str, Any], *args: Any, method: str) -> Any:
    """Answers as the retriever does, 'encode' from the table of queries."""
    if method == 'encode':
      (numbers_B1,) = args
      table_QE = variables['params'][_TABLE]
      args, method = (table_QE[numbers_B1[:, 0] - 1],), 'encode_pooled'
    own = {k: v for k, v in variables['params'].items() if k != _TABLE}
    return self.model.apply({'params': own}, *args, method=method)


_TABLE = 'encoded_queries'


class QueryNumbers:
  """The vocabulary of such a model: a text is the number of a query."""

  pad_id = 0

  def encode_batch(
    self, texts: Sequence[str], length: int
  ) -> Sequence[Sequence[int]]:
    """One number a text, from 1 as 0 pads."""
    del length
    return [[int(text) + 1] for text in texts]


def widest(
  settings: ComparisonSettings, search: SearchSettings, documents: int
) -> SearchSettings:
  """The search that holds those at all shares of documents.

  Args:
    settings: of the comparison.
    search: of the run.
    documents: N, in the corpus.
  """
  most = _budget(max(settings.fractions), documents)
  # Ranked by the identifier alone, candidates come in generative order.
  return dataclasses.replace(
    search,
    beams=max(search.beams, most),
    documents_scored=most,
    fusion='log_linear',
    generative_weight=1.0,
    dense_weight=0.0,
    batch_sizes=_SEARCHED_TOGETHER.get(
      jax.default_backend(), _SEARCHED_TOGETHER_ACCELERATOR
    ),
  )


def pooled_searcher(
  index: Index,
  model: Any,
  params: Mapping[str, Any],
  queries_QE: np.ndarray,
  search: SearchSettings,
) -> Searcher:
  """A searcher that is asked for '0', '1', ..., rows of encoded queries.

  Args:
    index: of the run.
    model: Retriever with a frozen encoder.
    params: of the model; those of the encoder are not used.
    queries_QE: what the encoder pooled of each query.
    search: how the index is searched.
  """
  own = {name: part for name, part in params.items() if name != 'encoder'}
  own[_TABLE] = queries_QE
  return Searcher(index, PooledModel(model), own, QueryNumbers(), 1, search)


def scores_of(
  settings: ComparisonSettings,
  searcher: Searcher,
  splits: Sequence[Judged],
  texts: Mapping[str, Sequence[str]],
) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
  """Searches dev, and what follows it with the weights found on dev.

  Args:
    settings: of the comparison.
    searcher: of the run, as `widest` says.
    splits: dev first.
    texts: split -> its queries as the searcher takes them.

  Returns:
    The weights of each share of documents, and the scores by score_key.
  """
  documents = searcher.documents
  names = [MEASURES[measure] for measure in settings.measures]
  weights: dict[str, list[float]] = {}
  scores: dict[str, np.ndarray] = {}

  def keep(asked, system, fraction, documents_BC, scores_BC):
    found = comparison_scores.measures(documents_BC, scores_BC, asked)
    for name, values_B in found.items():
      scores[score_key(asked.split, system, fraction, name)] = values_B

  for asked in splits:
    found = _search(searcher, texts[asked.split])
    for fraction in settings.fractions:
      part = found.first(_budget(fraction, documents))
      if asked.split == 'dev':
        fitted = comparison_scores.fit_weights(part, asked, names)
        weights[repr(fraction)] = list(fitted)
      for system, pair in (
        (FUSED, tuple(weights[repr(fraction)])),
        (GENERATIVE, GENERATIVE_ALONE),
      ):
        keep(asked, system, fraction, part.documents_BC, part.fused(pair))
    dense = Generative(searcher).exact_dense()
    ranked, _ = protocol.ask(dense, texts[asked.split], DEPTH, _BATCH)
    keep(asked, DENSE, None, ranked.rows_BC, ranked.scores_BC)
  return weights, scores


def lexical_scores(
  system: protocol.System, splits: Sequence[Judged]
) -> dict[str, np.ndarray]:
  """Scores of BM25 by score_key.

  Args:
    system: evaluation.lexical.Lexical of the corpus.
    splits: what is asked.
  """
  scores = {}
  for asked in splits:
    ranked = system.search(asked.texts, DEPTH)
    scores |= _reference(BM25, asked, ranked.rows_BC, ranked.scores_BC)
  return scores


def untrained_scores(
  documents_NE: np.ndarray, queries_QE: np.ndarray, splits: Sequence[Judged]
) -> dict[str, np.ndarray]:
  """Scores by score_key of exact search with what a frozen encoder pooled.

  Args:
    documents_NE: pooled vectors of the documents.
    queries_QE: of the queries of all splits, one split after another.
    splits: what is asked.
  """
  scores, first = {}, 0
  documents_NE = _unit(documents_NE)
  for asked in splits:
    parts = []
    end = first + len(asked.texts)
    for start in range(first, end, _BATCH):
      # One shape for all: the last batch is filled up, and cut again below.
      rows = np.minimum(np.arange(start, start + _BATCH), end - 1)
      parts.append(exact_top_k(_unit(queries_QE[rows]), documents_NE, DEPTH))
    rows_BC, scores_BC = map(np.concatenate, zip(*parts, strict=True))
    count = end - first
    scores |= _reference(UNTRAINED, asked, rows_BC[:count], scores_BC[:count])
    first = end
  return scores


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
  return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def _reference(system, asked, rows_BC, scores_BC) -> dict[str, np.ndarray]:
  found = comparison_scores.measures(rows_BC, scores_BC, asked)
  return {
    score_key(asked.split, system, None, name): values_B
    for name, values_B in found.items()
  }


def _budget(fraction: float, documents: int) -> int:
  return max(int(fraction * documents), 1)


def _search(searcher: Searcher, texts: Sequence[str]) -> Found:
  found = searcher.search_batch(texts, searcher.settings.documents_scored)
  return Found(found.documents_BC, found.generative_BC, found.dense_BC)
