"""Documents from JSON lines files, checked; bad records refused or listed."""

import dataclasses
import pathlib
from collections.abc import Collection as Container
from collections.abc import Iterator

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
from gr_jax.types import Document, UserError, near_miss


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


class RecordFiles:
  """Files of one folder whose records are checked one by one.

  Attributes:
    directory: the folder; messages name files within it.
    cut_ids: ids of the records whose title or text was longer than
      `MAX_CHARACTERS` and was cut to it.
  """

  _remedy = (
    'correct it, or raise max_bad_records (in training PreparationSettings.'
    'max_bad_records) to leave such records out'
  )

  def __init__(
    self,
    directory: pathlib.Path,
    max_bad_records: int = 0,
    known_bad_records: Container[BadRecord] = (),
  ):
    self.directory = directory
    self.cut_ids: dict[str, None] = {}
    self._max_bad_records = max_bad_records
    self._bad = {(bad.file, bad.line): bad for bad in known_bad_records}
    self._known_bad = frozenset(self._bad)

  @property
  def bad_records(self) -> list[BadRecord]:
    """The records left out so far, by file and line."""
    return [self._bad[key] for key in sorted(self._bad)]

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
      raise UserError(f'{path}:{line}: {reason}{after}; {self._remedy}')
    self._bad[(bad.file, bad.line)] = bad

  def _lines(self, path: pathlib.Path, start: Position) -> Iterator[Line]:
    try:
      for line in read_lines(path, start.offset, start.line):
        if (self._name(path), line.number) not in self._known_bad:
          yield line
    except UnreadableFileError as error:
      raise UserError(f'{path}:{error.line}: {error}') from error

  def _documents(
    self,
    path: pathlib.Path,
    start: Position | None = None,
    count: int | None = None,
  ) -> Iterator[tuple[Position, Document]]:
    """Yields documents of a file and where they start.

    Args:
      path: the file.
      start: where to begin; duplicates of earlier ids are not seen then.
      count: how many to yield at most.
    """
    lines_by_id: dict[str, int] = {}
    for line in self._lines(path, start or Position(0, 1)):
      if len(lines_by_id) == count:
        return
      try:
        record = parse_object(line)
        document = self._document(record, line)
        check_new(document.id, lines_by_id)
      except BadRecordError as error:
        self.refuse(path, line.number, str(error))
        continue
      lines_by_id[document.id] = line.number
      yield Position(line.offset, line.number), document
    if not lines_by_id:
      raise UserError(f'{path}: holds no document')

  def _document(self, record: dict, line: Line) -> Document:
    identifier = identifier_field(record)
    title = self._cut(identifier, text_field(record, 'title', False), line)
    text = self._cut(identifier, text_field(record, 'text', True), line)
    if not title.strip() and not text.strip():
      raise BadRecordError(f'the document {identifier!r} is empty')
    return Document(identifier, title, text, record_metadata(record))

  def _cut(self, identifier: str, text: str, line: Line) -> str:
    if len(text) > MAX_CHARACTERS or line.shortened:
      self.cut_ids[identifier] = None
    return text[:MAX_CHARACTERS]

  def _name(self, path: pathlib.Path) -> str:
    if path.is_relative_to(self.directory):
      return path.relative_to(self.directory).as_posix()
    return str(path)


class DocumentFile(RecordFiles):
  """A corpus without a collection around it: documents that come later."""

  _remedy = 'correct it, or leave it out'

  def __init__(self, path: str | pathlib.Path):
    """Names the file, `.jsonl` or `.jsonl.gz`.

    Raises:
      UserError: when it is missing.
    """
    self.path = pathlib.Path(path)
    super().__init__(self.path.parent)
    if not self.path.is_file():
      folder = self.path.parent
      there = [p.name for p in folder.iterdir()] if folder.is_dir() else []
      found = 'it is a folder' if self.path.is_dir() else 'there is none'
      raise UserError(
        f'{self.path}: expected a file of documents, an object with _id, title '
        f'and text a line; {found}{near_miss(self.path.name, there)}'
      )

  def documents(self) -> Iterator[Document]:
    """Yields the documents in the order of the file."""
    for _, document in self._documents(self.path):
      yield document


def check_new(identifier: str, lines_by_id: dict[str, int]) -> None:
  """Refuses an id that an earlier line has."""
  if identifier in lines_by_id:
    raise BadRecordError(
      f'the id {identifier!r} is that of line {lines_by_id[identifier]} already'
    )


def record_metadata(record: dict) -> dict[str, object]:
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
