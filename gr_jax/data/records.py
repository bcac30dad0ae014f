"""Strict reading of JSON lines with a bound on memory, however long a line."""

import codecs
import dataclasses
import gzip
import json
import math
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

# A longer title or text is cut: far past what any encoder reads.
MAX_CHARACTERS = 200_000
# The longest JSON spelling of one character is a pair of \uXXXX escapes.
_MAX_STRING_BYTES = 12 * MAX_CHARACTERS
# A line past this size has its long strings cut while it is read.
_LONG_LINE_BYTES = 1 << 20
# What is left after that must fit here: a record is not made of metadata.
_MAX_LINE_BYTES = 16 << 20
_BYTE_ORDER_MARKS = (b'\xef\xbb\xbf', b'\xff\xfe', b'\xfe\xff')
_ENDS = b'\r\n'
_OUTSIDE_STRING = re.compile(rb'[^"]*+')
_INSIDE_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


class BadRecordError(Exception):
  """Says why one record is refused; the reader adds file and line."""


class UnreadableFileError(Exception):
  """A fault that no skipping of records helps against."""

  def __init__(self, line: int, reason: str):
    super().__init__(reason)
    self.line = line


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of a file, without its line end."""

  number: int  # from 1
  offset: int  # of its first byte in the (decompressed) file
  content: bytes
  shortened: bool = False  # long strings were cut while it was read
  fault: str = ''  # why its bytes are no text, found while shortening it


def open_binary(path: pathlib.Path) -> BinaryIO:
  """Opens a plain file, or a gzip one when its name ends in .gz."""
  if path.suffix == '.gz':
    return gzip.open(path, 'rb')
  return path.open('rb')


def read_lines(
  path: pathlib.Path, offset: int = 0, number: int = 1
) -> Iterator[Line]:
  """Yields the lines of a file in bounded memory.

  Args:
    path: a plain or gzip file.
    offset: bytes to skip, the start of line `number`.
    number: number of the first line yielded.

  Yields:
    Lines in order.

  Raises:
    UnreadableFileError: for a line past the bound, a broken gzip stream or a
      byte order mark.
  """
  try:
    with open_binary(path) as file:
      if offset:
        file.seek(offset)
      while content := file.readline(_LONG_LINE_BYTES):
        if not offset and content.startswith(_BYTE_ORDER_MARKS):
          raise UnreadableFileError(
            number,
            'the file starts with a byte order mark; save it as UTF-8 without',
          )
        if len(content) < _LONG_LINE_BYTES or content.endswith(b'\n'):
          size, line = len(content), Line(number, offset, content.rstrip(_ENDS))
        else:
          size, line = _shorten(content, file, number, offset)
        yield line
        offset += size
        number += 1
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise UnreadableFileError(number, f'broken gzip stream: {error}') from error


class _StringCutter:
  """Copies JSON text piece by piece, dropping the far end of long strings.

  A cut never falls inside an escape or a character, so that the copy is JSON
  exactly when the original is.
  """

  def __init__(self):
    self.kept = bytearray()
    self.shortened = False
    self._inside = False
    self._string_bytes = 0
    self._escaped = False

  def feed(self, piece: bytes) -> None:
    at = 0
    while at < len(piece):
      if not self._inside:
        end = _OUTSIDE_STRING.match(piece, at).end()
        self.kept += piece[at : end + 1]
        self._inside = end < len(piece)
        self._string_bytes = 0
        at = end + 1
      elif self._escaped:
        self._keep(piece[at : at + 1])
        self._escaped = False
        at += 1
      else:
        end = _INSIDE_STRING.match(piece, at).end()
        self._keep(piece[at:end])
        if end < len(piece) and piece[end : end + 1] == b'"':
          self._close()
        elif end < len(piece):
          # A backslash ends the piece: what it escapes comes next.
          self._keep(b'\\')
          self._escaped = True
        at = end + 1

  def _keep(self, part: bytes) -> None:
    room = _MAX_STRING_BYTES + 16 - self._string_bytes
    self._string_bytes += len(part)
    if room > 0:
      self.kept += part[:room]

  def _close(self) -> None:
    if self._string_bytes > _MAX_STRING_BYTES + 16:
      self.shortened = True
      del self.kept[_whole_end(self.kept) :]
    self.kept += b'"'
    self._inside = False


def _whole_end(kept: bytearray) -> int:
  """Where to end cut JSON text so that no escape or character is split."""
  end = len(kept)
  last = kept.rfind(b'\\', end - 8, end)
  if last >= 0:
    first = last
    while kept[first - 1 : first] == b'\\':
      first -= 1
    # In a run of odd length the last one opens an escape.
    if (last - first) % 2 == 0:
      return last
  while kept[end - 1] & 0xC0 == 0x80:
    end -= 1
  return end - 1 if kept[end - 1] >= 0xC0 else end


def _shorten(
  start: bytes, file: BinaryIO, number: int, offset: int
) -> tuple[int, Line]:
  """Reads the rest of a long line, cutting its long strings on the way."""
  cutter = _StringCutter()
  decoder = codecs.getincrementaldecoder('utf-8')()
  size, piece, fault = 0, start, ''
  while piece:
    if not fault:
      fault = _text_fault(decoder, piece, size)
    size += len(piece)
    cutter.feed(piece)
    if len(cutter.kept) > _MAX_LINE_BYTES:
      raise UnreadableFileError(
        number,
        f'the line is over {_MAX_LINE_BYTES >> 20} MiB without its long '
        'strings; is the file in the JSON lines layout?',
      )
    if piece.endswith(b'\n'):
      break
    piece = file.readline(_LONG_LINE_BYTES)
  content = bytes(cutter.kept).rstrip(_ENDS)
  return size, Line(number, offset, content, cutter.shortened, fault)


def _text_fault(
  decoder: codecs.IncrementalDecoder, piece: bytes, before: int
) -> str:
  """Why a piece of a line is no text, or an empty string."""
  try:
    decoder.decode(piece)
  except UnicodeDecodeError as error:
    return f'not UTF-8 near byte {before + error.start + 1}'
  return f'NUL near byte {before + piece.index(0) + 1}' if 0 in piece else ''


def line_text(line: Line) -> str:
  """Decodes a line.

  Raises:
    BadRecordError: when it is not UTF-8 or holds NUL.
  """
  if line.fault:
    raise BadRecordError(line.fault)
  try:
    text = line.content.decode('utf-8')
  except UnicodeDecodeError as error:
    raise BadRecordError(f'not UTF-8 at byte {error.start + 1}') from error
  if '\0' in text:
    raise BadRecordError(f'NUL character at column {text.index(chr(0)) + 1}')
  return text


def parse_object(line: Line) -> dict:
  """Parses one JSON object, refusing what json would let pass.

  Args:
    line: one line of a file.

  Returns:
    The object.

  Raises:
    BadRecordError: with the reason.
  """
  text = line_text(line)
  if not text.strip():
    raise BadRecordError('blank line; every line holds one JSON object')
  try:
    record = json.loads(
      text,
      object_pairs_hook=_distinct_keys,
      parse_constant=_refuse_constant,
      parse_float=_finite,
    )
  except json.JSONDecodeError as error:
    raise BadRecordError(
      f'bad JSON: {error.msg} at column {error.colno}'
    ) from error
  except (ValueError, RecursionError) as error:
    raise BadRecordError(f'bad JSON: {error}') from error
  if not isinstance(record, dict):
    raise BadRecordError(f'expected a JSON object, got {type(record).__name__}')
  return record


def _distinct_keys(pairs: list[tuple[str, object]]) -> dict:
  record = dict(pairs)
  if len(record) < len(pairs):
    seen = set()
    for key, _ in pairs:
      if key in seen:
        raise BadRecordError(f'the key {key!r} occurs twice')
      seen.add(key)
  return record


def _refuse_constant(name: str) -> NoReturn:
  raise BadRecordError(f'{name} is not JSON')


def _finite(digits: str) -> float:
  number = float(digits)
  if not math.isfinite(number):
    raise BadRecordError(f'the number {digits[:20]} overflows')
  return number


def text_field(record: dict, key: str, required: bool) -> str:
  """The string under `key`; an absent or null optional one is empty.

  Raises:
    BadRecordError: when it is missing, of another type, or holds NUL or half
      a surrogate pair, which no UTF-8 file can hold.
  """
  value = record.get(key)
  if value is None:
    if required:
      raise BadRecordError(f'no {key!r}; the record has {sorted(record)[:8]}')
    return ''
  if not isinstance(value, str):
    raise BadRecordError(
      f'{key!r} must be a string, got {type(value).__name__}'
    )
  # What lies further is cut away.
  start = value[:MAX_CHARACTERS]
  if '\0' in start:
    raise BadRecordError(f'NUL character in {key!r}')
  try:
    start.encode('utf-8')
  except UnicodeEncodeError as error:
    raise BadRecordError(
      f'{key!r} holds half a surrogate pair at character {error.start + 1}'
    ) from error
  return value


def identifier_field(record: dict) -> str:
  """The '_id' of a record: a non-empty string without white space.

  Raises:
    BadRecordError: with the reason; white space would break run files.
  """
  identifier = text_field(record, '_id', required=True)
  if not identifier.strip():
    raise BadRecordError('the id is blank')
  if identifier.split() != [identifier]:
    raise BadRecordError(
      f'the id {identifier[:40]!r} holds white space, which breaks TREC files'
    )
  return identifier
