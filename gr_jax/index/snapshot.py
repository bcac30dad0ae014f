"""An index with the changes since it was built: never changed itself.

Documents that came stand behind those that were there, in the order in which
they came; documents that went keep their places until the index is folded,
which is to be built again of what is left.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from gr_jax.index.changes import Change, Delete, Hide, Insert, Show
from gr_jax.index.fields import Fields
from gr_jax.index.filters import Condition
from gr_jax.index.index import Index
from gr_jax.types import NO_DOC, UserError

# States of a document.
SHOWN, HIDDEN, DELETED = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """The documents of an index at one moment.

  Attributes:
    base: the index that was built.
    added: the documents that came since, without their fields; its document 0
      is document `len(base)` here.
    fields: of the same documents, in pieces as they came.
    states_N: uint8 state of each document, SHOWN, HIDDEN or DELETED.
    numbers: of the documents that came and are there, by their ids.
  """

  base: Index
  added: Index
  fields: tuple[Fields, ...]
  states_N: np.ndarray
  numbers: Mapping[str, int]

  @classmethod
  def of(cls, index: Index) -> 'Snapshot':
    """An index without changes."""
    return cls(
      index,
      Index.joined([(index, np.zeros(0, np.int64))]),
      (),
      np.where(index.hidden_N, np.uint8(HIDDEN), np.uint8(SHOWN)),
      {},
    )

  @functools.cached_property
  def count(self) -> int:
    """Documents that a search may find."""
    return int(np.count_nonzero(self.states_N == SHOWN))

  @functools.cached_property
  def there(self) -> int:
    """Documents that were not deleted, shown or hidden."""
    return int(np.count_nonzero(self.states_N != DELETED))

  @functools.cached_property
  def gone(self) -> int:
    """Documents that were there and were deleted."""
    states_N = self.states_N[: len(self.base)]
    return int(np.count_nonzero(states_N == DELETED))

  def rows_of(self, document_ids: Sequence[str]) -> np.ndarray:
    """[ids] number of each document, NO_DOC where it is not there."""
    came = np.array([self.numbers.get(name, NO_DOC) for name in document_ids])
    rows = came.astype(np.int64)
    missing = np.flatnonzero(rows == NO_DOC)
    found = self.base.rows_of([document_ids[place] for place in missing])
    there = found != NO_DOC
    there[there] = self.states_N[found[there]] != DELETED
    rows[missing] = np.where(there, found, NO_DOC)
    return rows

  def select(self, where: Mapping[str, Condition]) -> np.ndarray:
    """bool, the documents that meet all conditions, whatever their state.

    Args:
      where: field to condition, as `Fields.select` has them.
    """
    parts = self.base.fields, *self.fields
    kinds = [
      {part.columns[name].kind for part in parts if name in part.columns}
      for name in where
    ]
    if any(len(each) != 1 for each in kinds):
      # None has the field, or they have it of several kinds.
      return _joined_fields(parts).select(where)
    chosen = []
    for part in parts:
      missing = any(name not in part.columns for name in where)
      none_N = np.zeros(len(part), bool)
      chosen.append(none_N if missing else part.select(where))
    return np.concatenate(chosen)

  def document_id(self, number: int) -> str:
    """The id of a document."""
    index, row = self._place(number)
    return index.document_ids[row]

  def shown(self, number: int) -> tuple[str, str, str, tuple[int, ...]]:
    """Id, title, snippet and identifier of a document."""
    index, row = self._place(number)
    return (
      index.document_ids[row],
      index.titles[row],
      index.snippets[row],
      tuple(index.codes_NL[row].tolist()),
    )

  def document_ids_there(self) -> list[str]:
    """The ids of the documents that were not deleted, shown or hidden."""
    numbers = np.flatnonzero(self.states_N != DELETED)
    return [self.document_id(number) for number in numbers.tolist()]

  def _place(self, number):
    behind = number - len(self.base)
    return (self.base, number) if behind < 0 else (self.added, behind)

  def apply(self, change: Change) -> 'Snapshot':
    """The documents after a change.

    Args:
      change: what happens.

    Raises:
      UserError: when it names documents that are not there, or inserts ones
        that are.
    """
    if isinstance(change, Insert):
      return self._inserted(change)
    rows = self._there(change.document_ids)
    if isinstance(change, Delete):
      return self._without(rows)
    states_N = self.states_N.copy()
    states_N[rows] = {Hide: HIDDEN, Show: SHOWN}[type(change)]
    return dataclasses.replace(self, states_N=states_N)

  def folded(self) -> Index:
    """The index built again of the documents that are there."""
    if not len(self.added) and not self.gone:
      return dataclasses.replace(self.base, hidden_N=self.states_N == HIDDEN)
    return self._taken(self.states_N != DELETED)

  def visible(self) -> Index:
    """The index of the documents that a search may find."""
    if not self.states_N.any():
      return self.folded()
    return self._taken(self.states_N == SHOWN)

  def _taken(self, kept_N):
    there, came = np.split(kept_N, [len(self.base)])
    rows = np.flatnonzero(there), np.flatnonzero(came)
    parts, first = [(self.base.fields, rows[0])], 0
    for part in self.fields:
      kept = came[first : first + len(part)]
      parts.append((part, np.flatnonzero(kept)))
      first += len(part)
    taken = Index.joined(
      [(self.base, rows[0]), (self.added, rows[1])], Fields.joined(parts)
    )
    return dataclasses.replace(taken, hidden_N=self.states_N[kept_N] == HIDDEN)

  def check_new(
    self, document_ids: Sequence[str], replaces: bool
  ) -> np.ndarray:
    """Refuses documents that cannot be inserted.

    Args:
      document_ids: of what comes.
      replaces: whether documents of these ids go.

    Returns:
      [ids that are there] their numbers.
    """
    if len(set(document_ids)) < len(document_ids):
      raise UserError('a document should be inserted once, got an id twice')
    rows = self.rows_of(document_ids)
    there = np.flatnonzero(rows != NO_DOC)
    if len(there) and not replaces:
      others = f' and {len(there) - 1:,} more' if len(there) > 1 else ''
      raise UserError(
        'the index should get new documents, it holds '
        f'{document_ids[there[0]]!r}{others} already: leave them out, or '
        'replace them'
      )
    return rows[there]

  def _inserted(self, insert):
    before = self._without(self.check_new(insert.document_ids, insert.replaces))
    came = Index.build(
      insert.codes_NL,
      self.base.trie.code_sizes,
      np.asarray(insert.vectors_ND).astype(self.base.vectors_ND.dtype),
      insert.document_ids,
      insert.titles,
      insert.snippets,
      new=True,
    )
    pieces = [*before.fields, Fields.build(insert.metadata)]
    # As large as the one before: each document is joined a few times at most.
    while len(pieces) > 1 and len(pieces[-2]) <= 2 * len(pieces[-1]):
      pieces[-2:] = [_joined_fields(pieces[-2:])]
    both = [(index, np.arange(len(index))) for index in (self.added, came)]
    first = len(self.states_N)
    numbers = range(first, first + len(came))
    return dataclasses.replace(
      before,
      added=Index.joined(both),
      fields=tuple(pieces),
      states_N=np.append(before.states_N, np.full(len(came), SHOWN, np.uint8)),
      numbers={
        **before.numbers,
        **dict(zip(insert.document_ids, numbers, strict=True)),
      },
    )

  def _without(self, rows):
    if not len(rows):
      return self
    states_N = self.states_N.copy()
    states_N[rows] = DELETED
    gone = {
      self.document_id(row) for row in rows.tolist() if row >= len(self.base)
    }
    numbers = {k: v for k, v in self.numbers.items() if k not in gone}
    return dataclasses.replace(self, states_N=states_N, numbers=numbers)

  def _there(self, document_ids):
    rows = self.rows_of(document_ids)
    missing = np.flatnonzero(rows == NO_DOC)
    if len(missing):
      raise UserError(
        f'{len(missing)} of {len(rows)} documents are not in the index, as '
        f'{document_ids[missing[0]]!r}'
      )
    return np.unique(rows)

  @functools.cached_property
  def shown_N(self) -> np.ndarray:
    """bool, which documents a search may find."""
    return self.states_N == SHOWN


def _joined_fields(parts: Sequence[Fields]) -> Fields:
  """The fields of all documents of some parts."""
  return Fields.joined([(part, np.arange(len(part))) for part in parts])
