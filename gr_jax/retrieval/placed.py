"""An index on the device, as it is at one moment.

An index that changes is searched by one program whatever happens to it: the
tables of the documents that were there and of those that came have room for
more, and what is hidden or gone is masked. A static one has one table, without
masks.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.decoding.trie import Room, Trie, TrieTables, capacity
from gr_jax.decoding.visibility import Selected, Visible, bits_of
from gr_jax.index.filters import Condition
from gr_jax.index.index import Index
from gr_jax.index.snapshot import Snapshot

# Tables of documents that change have room for so many more.
_SPARE = 0.25
# Rows of vectors that are brought to the device at once.
_ROWS = 1 << 16
# Selections whose bits are kept.
_KEPT = 64


class Selection(Protocol):
  """Documents that are searched alone."""

  def chosen_N(self, snapshot: Snapshot) -> np.ndarray:
    """bool, which documents of a snapshot are meant."""
    ...


@dataclasses.dataclass(frozen=True)
class _Part:
  """Some documents: on the host, and on the device."""

  index: Index
  trie: Trie
  room: Room
  tables: TrieTables
  vectors_ND: jax.Array

  @classmethod
  def of(cls, index: Index, trie: Trie, room: Room, rows: int) -> '_Part':
    """Brings documents to the device, with room for `rows`."""
    vectors_ND = placed_vectors(index.vectors_ND, rows)
    return cls(index, trie, room, trie.tables(room), vectors_ND)

  @property
  def rows(self) -> int:
    """Documents that there is room for."""
    return self.vectors_ND.shape[0]

  def selected(self, documents_N: np.ndarray) -> Selected:
    """Selects documents of the snapshot."""
    return Selected.of(self.trie, self.tables, documents_N)

  def bits(self, selections: Sequence[Selected]) -> tuple[jax.Array, ...]:
    """Selections on the device, the arrays of Visible behind the first."""
    return tuple(map(jax.device_put, bits_of(selections)))

  def chosen(self, chosen_B: np.ndarray) -> jax.Array:
    """The selection of each query on the device, the first of Visible's."""
    return jax.device_put(chosen_B)


class Placed:
  """A snapshot on the device.

  Attributes:
    snapshot: the documents.
    changing: whether there is room for changes.
    rows: documents that the tables have room for.
  """

  def __init__(
    self, snapshot: Snapshot, spare: int = 0, before: 'Placed | None' = None
  ):
    """Brings documents to the device.

    Args:
      snapshot: the documents.
      spare: documents that may come and keep the shapes of the tables.
      before: what is on the device already; its shapes are kept where they
        are enough, its tables where they are of the same documents.
    """
    changed = len(snapshot.added) > 0 or bool(snapshot.states_N.any())
    self.snapshot = snapshot
    self.changing = bool(
      spare > 0 or changed or (before is not None and before.changing)
    )
    self._spare = max(spare, before._spare if before else 0)
    self._base = self._placed_base(before)
    self._parts = (self._base,)
    if self.changing:
      self._parts += (self._placed_added(before),)
    self.rows = sum(part.rows for part in self._parts)
    self._shown = self._selected_shown(before) if self.changing else ()
    self._selected: dict[Selection | None, tuple[Selected, ...]] = {}
    self._stacked: dict[tuple[Selection | None, ...], list[Any]] = {}

  @property
  def tables(self) -> tuple[TrieTables, ...]:
    """The trie of the documents that were there, and of those that came."""
    return tuple(part.tables for part in self._parts)

  @property
  def vectors(self) -> tuple[jax.Array, ...]:
    """[N, D] of the same, padded."""
    return tuple(part.vectors_ND for part in self._parts)

  @property
  def shapes(self) -> tuple[tuple[int, ...], ...]:
    """Of all tables: what a compiled program depends on."""
    leaves = jax.tree.leaves((self.tables, self.vectors))
    return tuple(leaf.shape for leaf in leaves)

  def visible(
    self, among: Sequence[Selection | None]
  ) -> tuple[Visible | None, ...]:
    """What each query of a batch may find, in each of `tables`.

    Args:
      among: of each query; all documents that are shown when None.
    """
    if not self.changing and not any(among):
      return (None,) * len(self._parts)
    distinct = tuple(dict.fromkeys(among))
    chosen_B = np.array([distinct.index(each) for each in among], np.int32)
    bits = _kept(self._stacked, distinct, self._bits_of_several)
    return tuple(
      Visible(part.chosen(chosen_B), *each)
      for part, each in zip(self._parts, bits, strict=True)
    )

  def _bits_of_several(self, distinct):
    """The bits of several selections in each part, on the device."""
    # In steps, as a program is compiled for a number of selections.
    missing = (1 << (len(distinct) - 1).bit_length()) - len(distinct)
    selected = [
      self._shown
      if each is None and self.changing
      else _kept(self._selected, each, self._bits_of)
      for each in distinct
    ]
    selected += selected[:1] * missing
    each_part = zip(self._parts, zip(*selected, strict=True), strict=True)
    return [part.bits(bits) for part, bits in each_part]

  def _bits_of(self, selection):
    """The bits of a selection in each part."""
    shown_N = self.snapshot.shown_N
    if selection is not None:
      shown_N = shown_N & selection.chosen_N(self.snapshot)
    return tuple(part.selected(shown_N) for part in self._parts)

  def _placed_base(self, before):
    index = self.snapshot.base
    if before is not None and before._base.index is index:
      return before._base
    return self._built_base(before)

  def _built_base(self, before):
    index = self.snapshot.base
    room = index.trie.room
    if self.changing:
      room = enough(room, before and before._base.room)
    rows = room.rows if self.changing else capacity(len(index))
    return _Part.of(index, index.trie, room, rows)

  def _placed_added(self, before):
    index, first = self.snapshot.added, len(self.snapshot.base)
    there = before is not None and before.changing
    if (
      there
      and before._parts[1].index is index
      and len(before.snapshot.base) == first
    ):
      return before._parts[1]
    return self._built_added(before)

  def _built_added(self, before):
    index, first = self.snapshot.added, len(self.snapshot.base)
    there = before is not None and before.changing
    documents = index.trie.documents + np.int32(first)
    trie = dataclasses.replace(index.trie, documents=documents)
    sizes = trie.code_sizes
    room = before._parts[1].room if there else Room.of_any(self._spare, sizes)
    if not room.holds(trie.room):
      room = Room.of_any(2 * len(index), sizes)
    return _Part.of(index, trie, room, room.rows)

  def _selected_shown(self, before):
    """The bits of all documents that are shown."""
    base, added = self._parts
    shown_N = self.snapshot.shown_N
    came = added.selected(shown_N)
    if before is None or not before._shown or before._base is not base:
      return base.selected(shown_N), came
    there = before._shown[0]
    now_N = shown_N[: len(base.index)]
    was_N = before.snapshot.shown_N[: len(base.index)]
    for seen in (True, False):
      turned = np.flatnonzero((now_N != was_N) & (now_N == seen))
      if len(turned):
        there = there.changed(turned, seen)
    return there, came


def _kept(values, key, make):
  """The value of a key, made and remembered where it is not there."""
  value = values.get(key)
  if value is None:
    value = make(key)
    # Threads may make one twice, but none finds it gone.
    for old in list(values)[: max(len(values) + 1 - _KEPT, 0)]:
      values.pop(old, None)
    values[key] = value
  return value


def enough(needed: Room, before: Room | None) -> Room:
  """Room as before where that is enough, else with some to spare."""
  if before is not None and before.holds(needed):
    return before
  return needed.grown(_SPARE)


def placed_vectors(vectors_ND: np.ndarray, rows: int) -> jax.Array:
  """Vectors on the device with zeros behind them.

  Many are brought a piece at a time: they are there once, and not in a padded
  copy besides. Pieces are of one size, as each size is compiled.
  """
  count, width = vectors_ND.shape
  if count <= _ROWS:
    padded = np.zeros((rows, width), vectors_ND.dtype)
    padded[:count] = vectors_ND
    return jax.device_put(padded)
  table = jnp.zeros((rows, width), vectors_ND.dtype)
  for row in range(0, count, _ROWS):
    row = min(row, count - _ROWS)
    piece = jax.device_put(np.asarray(vectors_ND[row : row + _ROWS]))
    table = _with_rows(table, piece, jnp.int32(row))
  return table


@functools.partial(jax.jit, donate_argnums=0)
def _with_rows(table, piece, row):
  return jax.lax.dynamic_update_slice(table, piece, (row, jnp.int32(0)))


@dataclasses.dataclass(frozen=True, eq=False)
class ById:
  """Documents that are named.

  Attributes:
    document_ids: their ids.
  """

  document_ids: Sequence[str]

  def chosen_N(self, snapshot: Snapshot) -> np.ndarray:
    """bool, which documents of a snapshot are meant."""
    chosen_N = np.zeros(len(snapshot.states_N), bool)
    rows = snapshot.rows_of(self.document_ids)
    chosen_N[rows[rows >= 0]] = True
    return chosen_N


@dataclasses.dataclass(frozen=True, eq=False)
class ByField:
  """Documents whose metadata meets conditions.

  Attributes:
    where: field to condition, as `Fields.select` has them.
  """

  where: Mapping[str, Condition]

  def chosen_N(self, snapshot: Snapshot) -> np.ndarray:
    """bool, which documents of a snapshot are meant."""
    return snapshot.select(self.where)


@dataclasses.dataclass(frozen=True, eq=False)
class Both:
  """Documents that several selections have in common.

  Attributes:
    selections: one or more.
  """

  selections: Sequence[Selection]

  def chosen_N(self, snapshot: Snapshot) -> np.ndarray:
    """bool, which documents of a snapshot are meant."""
    return np.all([each.chosen_N(snapshot) for each in self.selections], axis=0)
