"""The metadata of an index's documents by field, and what meets conditions.

A field is the range of its values among those of its kind: fields of a kind lie
behind each other in the same files, so that an index of a thousand fields opens
no more files than one of three.
"""

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from gr_jax.index.columns import Inverted, joint_kind, kind_of, unreadable
from gr_jax.index.filters import Condition, spans
from gr_jax.types import UserError, near_miss

_NAME = 'fields.json'
_SCALARS = (str, int, float, bool, type(None))
_BOOLEANS = {True: 'true', False: 'false'}
# Names of fields that an error lists.
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Column:
  """Where the values of a field stand.

  Attributes:
    kind: 'text', 'integer' or 'float'.
    start: the first of them among those of the kind.
    stop: behind the last one.
  """

  kind: str
  start: int
  stop: int


@dataclasses.dataclass(frozen=True)
class Fields:
  """The fields of documents; one is there when a document has a value of it.

  Attributes:
    documents: N, how many there are.
    columns: field to where its values stand.
    inverted: kind to the values of all its fields; only kinds that occur.
  """

  documents: int
  columns: Mapping[str, Column]
  inverted: Mapping[str, Inverted]

  def __len__(self) -> int:
    """N, documents."""
    return self.documents

  @classmethod
  def build(cls, metadata: Sequence[Mapping[str, object]]) -> 'Fields':
    """Makes the fields of documents in memory.

    A value is text, a number, true or false (kept as these words), or a list
    of them, of which a document then has all. Null is no value. The fields of
    an object within are named with dots: 'source.language'.

    A field is of numbers if all its values are, over all documents. Otherwise
    it is of text and the numbers among it are kept as they are written, whole
    ones without a point: '7', '2.5'. So one year 'unknown' makes years text,
    whose ranges go by code point. Where some numbers of a field have fractions
    all are kept in double precision.

    Args:
      metadata: one mapping a document.

    Raises:
      UserError: for any other value, naming the document's row and the field.
    """
    pairs: dict[str, tuple[list[str | int | float], list[int]]] = {}
    for document, name, value in _flat(metadata):
      if name not in pairs:
        pairs[name] = [], []
      values, documents = pairs[name]
      values.append(_checked(value, document, name))
      documents.append(document)
    columns = {}
    for name, (values, documents) in pairs.items():
      columns[name] = Inverted.build(
        kind_of(set(map(type, values))),
        values,
        np.arange(len(values)),
        np.array(documents),
        len(metadata),
      )
    return cls._of(columns, len(metadata))

  @classmethod
  def joined(cls, parts: Sequence[tuple['Fields', np.ndarray]]) -> 'Fields':
    """The fields of some documents of each part, numbered anew from 0.

    A field is of numbers if it is in all parts that have it. One of text stays
    so, even where no document with a text is among those that are taken.

    Args:
      parts: fields and the documents to take of them, int, in the order that
        they shall have, each at most once.
    """
    count = sum(len(rows) for _, rows in parts)
    found: dict[str, list[tuple[Inverted, np.ndarray]]] = {}
    start = 0
    for fields, rows in parts:
      numbers_N = np.full(len(fields), -1, np.int64)
      numbers_N[np.asarray(rows, np.int64)] = start + np.arange(len(rows))
      start += len(rows)
      for name, column in fields.columns.items():
        inverted = fields.inverted[column.kind]
        found.setdefault(name, []).append(
          (inverted.part(column.start, column.stop), numbers_N)
        )
    columns = {name: _joined(of, count) for name, of in found.items()}
    return cls._of(columns, count)

  @classmethod
  def _of(cls, inverted: Mapping[str, Inverted], documents: int) -> 'Fields':
    """Stacks the columns of each kind."""
    columns: dict[str, Column] = {}
    stacks: dict[str, list[Inverted]] = {}
    ends: dict[str, int] = {}
    for name, column in sorted(inverted.items()):
      if not len(column):
        continue
      start = ends.get(column.kind, 0)
      ends[column.kind] = start + len(column)
      columns[name] = Column(column.kind, start, ends[column.kind])
      stacks.setdefault(column.kind, []).append(column)
    stacked = {kind: Inverted.stacked(stack) for kind, stack in stacks.items()}
    return cls(documents, columns, stacked)

  def save(self, directory: pathlib.Path) -> None:
    """Writes the fields into a version's folder, beside what else it holds."""
    columns = {n: dataclasses.asdict(c) for n, c in self.columns.items()}
    facts = {'documents': self.documents, 'columns': columns}
    text = json.dumps(facts, indent=1) + '\n'
    (directory / _NAME).write_text(text, encoding='utf-8')
    for inverted in self.inverted.values():
      inverted.save(directory)

  @classmethod
  def load(cls, directory: pathlib.Path, documents: int) -> 'Fields':
    """Opens the fields of a version; values stay on disk until they are read.

    Args:
      directory: the version's folder; older formats have no fields.
      documents: how many documents the version has.

    Raises:
      UserError: when a file cannot be read, or is of other documents.
    """
    path = directory / _NAME
    if not path.exists():
      return cls(documents, {}, {})
    try:
      facts = json.loads(path.read_text(encoding='utf-8'))
      found = facts['documents']
      columns = {n: Column(**entry) for n, entry in facts['columns'].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise unreadable(path, error) from error
    if found != documents:
      raise UserError(
        f'{path} is of {found} documents, the index has {documents}: build the'
        ' index again'
      )
    kinds = sorted({column.kind for column in columns.values()})
    inverted = {kind: Inverted.load(directory, kind) for kind in kinds}
    return cls(documents, columns, inverted)

  def select(self, where: Mapping[str, Condition]) -> np.ndarray:
    """The documents that meet all conditions.

    Args:
      where: field to what at least one of a document's values must be: one
        value, any of several, or one of a range. For a field of numbers they
        may be given as text.

    Returns:
      [N] bool; all documents where there are no conditions.

    Raises:
      UserError: for a field that no document has, or a value of another kind
        than the field's.
    """
    selected_N = np.ones(self.documents, bool)
    for name, condition in where.items():
      if name not in self.columns:
        raise UserError(self._unknown(name))
      column = self.columns[name]
      inverted = self.inverted[column.kind]
      bounds = column.start, column.stop
      chosen_N = np.zeros(self.documents, bool)
      for start, stop in spans(
        name, column.kind, inverted.values, bounds, condition
      ):
        low, high = inverted.offsets[start], inverted.offsets[stop]
        chosen_N[inverted.documents[low:high]] = True
      selected_N &= chosen_N
    return selected_N

  def _unknown(self, name: str) -> str:
    names = list(self.columns)
    shown = ', '.join(map(repr, names[:_SHOWN])) or 'none'
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return (
      f'no document has a field {name!r}{near_miss(name, names)}; the fields'
      f' there are: {shown}{more}'
    )


def _joined(
  parts: Sequence[tuple[Inverted, np.ndarray]], count: int
) -> Inverted:
  """One field of several parts.

  Args:
    parts: the field, and the new number of each document, -1 for none.
    count: documents that there will be.
  """
  values, places, documents = [], [], []
  for inverted, numbers_N in parts:
    numbers = numbers_N[inverted.documents]
    rows = np.repeat(np.arange(len(inverted)), np.diff(inverted.offsets))
    places.append(len(values) + rows[numbers >= 0])
    documents.append(numbers[numbers >= 0])
    # Numbers as Python's own, which are written without the name of a type.
    column = inverted.values
    values += column.tolist() if isinstance(column, np.ndarray) else column
  return Inverted.build(
    joint_kind({inverted.kind for inverted, _ in parts}),
    values,
    np.concatenate(places),
    np.concatenate(documents),
    count,
  )


def usable(
  metadata: Iterable[Mapping[str, object]],
) -> tuple[list[dict[str, object]], list[str]]:
  """What of documents' metadata can be fields, and a line on each of the rest.

  Args:
    metadata: one mapping a document.
  """
  kept: list[dict[str, object]] = []
  left: collections.Counter[str] = collections.Counter()
  for mapping in metadata:
    kept.append({})
    for name, value in mapping.items():
      try:
        for _, part, each in _flat([{name: value}]):
          _checked(each, 0, part)
      except UserError:
        left[name] += 1
      else:
        kept[-1][name] = value
  lines = [
    f'{name!r} of {count:,} documents is nothing to filter by: expected text, '
    'a number, true, false, or a list or an object of these'
    for name, count in left.most_common()
  ]
  return kept, lines


def _flat(
  metadata: Sequence[Mapping[str, object]],
) -> Iterator[tuple[int, str, object]]:
  """Document, field and value of whatever is not null."""
  for document, mapping in enumerate(metadata):
    pending = list(mapping.items())
    while pending:
      name, value = pending.pop()
      if type(value) in _SCALARS:
        if value is not None:
          yield document, name, value
      elif isinstance(value, Mapping):
        pending += [(f'{name}.{key}', value[key]) for key in value]
      elif isinstance(value, (list, tuple)):
        yield from ((document, name, v) for v in value if v is not None)
      else:
        yield document, name, value


def _checked(value: object, document: int, name: str) -> str | int | float:
  """A value as it is kept."""
  kind = type(value)
  if kind is bool:
    return _BOOLEANS[value]
  if kind is str:
    if value.isascii() or _is_unicode(value):
      return value
    reason = f'{value!r} has half a character: correct the text'
  elif kind is int:
    if -(1 << 63) <= value < 1 << 63:
      return value
    reason = 'an integer has more than 64 bits: give it as text'
  elif kind is float:
    if math.isfinite(value):
      return value
    reason = f'{value} is no finite number: give null'
  else:
    reason = (
      'expected text, a number, true, false, or a list or an object of these,'
      f' got {kind.__name__}'
    )
  raise UserError(
    f'field {name!r} of document {document} (the first is 0): {reason}'
  )


def _is_unicode(text: str) -> bool:
  """Whether it has no lone surrogates, which JSON can write and UTF-8 not."""
  try:
    text.encode('utf-8')
  except UnicodeEncodeError:
    return False
  return True
