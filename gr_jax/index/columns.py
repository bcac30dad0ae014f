"""Values of documents, inverted: from a value to the documents that have it."""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from gr_jax.index.arrays import read_array
from gr_jax.index.texts import TextTable
from gr_jax.types import UserError

TEXT, INTEGER, FLOAT = 'text', 'integer', 'float'
_TYPES = {INTEGER: np.int64, FLOAT: np.float64}
# Of as many elements as there are.
_ANY = (None,)
# Bound of integer columns.
_LARGEST = 1 << 63


@dataclasses.dataclass(frozen=True)
class Inverted:
  """The values of one field, or of several of a kind behind each other.

  Attributes:
    kind: 'text', 'integer' or 'float'.
    values: distinct and rising, within a field; text by code point.
    offsets: [values + 1] int64 bounds of each value's documents.
    documents: int32, rising within a value.
  """

  kind: str
  values: Sequence[str] | np.ndarray
  offsets: np.ndarray
  documents: np.ndarray

  def __len__(self) -> int:
    """Values."""
    return len(self.values)

  @classmethod
  def build(
    cls,
    kind: str,
    values: Sequence[str | int | float],
    places: np.ndarray,
    documents: np.ndarray,
    count: int,
  ) -> 'Inverted':
    """Inverts one field; values that no document has are left out.

    Args:
      kind: what to keep the values as.
      values: in any order, may repeat.
      places: [pairs] int64, which value.
      documents: [pairs] int64, which document has it.
      count: N, documents.
    """
    if kind == TEXT:
      texts = [v if isinstance(v, str) else _number_text(v) for v in values]
      # Not np.unique: it drops zero bytes at the end of texts.
      distinct = sorted(set(texts))
      ranks_of = {text: rank for rank, text in enumerate(distinct)}
      ranks = np.array([ranks_of[text] for text in texts], np.int64)
    else:
      numbers = np.array(values, _TYPES[kind])
      distinct, ranks = np.unique(numbers, return_inverse=True)
    # One sort puts values and their documents in order.
    pairs = np.sort(ranks[places] * count + documents)
    new = np.diff(pairs, prepend=-1) > 0
    ranks, documents = np.divmod(pairs[new], max(count, 1))
    counts = np.bincount(ranks, minlength=len(distinct))
    used = counts > 0
    if kind == TEXT:
      distinct = list(itertools.compress(distinct, used))
    else:
      distinct = distinct[used]
    offsets = np.concatenate([[0], np.cumsum(counts[used])])
    return cls(kind, distinct, offsets, documents.astype(np.int32))

  @classmethod
  def stacked(cls, parts: Sequence['Inverted']) -> 'Inverted':
    """Puts fields of one kind behind each other."""
    kind = parts[0].kind
    if kind == TEXT:
      values = list(itertools.chain(*(part.values for part in parts)))
    else:
      values = np.concatenate([part.values for part in parts])
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    documents = np.concatenate([part.documents for part in parts])
    return cls(kind, values, offsets, documents)

  def part(self, start: int, stop: int) -> 'Inverted':
    """The values of some rows, in memory."""
    if self.kind == TEXT:
      values = [self.values[row] for row in range(start, stop)]
    else:
      values = self.values[start:stop]
    offsets = self.offsets[start : stop + 1]
    documents = self.documents[offsets[0] : offsets[-1]]
    return Inverted(self.kind, values, offsets - offsets[0], documents)

  def save(self, directory: pathlib.Path) -> None:
    """Writes files whose names begin with 'field_' and the kind."""
    prefix = f'field_{self.kind}'
    if self.kind == TEXT:
      texts = TextTable.of(self.values)
      texts.write(directory / f'{prefix}.txt')
      np.save(directory / f'{prefix}_bounds.npy', texts.offsets)
    else:
      np.save(directory / f'{prefix}.npy', self.values)
    np.save(directory / f'{prefix}_offsets.npy', self.offsets)
    np.save(directory / f'{prefix}_documents.npy', self.documents)

  @classmethod
  def load(cls, directory: pathlib.Path, kind: str) -> 'Inverted':
    """Opens what `save` wrote; it stays on disk until it is read.

    Raises:
      UserError: when a file cannot be read, or does not go with the others.
    """
    prefix = f'field_{kind}'
    if kind == TEXT:
      bounds = read_array(directory, f'{prefix}_bounds', [np.int64], _ANY)
      path = directory / f'{prefix}.txt'
      try:
        values = TextTable.open(path, bounds)
      except OSError as error:
        raise unreadable(path, error) from error
    else:
      values = read_array(directory, prefix, [_TYPES[kind]], _ANY)
    offsets = read_array(directory, f'{prefix}_offsets', [np.int64], _ANY)
    documents = read_array(directory, f'{prefix}_documents', [np.int32], _ANY)
    if (len(values) + 1, len(documents)) != (len(offsets), int(offsets[-1])):
      raise UserError(
        f'{directory} has {prefix} files that do not go together: build the'
        ' index again'
      )
    return cls(kind, values, offsets, documents)


def kind_of(types: set[type]) -> str:
  """The kind that holds values of all these types."""
  if str in types:
    return TEXT
  return FLOAT if float in types else INTEGER


def joint_kind(kinds: set[str]) -> str:
  """The kind that holds values of all these kinds."""
  return next(kind for kind in (TEXT, FLOAT, INTEGER) if kind in kinds)


def unreadable(path: pathlib.Path, error: Exception) -> UserError:
  """What to raise where a file of an index is damaged."""
  reason = str(error).partition('\n')[0]
  return UserError(f'{path} cannot be read ({reason}): build the index again')


def _number_text(value: int | float) -> str:
  """Equal numbers have one text, be they integers or floats."""
  if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST:
    return str(int(value))
  return str(value)
