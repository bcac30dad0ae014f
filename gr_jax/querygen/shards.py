"""Queries shard by shard, in a folder that survives a kill at any moment.

  WORK/
    inputs.json        what the shards are of
    00000.jsonl.gz     queries of the first documents
    00000.done.json    written last: checksum of the shard, and what was counted

A shard without its mark is made anew. What it holds depends on its documents
alone, so that it is the same bytes whenever and by whomever it is made.
"""

import gzip
import json
import os
import pathlib
import shutil
from collections.abc import Iterable

from gr_jax.checksums import file_sha256
from gr_jax.retrieval.shards import write_whole
from gr_jax.types import UserError

_INPUTS = 'inputs.json'


class ShardFolder:
  """The shards that are there, and their marks."""

  def __init__(self, directory: pathlib.Path, count: int):
    """Names a folder, which need not be there.

    Args:
      directory: the folder.
      count: of the shards.
    """
    self.directory = directory
    self._count = count

  def begin(self, inputs: dict) -> list[int]:
    """Makes the folder, or goes on in one of the same inputs.

    Args:
      inputs: JSON data of all that the shards depend on.

    Returns:
      The numbers of the shards that are to be made.

    Raises:
      UserError: when it was begun with other inputs, which are named.
    """
    place = self.directory / _INPUTS
    text = json.dumps(inputs, indent=1, sort_keys=True)
    if place.is_file():
      other = differences(json.loads(place.read_text('utf-8')), inputs)
      if other:
        raise UserError(
          f'{self.directory} was begun with another {", ".join(other)}: choose '
          'another OUTPUT, or delete that folder'
        )
    else:
      # A kill before the inputs were there leaves nothing worth keeping.
      shutil.rmtree(self.directory, ignore_errors=True)
      self.directory.mkdir(parents=True)
      write_whole(place, text)
    return [number for number in range(self._count) if not self._done(number)]

  def path(self, number: int) -> pathlib.Path:
    """The file of a shard."""
    return self.directory / f'{number:05d}.jsonl.gz'

  def save(
    self, number: int, rows: Iterable[tuple[str, list[str]]], counts: dict
  ) -> None:
    """Writes a shard and its mark.

    Args:
      number: of the shard.
      rows: document ids and their queries.
      counts: JSON data that `counts` adds up.
    """
    write_queries(self.path(number), rows)
    mark = {'sha256': file_sha256(self.path(number)), 'counts': counts}
    write_whole(self._mark(number), json.dumps(mark))

  def counts(self) -> dict[str, int]:
    """What all marks count, added up, in the order of the first of them."""
    total: dict[str, int] = {}
    for number in range(self._count):
      mark = json.loads(self._mark(number).read_text('utf-8'))
      for name, count in mark['counts'].items():
        total[name] = total.get(name, 0) + count
    return total

  def _mark(self, number: int) -> pathlib.Path:
    return self.directory / f'{number:05d}.done.json'

  def _done(self, number: int) -> bool:
    """Whether a shard is as it was written."""
    mark, path = self._mark(number), self.path(number)
    if not mark.is_file() or not path.is_file():
      return False
    return json.loads(mark.read_text('utf-8'))['sha256'] == file_sha256(path)


def differences(one: dict, other: dict, inside: str = '') -> list[str]:
  """The names of what differs, nested ones with dots."""
  names = []
  for key in sorted({*one, *other}):
    mine, its = one.get(key), other.get(key)
    if mine == its:
      continue
    if isinstance(mine, dict) and isinstance(its, dict):
      names += differences(mine, its, f'{inside}{key}.')
    else:
      names.append(f'{inside}{key}')
  return names


def write_queries(
  path: pathlib.Path, rows: Iterable[tuple[str, list[str]]]
) -> None:
  """Writes a file that appears whole: the same rows give the same bytes.

  Args:
    path: of a gzip file, without a name and time in its header.
    rows: document ids and their queries; documents without one are left out.
  """
  partial = path.with_name(f'{path.name}.partial')
  with partial.open('wb') as file:
    with gzip.GzipFile('', 'wb', 6, file, mtime=0) as packed:
      for document_id, queries in rows:
        if queries:
          row = {'_id': document_id, 'queries': queries}
          line = json.dumps(row, ensure_ascii=False)
          packed.write(f'{line}\n'.encode())
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def read_queries(path: pathlib.Path) -> Iterable[tuple[str, list[str]]]:
  """Yields what `write_queries` wrote."""
  with gzip.open(path, 'rt', encoding='utf-8') as file:
    for line in file:
      row = json.loads(line)
      yield row['_id'], row['queries']
