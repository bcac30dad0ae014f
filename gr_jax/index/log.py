"""The changes since a version was written, in a file that only grows.

A change is acknowledged when its record is on the disk. Records are chained:
the checksum of each is of all before it too, and of the version's manifest.

  record = magic, checksum of this head, bytes of the change, SHA-256, change

What a killed writer leaves behind the last whole record is no change yet:
readers pass over it, the next writer cuts it off. Other damage is refused.
"""

import hashlib
import os
import pathlib
import shutil
import struct
import zlib
from collections.abc import Iterator

from gr_jax.index import versions
from gr_jax.index.changes import Change, from_bytes, to_bytes
from gr_jax.types import UserError

NAME = 'changes.log'
_MAGIC = b'grjc'
_HEAD = struct.Struct('<4sIQ32s')


class LogReader:
  """Reads the changes of a version as they come."""

  def __init__(self, directory: pathlib.Path, manifest_sha256: str):
    """Begins before the first.

    Args:
      directory: the version.
      manifest_sha256: of the version.
    """
    self.path = directory / NAME
    self.end = 0
    self.digest = bytes.fromhex(manifest_sha256)

  def new(self) -> Iterator[Change]:
    """The changes that were acknowledged since, in their order.

    Raises:
      UserError: when the file is damaged.
    """
    if not self.path.is_file():
      return
    with self.path.open('rb') as file:
      file.seek(self.end)
      while record := self._next(file):
        data, digest = record
        try:
          change = from_bytes(data)
        except ValueError as error:
          raise self._damaged(str(error)) from error
        self.end, self.digest = file.tell(), digest
        yield change

  def _next(self, file) -> tuple[bytes, bytes] | None:
    """The bytes of the next change and its digest, None behind the last."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or not any(head):
      return None
    magic, checksum, size, digest = _HEAD.unpack(head)
    if magic != _MAGIC or checksum != _checksum(size, digest):
      raise self._damaged('no record begins there')
    data = file.read(size)
    if len(data) < size:
      return None
    if digest != _digest(self.digest, data):
      raise self._damaged('its checksum differs')
    return data, digest

  def _damaged(self, reason: str) -> UserError:
    return UserError(
      f'{self.path} is damaged at byte {self.end} ({reason}): bring back a '
      'copy, or give up the changes from there on with truncate -s '
      f'{self.end} {self.path}'
    )


class LogWriter:
  """Appends changes; one process at a time, who holds versions.writing."""

  def __init__(self, reader: LogReader):
    """Goes on where a reader has come to; cuts off what is behind.

    Args:
      reader: at the end of the version's changes.
    """
    self._path = reader.path
    self._end, self._digest = reader.end, reader.digest
    # A version that was never changed has no log.
    self._file = self._path.open('r+b') if self._path.is_file() else None
    if self._file is not None:
      self._cut()

  def append(self, change: Change) -> None:
    """Writes a change; it is on the disk when this returns."""
    data = to_bytes(change)
    digest = _digest(self._digest, data)
    if self._file is None:
      self._file = self._path.open('w+b')
      versions.sync(self._path.parent)
    head = _HEAD.pack(_MAGIC, _checksum(len(data), digest), len(data), digest)
    try:
      self._file.write(head)
      self._file.write(data)
      self._file.flush()
      os.fsync(self._file.fileno())
    except OSError as error:
      self._cut()
      free = shutil.disk_usage(self._path.parent).free
      raise UserError(
        f'{self._path} could not take a change of {len(data):,} bytes '
        f'({error.strerror}; {free:,} bytes are free): nothing was changed'
      ) from error
    self._end += len(head) + len(data)
    self._digest = digest

  def close(self) -> None:
    """Closes the file."""
    if self._file is not None:
      self._file.close()

  def _cut(self) -> None:
    """Cuts off what is behind the last whole record."""
    self._file.seek(self._end)
    self._file.truncate()
    os.fsync(self._file.fileno())


def _digest(before: bytes, data: bytes) -> bytes:
  return hashlib.sha256(before + data).digest()


def _checksum(size: int, digest: bytes) -> int:
  return zlib.crc32(size.to_bytes(8, 'little') + digest)
