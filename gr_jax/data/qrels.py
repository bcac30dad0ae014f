"""Relevance judgements: BEIR's TSV with a header, or TREC's four columns."""

import pathlib
from collections.abc import Callable, Container

from gr_jax.data.records import BadRecordError, Line, line_text, read_lines
from gr_jax.types import Judgement

SUFFIXES = ('.tsv', '.trec', '.qrels', '.txt')
_HEADER = ('query-id', 'corpus-id', 'score')


def find_splits(directory: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """The qrels files of a folder by split name; more than one is ambiguous."""
  splits = {}
  if directory.is_dir():
    for path in sorted(directory.iterdir()):
      bare = path.with_suffix('') if path.suffix == '.gz' else path
      if bare.suffix in SUFFIXES:
        splits.setdefault(bare.stem, []).append(path)
  return splits


def read_judgements(
  path: pathlib.Path,
  query_ids: Container[str],
  document_ids: Container[str],
  refuse: Callable[[pathlib.Path, int, str], None],
) -> list[Judgement]:
  """Reads one qrels file in its order.

  Args:
    path: the file, plain or gzip.
    query_ids: ids that may be judged.
    document_ids: ids that may be judged.
    refuse: called with file, line and reason for each bad record; returns
      when the record may be skipped.

  Returns:
    The judgements.
  """
  judgements, lines_by_pair, columns = [], {}, None
  for line in read_lines(path):
    try:
      fields = _fields(line)
      if columns is None:
        columns = _columns(fields)
        if columns == 3:
          continue
      judgement = _judgement(fields, columns)
      _check_known(judgement, query_ids, document_ids)
      pair = (judgement.query_id, judgement.document_id)
      if pair in lines_by_pair:
        raise BadRecordError(
          f'query {pair[0]!r} and document {pair[1]!r} are judged already in '
          f'line {lines_by_pair[pair]}'
        )
    except BadRecordError as error:
      refuse(path, line.number, str(error))
      continue
    lines_by_pair[pair] = line.number
    judgements.append(judgement)
  return judgements


def _fields(line: Line) -> list[str]:
  text = line_text(line)
  return text.split('\t') if '\t' in text else text.split()


def _columns(fields: list[str]) -> int:
  """The layout that the first line shows: 3 (TSV with header) or 4 (TREC)."""
  if tuple(field.strip() for field in fields) == _HEADER:
    return 3
  if len(fields) == 4 and _is_integer(fields[3]):
    return 4
  raise BadRecordError(
    f'expected the header {"<tab>".join(_HEADER)} or the four columns of '
    f'TREC qrels, got {" ".join(fields)[:60]!r}'
  )


def _judgement(fields: list[str], columns: int) -> Judgement:
  if len(fields) != columns:
    raise BadRecordError(f'expected {columns} columns, got {len(fields)}')
  query_id, document_id = fields[0], fields[columns - 2]
  score = fields[columns - 1].strip()
  if not _is_integer(score):
    raise BadRecordError(f'the relevance must be an integer, got {score!r}')
  # TREC marks junk pages with negative grades; BEIR has none.
  if columns == 3 and int(score) < 0:
    raise BadRecordError(f'the relevance must not be negative, got {score}')
  return Judgement(query_id, document_id, int(score))


def _is_integer(text: str) -> bool:
  digits = text.strip().removeprefix('-')
  return digits.isascii() and digits.isdigit() and len(digits) < 10


def _check_known(
  judgement: Judgement,
  query_ids: Container[str],
  document_ids: Container[str],
) -> None:
  if judgement.query_id not in query_ids:
    raise BadRecordError(
      f'the query id {judgement.query_id[:60]!r} is not in the queries'
    )
  if judgement.document_id not in document_ids:
    raise BadRecordError(
      f'the document id {judgement.document_id[:60]!r} is not in the corpus'
    )
