"""Rows made shard by shard, by one process or by several together.

  DIRECTORY/
    inputs.txt          what the shards are of
    00000.npy           the first ROWS rows, for instance vectors of texts
    00000.done.json     written last: checksum of the shard

A shard without its mark was interrupted and is made anew, the others stay.
What shards there are does not depend on how many processes share them, and
nothing in a vector depends on which texts it was encoded with.
"""

import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence

import jax
import numpy as np

from gr_jax import processes
from gr_jax.checksums import file_sha256
from gr_jax.progress import Pace
from gr_jax.retrieval.encoding import encode_rows, show_part

_INPUTS = 'inputs.txt'
# Texts of a shard: a quarter of a minute for a small encoder on two cores, and
# on an accelerator enough that its last batches, half empty, cost little.
_ROWS = {'cpu': 2048}
_ROWS_ACCELERATOR = 32768


# Told how many rows of a part are done, and their share of its work.
Show = Callable[[int, float], None]


def make_shards(
  directory: pathlib.Path,
  make: Callable[[np.ndarray, Show], np.ndarray],
  count: int,
  inputs: str,
  rows: int | None = None,
  unit: str = 'text',
) -> list[pathlib.Path]:
  """Makes rows in shards; those that are there already stay.

  Several processes call it together, with one folder that all can read.

  Args:
    directory: for the shards; emptied when they are of other inputs.
    make: numbers of rows that follow each other -> an array of as many; told
      where to show how far it is.
    count: N, rows.
    inputs: what the rows depend on, as a checksum.
    rows: of a shard, chosen by the kind of device when None.
    unit: what a row is, in the singular.

  Returns:
    The files of the shards in order, all of them whole.
  """
  rows = rows or _ROWS.get(jax.default_backend(), _ROWS_ACCELERATOR)
  starts = range(0, count, rows)
  paths = [directory / f'{number:05d}.npy' for number in range(len(starts))]
  missing = processes.first(
    lambda: _missing(directory, paths, f'{inputs} {count} {rows}')
  )
  mine = missing[processes.index() :: processes.count()]
  total = sum(min(rows, count - starts[number]) for number in mine)
  done = 0
  with Pace(total, unit) as pace, processes.local_devices():
    for number in mine:
      places = np.arange(starts[number], min(starts[number] + rows, count))
      show = functools.partial(show_part, pace, done, len(places), total)
      _save(paths[number], make(places, show))
      done += len(places)
  processes.meet()
  return paths


def encode_shards(
  directory: pathlib.Path,
  encode: Callable[[jax.Array], jax.Array],
  read_tokens: Callable[[Sequence[int]], Sequence[np.ndarray]],
  count: int,
  longest: int,
  inputs: str,
  rows: int | None = None,
) -> list[pathlib.Path]:
  """Encodes texts into shards, as `make_shards` makes them.

  Args:
    directory: for the shards; emptied when they are of other inputs.
    encode: [B, S] token ids (0 pads) -> [B, D] vectors; jitted.
    read_tokens: row numbers -> token ids of each.
    count: N, texts.
    longest: tokens of the longest text.
    inputs: what the vectors depend on, as a checksum.
    rows: texts of a shard, chosen by the kind of device when None.

  Returns:
    The files of the shards in order, all of them whole.
  """

  def make(places, show):
    return encode_rows(encode, read_tokens(places), longest, show)

  return make_shards(directory, make, count, inputs, rows)


def columns(**arrays: np.ndarray) -> np.ndarray:
  """Several arrays as one, which a shard can hold.

  Args:
    arrays: [N, ...] each, by the name of their column.

  Returns:
    [N] records; `found['name']` is the array of a name again.
  """
  count = len(next(iter(arrays.values())))
  kinds = [(name, x.dtype, x.shape[1:]) for name, x in arrays.items()]
  records = np.empty(count, kinds)
  for name, array in arrays.items():
    records[name] = array
  return records


def joined(paths: Sequence[pathlib.Path]) -> np.ndarray:
  """[N, ...] the rows of all shards."""
  # Mapped, so that they are not in memory twice.
  parts = [np.load(path, 'r', allow_pickle=False) for path in paths]
  return np.concatenate([np.asarray(part) for part in parts])


def join(
  paths: Sequence[pathlib.Path],
  count: int,
  output: pathlib.Path,
  describe: Callable[[pathlib.Path], None] = lambda whole: None,
):
  """Writes a file of all N rows, which appears whole; needs little memory.

  Args:
    paths: of the shards in order, from `make_shards`.
    count: N.
    output: the file; the folder of the shards goes.
    describe: called with the whole file before it has its name.
  """
  partial = output.with_suffix('.partial.npy')
  table, start = None, 0
  for path in paths:
    rows = np.load(path, allow_pickle=False)
    if table is None:
      table = np.lib.format.open_memmap(
        partial, 'w+', rows.dtype, (count, *rows.shape[1:])
      )
    table[start : start + len(rows)] = rows
    start += len(rows)
  table.flush()
  describe(partial)
  os.replace(partial, output)
  shutil.rmtree(paths[0].parent)


def _missing(
  directory: pathlib.Path, paths: Sequence[pathlib.Path], inputs: str
) -> list[int]:
  """The numbers of the shards that are to be made."""
  file = directory / _INPUTS
  if not file.is_file() or file.read_text() != inputs:
    if directory.exists():
      shutil.rmtree(directory)
    directory.mkdir(parents=True)
    write_whole(file, inputs)
  return [number for number, path in enumerate(paths) if not is_done(path)]


def _mark(path: pathlib.Path) -> pathlib.Path:
  return path.with_suffix('.done.json')


def is_done(path: pathlib.Path) -> bool:
  """Whether a shard is as it was written."""
  mark = _mark(path)
  if not mark.is_file() or not path.is_file():
    return False
  return mark.read_text() == _mark_text(path)


def _mark_text(path: pathlib.Path) -> str:
  return json.dumps({'sha256': file_sha256(path)})


def _save(path: pathlib.Path, rows: np.ndarray) -> None:
  with path.open('wb') as file:
    np.save(file, rows)
    file.flush()
    os.fsync(file.fileno())
  mark_done(path)


def mark_done(path: pathlib.Path) -> None:
  """Says of a shard that it is whole, and what it is."""
  write_whole(_mark(path), _mark_text(path))


def write_whole(path: pathlib.Path, text: str) -> None:
  """Writes a small file that appears whole."""
  partial = path.with_name(f'{path.name}.partial')
  partial.write_text(text)
  os.replace(partial, path)
