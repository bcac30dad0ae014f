"""A collection in the BEIR layout, read as a stream and checked throughout."""

import collections
import hashlib
import pathlib
from collections.abc import Collection as Container
from collections.abc import Iterator

from gr_jax.checksums import file_sha256
from gr_jax.data import qrels
from gr_jax.data.documents import (
  BadRecord,
  Position,
  RecordFiles,
  check_new,
  record_metadata,
)
from gr_jax.data.records import (
  BadRecordError,
  Line,
  UnreadableFileError,
  identifier_field,
  parse_object,
  text_field,
)
from gr_jax.types import Document, Judgement, Query, UserError, near_miss


class Collection(RecordFiles):
  """Reads `corpus`, `queries` (.jsonl or .jsonl.gz) and `qrels/SPLIT.tsv`.

  Every pass validates. A bad record is refused with file, line and reason;
  with `max_bad_records` that many are listed in `bad_records` instead, and
  the next one is refused.
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    max_bad_records: int = 0,
    known_bad_records: Container[BadRecord] = (),
  ):
    """Opens a folder.

    Args:
      directory: the folder.
      max_bad_records: how many bad records may be left out and listed.
      known_bad_records: those that an earlier pass left out, so that a pass
        over a part of the corpus leaves out the same (a duplicate of another
        part is not seen within this one).

    Raises:
      UserError: when the folder or one of its files is missing.
    """
    super().__init__(
      pathlib.Path(directory), max_bad_records, known_bad_records
    )
    _check_directory(self.directory)
    self._corpus = self._find('corpus')
    self._splits = qrels.find_splits(self.directory / 'qrels')
    # A corpus alone can be indexed and trained on from its own text.
    self._queries = self._find('queries', required=bool(self._splits))
    self._document_ids: dict[str, int] | None = None
    self._query_ids: set[str] | None = None

  def documents(
    self, start: Position | None = None, count: int | None = None
  ) -> Iterator[Document]:
    """Yields the documents in corpus order.

    Args:
      start: where to begin; duplicates of earlier ids are not seen then.
      count: how many to yield at most.
    """
    for _, document in self._located_documents(start, count):
      yield document

  def positions(self, every: int) -> list[Position]:
    """Where the documents 0, `every`, 2 `every`, ... start."""
    return [
      position
      for index, (position, _) in enumerate(self._located_documents())
      if index % every == 0
    ]

  def document_index(self) -> dict[str, int]:
    """Document ids to positions in corpus order."""
    if self._document_ids is None:
      # A complete pass leaves the ids behind.
      collections.deque(self._located_documents(), maxlen=0)
    return self._document_ids

  def queries(self) -> Iterator[Query]:
    """Yields the queries in the order of the file."""
    seen = {}
    lines = self._lines(self._queries, Position(0, 1)) if self._queries else ()
    for line in lines:
      try:
        record = parse_object(line)
        query = self._query(record, line)
        check_new(query.id, seen)
      except BadRecordError as error:
        self.refuse(self._queries, line.number, str(error))
        continue
      seen[query.id] = line.number
      yield query
    self._query_ids = set(seen)

  def splits(self) -> list[str]:
    """Names of the splits that have judgements."""
    return sorted(self._splits)

  def judgements(self, split: str) -> list[Judgement]:
    """The judgements of a split in the order of its file.

    Raises:
      UserError: for an unknown split or a bad record.
    """
    path = self._split_path(split)
    if self._query_ids is None:
      collections.deque(self.queries(), maxlen=0)
    try:
      return qrels.read_judgements(
        path, self._query_ids, self.document_index(), self.refuse
      )
    except UnreadableFileError as error:
      raise UserError(f'{path}:{error.line}: {error}') from error

  def text_files(self) -> list[pathlib.Path]:
    """The files of documents and, where there are any, of queries."""
    return [path for path in (self._corpus, self._queries) if path]

  def corpus_sha256(self) -> str:
    """Hash of the corpus file as it lies on disk."""
    return file_sha256(self._corpus)

  def fingerprint(self) -> str:
    """Hash of all files that this collection is read from, with names."""
    total = hashlib.sha256()
    paths = [self._corpus, self._queries, *self._qrels_paths()]
    for path in filter(None, paths):
      name = path.relative_to(self.directory).as_posix()
      total.update(f'{name} {file_sha256(path)}\n'.encode())
    return total.hexdigest()

  def _qrels_paths(self) -> list[pathlib.Path]:
    return [path for paths in self._splits.values() for path in paths]

  def _split_path(self, split: str) -> pathlib.Path:
    paths = self._splits.get(split, [])
    if not paths:
      raise UserError(
        f'{self.directory / "qrels"}: no split {split!r}; there are '
        f'{self.splits()}{near_miss(split, self._splits)}'
      )
    if len(paths) > 1:
      raise UserError(
        f'{self.directory / "qrels"}: the split {split!r} is there twice: '
        f'{[path.name for path in paths]}; keep one'
      )
    return paths[0]

  def _find(self, stem: str, required: bool = True) -> pathlib.Path | None:
    names = (f'{stem}.jsonl', f'{stem}.jsonl.gz')
    found = [self.directory / name for name in names]
    found = [path for path in found if path.is_file()]
    if not found and not required:
      return None
    if not found:
      there = [path.name for path in self.directory.iterdir()]
      raise UserError(
        f'{self.directory}: expected {names[0]} or {names[1]}, as in the BEIR '
        f'layout{near_miss(names[0], there)}'
      )
    if len(found) > 1:
      raise UserError(
        f'{self.directory}: holds {names[0]} and {names[1]}; keep one'
      )
    return found[0]

  def _located_documents(
    self, start: Position | None = None, count: int | None = None
  ) -> Iterator[tuple[Position, Document]]:
    index, whole = {}, start is None and count is None
    for position, document in self._documents(self._corpus, start, count):
      if whole:
        index[document.id] = len(index)
      yield position, document
    if whole:
      self._document_ids = index

  def _query(self, record: dict, line: Line) -> Query:
    identifier = identifier_field(record)
    text = self._cut(identifier, text_field(record, 'text', True), line)
    if not text.strip():
      raise BadRecordError(f'the query {identifier!r} is empty')
    return Query(identifier, text, record_metadata(record))


def _check_directory(directory: pathlib.Path) -> None:
  if directory.is_dir():
    return
  parent = directory.parent
  siblings = (
    [path.name for path in parent.iterdir() if path.is_dir()]
    if parent.is_dir()
    else []
  )
  found = 'it is a file' if directory.exists() else 'there is none'
  raise UserError(
    f'{directory}: expected a folder in the BEIR layout (corpus.jsonl, '
    f'queries.jsonl, qrels/); {found}{near_miss(directory.name, siblings)}'
  )
