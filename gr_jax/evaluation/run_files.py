"""TREC run files: `query Q0 document rank score system`, one line a place."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from gr_jax.data.records import (
  BadRecordError,
  UnreadableFileError,
  line_text,
  read_lines,
)
from gr_jax.evaluation.rankings import Rankings, canonical
from gr_jax.types import NO_DOC, UserError


def write_run(
  path: Path,
  query_ids: Sequence[str],
  document_ids: Sequence[str],
  rankings: Rankings,
  system: str,
) -> None:
  """Writes rankings so that trec_eval sees exactly their order.

  The collection's reader refuses ids with white space, which the format
  cannot hold.

  Args:
    path: the file, replaced by an atomic rename.
    query_ids: B ids.
    document_ids: the id of each document row.
    rankings: answers to those queries.
    system: last column; white space becomes an underscore.
  """
  rankings = canonical(rankings, document_ids)
  tag = '_'.join(system.split())
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.tmp')
  with partial.open('w', encoding='utf-8') as file:
    rows_BC, scores_BC = rankings.rows_BC.tolist(), rankings.scores_BC
    for query_id, rows, scores in zip(
      query_ids, rows_BC, scores_BC.tolist(), strict=True
    ):
      for place, (row, value) in enumerate(zip(rows, scores, strict=True)):
        if row != NO_DOC:
          # Nine digits bring a float32 back exactly.
          file.write(
            f'{query_id} Q0 {document_ids[row]} {place + 1} {value:.9g} {tag}\n'
          )
  os.replace(partial, path)


def read_run(path: Path) -> dict[str, dict[str, float]]:
  """Reads a run file.

  Args:
    path: the file.

  Returns:
    The score of each document, for each query.

  Raises:
    UserError: a line that is no text or not six columns, a score that is no
      finite number, a document given twice for a query; with file and line.
  """
  run: dict[str, dict[str, float]] = {}
  try:
    for line in read_lines(path):
      try:
        _add(run, line_text(line))
      except BadRecordError as error:
        raise UserError(f'{path}:{line.number}: {error}') from error
  except UnreadableFileError as error:
    raise UserError(f'{path}:{error.line}: {error}') from error
  return run


def _add(run: dict[str, dict[str, float]], line: str) -> None:
  """Adds one line of a run file."""
  columns = line.split()
  if len(columns) != 6:
    raise BadRecordError(f'a run file has six columns, got {len(columns)}')
  query_id, _, document_id, _, text, _ = columns
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise BadRecordError(f'the score should be a finite number, got {text!r}')
  scores = run.setdefault(query_id, {})
  if document_id in scores:
    raise BadRecordError(
      f'document {document_id!r} stands twice for query {query_id!r}'
    )
  scores[document_id] = value
