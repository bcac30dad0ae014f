"""A collection in the BEIR layout, read as a stream and checked throughout."""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Collection as Container
from collections.abc import Iterator

from gr_jax.checksums import file_sha256
from gr_jax.data import qrels
from gr_jax.data.records import (
  MAX_CHARACTERS,
  BadRecordError,
  Line,
  UnreadableFileError,
  identifier_field,
  parse_object,
  read_lines,
  text_field,
)
from gr_jax.types import Document, Judgement, Query, UserError, near_miss

_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class BadRecord:
  """A record that was left out, and why."""

  file: str
  line: int
  reason: str

  def __str__(self):
    return f'{self.file}:{self.line}: {self.reason}'


@dataclasses.dataclass(frozen=True)
class Position:
  """Where a document starts in the corpus file."""

  offset: int  # bytes, of the decompressed file
  line: int  # from 1


class Collection:
  """Reads `corpus`, `queries` (.jsonl or .jsonl.gz) and `qrels/SPLIT.tsv`.

  Every pass validates. A bad record is refused with file, line and reason;
  with `max_bad_records` that many are listed in `bad_records` instead, and
  the next one is refused.

  Attributes:
    directory: the folder.
    cut_ids: ids of documents and queries whose title or text was longer than
      `MAX_CHARACTERS` and was cut to it.
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
    self.directory = pathlib.Path(directory)
    _check_directory(self.directory)
    self._corpus = self._find('corpus')
    self._splits = qrels.find_splits(self.directory / 'qrels')
    # A corpus alone can be indexed and trained on from its own text.
    self._queries = self._find('queries', required=bool(self._splits))
    self._max_bad_records = max_bad_records
    self._bad = {(bad.file, bad.line): bad for bad in known_bad_records}
    self._known_bad = frozenset(self._bad)
    self._document_ids: dict[str, int] | None = None
    self._query_ids: set[str] | None = None
    self.cut_ids: dict[str, None] = {}

  @property
  def bad_records(self) -> list[BadRecord]:
    """The records left out so far, by file and line."""
    return [self._bad[key] for key in sorted(self._bad)]

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
        _check_new(query.id, seen)
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

  def _lines(self, path: pathlib.Path, start: Position) -> Iterator[Line]:
    try:
      for line in read_lines(path, start.offset, start.line):
        if (self._name(path), line.number) not in self._known_bad:
          yield line
    except UnreadableFileError as error:
      raise UserError(f'{path}:{error.line}: {error}') from error

  def _located_documents(
    self, start: Position | None = None, count: int | None = None
  ) -> Iterator[tuple[Position, Document]]:
    lines_by_id, whole = {}, start is None and count is None
    for line in self._lines(self._corpus, start or Position(0, 1)):
      if len(lines_by_id) == count:
        return
      try:
        record = parse_object(line)
        document = self._document(record, line)
        _check_new(document.id, lines_by_id)
      except BadRecordError as error:
        self.refuse(self._corpus, line.number, str(error))
        continue
      lines_by_id[document.id] = line.number
      yield Position(line.offset, line.number), document
    if not lines_by_id:
      raise UserError(f'{self._corpus}: holds no document')
    if whole:
      self._document_ids = {name: i for i, name in enumerate(lines_by_id)}

  def _document(self, record: dict, line: Line) -> Document:
    identifier = identifier_field(record)
    title = self._cut(identifier, text_field(record, 'title', False), line)
    text = self._cut(identifier, text_field(record, 'text', True), line)
    if not title.strip() and not text.strip():
      raise BadRecordError(f'the document {identifier!r} is empty')
    return Document(identifier, title, text, _metadata(record))

  def _query(self, record: dict, line: Line) -> Query:
    identifier = identifier_field(record)
    text = self._cut(identifier, text_field(record, 'text', True), line)
    if not text.strip():
      raise BadRecordError(f'the query {identifier!r} is empty')
    return Query(identifier, text, _metadata(record))

  def _cut(self, identifier: str, text: str, line: Line) -> str:
    if len(text) > MAX_CHARACTERS or line.shortened:
      self.cut_ids[identifier] = None
    return text[:MAX_CHARACTERS]

  def _name(self, path: pathlib.Path) -> str:
    if path.is_relative_to(self.directory):
      return path.relative_to(self.directory).as_posix()
    return str(path)

  def refuse(self, path: pathlib.Path, line: int, reason: str) -> None:
    """Lists a bad record, or raises when there were enough of them.

    Files that refer to the collection are counted with it.

    Args:
      path: the file.
      line: from 1.
      reason: what is wrong.

    Raises:
      UserError: naming all three.
    """
    bad = BadRecord(self._name(path), line, reason)
    if (bad.file, bad.line) in self._bad:
      return
    if len(self._bad) >= self._max_bad_records:
      after = (
        f' (after {self._max_bad_records} bad records that were allowed)'
        if self._max_bad_records
        else ''
      )
      raise UserError(
        f'{path}:{line}: {reason}{after}; correct it, or raise '
        'PreparationSettings.max_bad_records to leave such records out'
      )
    self._bad[(bad.file, bad.line)] = bad


def document_text(document: Document) -> str:
  """What encoders and baselines read of a document: title, then text."""
  return f'{document.title} {document.text}'.strip()


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


def _check_new(identifier: str, lines_by_id: dict[str, int]) -> None:
  if identifier in lines_by_id:
    raise BadRecordError(
      f'the id {identifier!r} is that of line {lines_by_id[identifier]} already'
    )


def _metadata(record: dict) -> dict[str, object]:
  """The metadata of a record, with the fields that have no other place."""
  metadata = record.get('metadata')
  if metadata is None:
    metadata = {}
  if not isinstance(metadata, dict):
    raise BadRecordError(
      f"'metadata' must be an object, got {type(metadata).__name__}"
    )
  known = ('_id', 'title', 'text', 'metadata')
  rest = {key: value for key, value in record.items() if key not in known}
  if both := rest.keys() & metadata.keys():
    raise BadRecordError(f'{sorted(both)} stand in the record and its metadata')
  return {**rest, **metadata}
