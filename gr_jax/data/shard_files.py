"""The bytes of prepared examples: flat records in ArrayRecord files."""

import errno
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

# Examples are read in random order, one at a time.
_WRITER_OPTIONS = 'group_size:1'
_INTEGERS = np.dtype('<i4')


class Example(NamedTuple):
  """A query that leads to a document."""

  query_tokens: np.ndarray  # int32 [tokens]
  document_index: int
  query_id: str


def encode_example(example: Example) -> bytes:
  """Document index, token count, tokens (little-endian int32), query id."""
  header = [example.document_index, len(example.query_tokens)]
  numbers = np.concatenate([header, example.query_tokens]).astype(_INTEGERS)
  return numbers.tobytes() + example.query_id.encode()


def decode_example(record: bytes) -> Example:
  """The inverse of `encode_example`."""
  index, count = np.frombuffer(record, _INTEGERS, count=2)
  tokens = np.frombuffer(record, _INTEGERS, count=count, offset=8)
  return Example(tokens, int(index), record[8 + 4 * count :].decode())


def encode_tokens(tokens: Sequence[int]) -> bytes:
  """Tokens of a document as little-endian int32."""
  return np.asarray(tokens, _INTEGERS).tobytes()


def decode_tokens(record: bytes) -> np.ndarray:
  """The inverse of `encode_tokens`."""
  return np.frombuffer(record, _INTEGERS)


def write_shard(path: pathlib.Path, records: Iterable[bytes]) -> int:
  """Writes records into one ArrayRecord file; returns how many.

  Raises:
    OSError: the disk is full.
  """
  from array_record.python import array_record_module

  writer = array_record_module.ArrayRecordWriter(str(path), _WRITER_OPTIONS)
  count = 0
  try:
    for record in records:
      writer.write(record)
      count += 1
    writer.close()
  except RuntimeError as error:
    reason = os.strerror(errno.ENOSPC)
    if reason not in str(error):
      raise
    raise OSError(errno.ENOSPC, reason, str(path)) from error
  finally:
    if writer.is_open():
      writer.close()
  return count


def read_shards(paths: Sequence[pathlib.Path]):
  """Random access to the records of files in order: len, [i], __getitems__."""
  from array_record.python import array_record_data_source

  return array_record_data_source.ArrayRecordDataSource(
    [str(path) for path in paths]
  )
