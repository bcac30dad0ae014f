"""Queries that were generated for documents, in a file or folder of their own.

Each line is {"_id": document id, "queries": [text, ...]} or
{"document_id": document id, "query": text}.
"""

import pathlib
from collections.abc import Callable, Container, Iterator

from gr_jax.data.pseudo_query_folder import whole_files
from gr_jax.data.records import (
  BadRecordError,
  UnreadableFileError,
  parse_object,
  read_lines,
  text_field,
)
from gr_jax.types import UserError


def read_pseudo_queries(
  path: str | pathlib.Path,
  document_ids: Container[str],
  refuse: Callable[[pathlib.Path, int, str], None],
) -> Iterator[tuple[str, str]]:
  """Yields (document id, query) in the order of the file.

  Args:
    path: the JSON lines file, plain or gzip; or a folder that
      gr_jax.generate_queries wrote, whose files are checked and read in order.
    document_ids: ids that queries may lead to.
    refuse: called with file, line and reason for each bad record; returns
      when the record may be skipped.

  Yields:
    Document id and query text.

  Raises:
    UserError: when the file cannot be read, or is not as it was written.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    for file in whole_files(path):
      yield from read_pseudo_queries(file, document_ids, refuse)
    return
  if not path.is_file():
    raise UserError(f'{path}: expected a file of pseudo-queries; none is there')
  try:
    for line in read_lines(path):
      try:
        document_id, queries = _parse(parse_object(line))
        if document_id not in document_ids:
          raise BadRecordError(
            f'the document id {document_id[:60]!r} is not in the corpus'
          )
      except BadRecordError as error:
        refuse(path, line.number, str(error))
        continue
      for query in queries:
        yield document_id, query
  except UnreadableFileError as error:
    raise UserError(f'{path}:{error.line}: {error}') from error


def _parse(record: dict) -> tuple[str, list[str]]:
  if 'queries' in record:
    queries = record['queries']
    if not isinstance(queries, list) or not queries:
      raise BadRecordError("'queries' must be a list with a query at least")
    # Each is checked like any text field.
    texts = [text_field({'queries': text}, 'queries', True) for text in queries]
    document_id = text_field(record, '_id', True)
  else:
    texts = [text_field(record, 'query', True)]
    document_id = text_field(record, 'document_id', True)
  if not all(text.strip() for text in texts):
    raise BadRecordError('a query is blank')
  return document_id, texts
