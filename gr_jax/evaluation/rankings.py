"""What every system answers with, whatever it is: ranked document rows."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gr_jax.types import NO_DOC, UserError


@dataclasses.dataclass(frozen=True)
class Rankings:
  """The ranked documents of B queries, C places each.

  Attributes:
    rows_BC: rows of the documents in the system's list of ids, best first;
      NO_DOC where there is nothing more.
    scores_BC: scores of those documents, not increasing along C.
    documents_scored_B: distinct documents that received a final score.
    code_scores_B: scores of a code for a beam; 0 for systems
      without a decoder.
  """

  rows_BC: np.ndarray
  scores_BC: np.ndarray
  documents_scored_B: np.ndarray
  code_scores_B: np.ndarray


def concatenate(parts: Sequence[Rankings]) -> Rankings:
  """Joins the answers to consecutive batches of queries."""
  return Rankings(
    *(
      np.concatenate([getattr(part, field.name) for part in parts])
      for field in dataclasses.fields(Rankings)
    )
  )


def _check(rankings: Rankings, documents: int) -> None:
  rows_BC, scores_BC = rankings.rows_BC, rankings.scores_BC
  if rows_BC.shape != scores_BC.shape or rows_BC.ndim != 2:
    raise UserError(
      'rows and scores of a ranking should have one shape [B, C], got '
      f'{rows_BC.shape} and {scores_BC.shape}'
    )
  valid_BC = rows_BC != NO_DOC
  outside_BC = valid_BC & ((rows_BC < 0) | (rows_BC >= documents))
  if outside_BC.any():
    row = rows_BC[outside_BC][0]
    raise UserError(
      f'a ranking names document row {row} of {documents} documents: it '
      'comes from another index'
    )
  bad_BC = valid_BC & ~np.isfinite(scores_BC)
  if bad_BC.any():
    query, place = np.argwhere(bad_BC)[0]
    raise UserError(
      f'the score of query {query} at rank {place + 1} should be finite, got '
      f'{scores_BC[query, place]}'
    )
  sorted_BC = np.sort(rows_BC, axis=1)
  twice_BC = (sorted_BC[:, 1:] == sorted_BC[:, :-1]) & (
    sorted_BC[:, 1:] != NO_DOC
  )
  if twice_BC.any():
    query, place = np.argwhere(twice_BC)[0]
    raise UserError(
      f'the ranking of query {query} holds document row '
      f'{sorted_BC[query, place]} twice'
    )
  both_BC = valid_BC[:, 1:] & valid_BC[:, :-1]
  rising_BC = both_BC & (scores_BC[:, 1:] > scores_BC[:, :-1])
  if rising_BC.any():
    query, place = np.argwhere(rising_BC)[0]
    raise UserError(
      f'scores should not rise along a ranking, query {query} rises after '
      f'rank {place + 1}'
    )


def canonical(rankings: Rankings, document_ids: Sequence[str]) -> Rankings:
  """Checks rankings and orders ties as trec_eval does.

  trec_eval reads float32 scores and breaks ties by document id, descending.
  With the same order here, the table equals what trec_eval says of the run
  file, and no system gains from the order in which a corpus is stored.

  Args:
    rankings: what a system answered.
    document_ids: the id of each document row.

  Returns:
    The same rankings, scores in float32, ties in trec_eval's order, empty
    places last.
  """
  with np.errstate(over='ignore'):
    scores_BC = np.asarray(rankings.scores_BC).astype(np.float32)
  rows_BC = np.array(rankings.rows_BC, dtype=np.int64)
  rankings = dataclasses.replace(rankings, rows_BC=rows_BC, scores_BC=scores_BC)
  _check(rankings, len(document_ids))
  empty_BC = rows_BC == NO_DOC
  order_BC = np.argsort(empty_BC, axis=1, kind='stable')
  rows_BC = np.take_along_axis(rows_BC, order_BC, axis=1)
  scores_BC = np.take_along_axis(scores_BC, order_BC, axis=1)
  tied_B = np.any(
    (scores_BC[:, 1:] == scores_BC[:, :-1]) & (rows_BC[:, 1:] != NO_DOC),
    axis=1,
  )
  for query in np.flatnonzero(tied_B):
    rows = [int(row) for row in rows_BC[query] if row != NO_DOC]
    score = dict(zip(rows, scores_BC[query].tolist(), strict=False))
    rows.sort(key=lambda row: document_ids[row].encode(), reverse=True)
    rows.sort(key=score.__getitem__, reverse=True)
    rows_BC[query, : len(rows)] = rows
  return dataclasses.replace(rankings, rows_BC=rows_BC, scores_BC=scores_BC)
