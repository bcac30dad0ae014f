"""Arrays of a saved version, refused unless they have the form they should.

Large files are not hashed at every load: a damaged header must not pass for an
array of another form. What the elements are is only known to a full check.
"""

import pathlib
import tokenize
from collections.abc import Sequence

import numpy as np

from gr_jax.decoding.trie import SCANNED_ROWS, Trie
from gr_jax.types import UserError

CODES = (np.uint8, np.uint16, np.uint32)
VECTORS = (np.float16, np.float32)
# What numpy raises for bytes that are no array.
_DAMAGE = (ValueError, OSError, EOFError, SyntaxError, tokenize.TokenError)
_DAMAGE += (TypeError, OverflowError)


def read_array(
  directory: pathlib.Path,
  name: str,
  types: Sequence[type],
  shape: Sequence[int | None],
) -> np.ndarray:
  """An array of a version, memory-mapped, never unpickled.

  Args:
    directory: the version.
    name: of the file, without its ending.
    types: those that it may have.
    shape: what it must have; None for any length.
  """
  path = directory / f'{name}.npy'
  try:
    array = np.lib.format.open_memmap(path, mode='r')
  except _DAMAGE as error:
    reason = str(error).partition('\n')[0]
    raise UserError(
      f'{path} cannot be read ({reason}): build the index again'
    ) from error
  fits = array.dtype in types and array.ndim == len(shape)
  pairs = zip(shape, array.shape, strict=False)
  if not fits or any(wanted not in (None, size) for wanted, size in pairs):
    names = ' or '.join(each.__name__ for each in types)
    wanted = str(tuple(shape)).replace('None', 'any')
    raise UserError(
      f'{path} should be {names} {wanted}, it is {array.dtype} {array.shape}:'
      ' build the index again'
    )
  return array


def read_trie(
  directory: pathlib.Path, code_sizes: Sequence[int], documents: int
) -> Trie:
  """The trie of a version, as it was built.

  Args:
    directory: the version.
    code_sizes: number of codes of each position.
    documents: N.
  """
  length = len(code_sizes)

  def read(name, types, *shape):
    return read_array(directory, f'trie_{name}', types, shape)

  bitmap_rows = read('bitmap_rows', [np.int32], None)
  child_codes = read('child_codes', CODES, None)
  slots = documents // SCANNED_ROWS + 1
  return Trie(
    code_sizes=tuple(code_sizes),
    columns=read('columns', CODES, length, documents),
    documents=read('documents', [np.int32], documents),
    wide_nodes=read('wide_nodes', [np.int32], length, slots),
    child_offsets=read('child_offsets', [np.int32], len(bitmap_rows) + 1),
    child_codes=child_codes,
    child_starts=read('child_starts', [np.int32], len(child_codes)),
    bitmap_rows=bitmap_rows,
    bitmaps=read('bitmaps', [np.uint32], None, None),
  )
