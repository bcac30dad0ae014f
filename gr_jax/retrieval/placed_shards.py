"""An index on the devices of a mesh, each with its part of the documents."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gr_jax.decoding.sharded import (
  PARTS,
  QUERIES,
  Shards,
  bounds,
  on_devices,
  room_of_all,
)
from gr_jax.decoding.trie import Room, Trie, TrieTables, build_trie, capacity
from gr_jax.decoding.visibility import Selected, bits_of
from gr_jax.index.index import Index
from gr_jax.index.snapshot import Snapshot
from gr_jax.retrieval.placed import Placed, enough, placed_vectors


@dataclasses.dataclass(frozen=True)
class _SelectedShards:
  """What one selection leaves of the trie of each part."""

  bounds: Sequence[tuple[int, int]]
  shards: tuple[Selected, ...]

  def changed(self, documents: np.ndarray, seen: bool) -> '_SelectedShards':
    """The same with documents that come into view, or go out of it."""
    shards = []
    for (first, behind), shard in zip(self.bounds, self.shards, strict=True):
      mine = documents[(documents >= first) & (documents < behind)]
      shards.append(shard.changed(mine - first, seen) if len(mine) else shard)
    return _SelectedShards(self.bounds, tuple(shards))


@dataclasses.dataclass(frozen=True)
class _Shards:
  """Some documents: on the host, and cut over the devices.

  Attributes:
    index: the documents.
    bounds: of the parts, numbers in the snapshot.
    tries: of each part.
    room: of the tables of each.
    rows: documents that all parts have room for.
    tables: with an axis of the parts in front.
    firsts: number of each part's document 0.
    vectors_ND: with an axis of the parts in front as well.
  """

  mesh: Mesh
  index: Index
  bounds: Sequence[tuple[int, int]]
  tries: Sequence[Trie]
  room: Room
  rows: int
  tables: TrieTables
  firsts: jax.Array
  vectors_ND: jax.Array

  @classmethod
  def of(
    cls,
    mesh: Mesh,
    index: Index,
    first: int,
    tries: Sequence[Trie],
    room: Room,
    rows: int,
    all_rows: int,
  ) -> '_Shards':
    """Brings documents to the devices, with room for `rows` on each."""
    cuts = bounds(len(index), len(tries))

    def held(part):
      begin, end = cuts[part]
      return (
        tries[part].tables(room),
        jnp.int32(first + begin),
        placed_vectors(index.vectors_ND[begin:end], rows),
      )

    places = [(first + begin, first + end) for begin, end in cuts]
    arrays = on_devices(mesh, held)
    return cls(mesh, index, places, tries, room, all_rows, *arrays)

  def selected(self, documents_N: np.ndarray) -> _SelectedShards:
    """Selects documents of the snapshot."""
    shapes = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype),
      self.tables,
    )
    shards = [
      Selected.of(trie, shapes, documents_N[first:behind])
      for trie, (first, behind) in zip(self.tries, self.bounds, strict=True)
    ]
    return _SelectedShards(self.bounds, tuple(shards))

  def bits(
    self, selections: Sequence[_SelectedShards]
  ) -> tuple[jax.Array, ...]:
    """Selections on the devices, with an axis of the parts in front."""
    return on_devices(
      self.mesh,
      lambda part: bits_of([each.shards[part] for each in selections]),
    )

  def chosen(self, chosen_B: np.ndarray) -> jax.Array:
    """The selection of each query on the devices, with an axis in front."""
    along_queries = NamedSharding(self.mesh, PartitionSpec(None, QUERIES))
    return jax.device_put(chosen_B[None], along_queries)


class PlacedShards(Placed):
  """A snapshot on the devices of a mesh.

  The documents that were there, and those that came, are cut into parts that
  follow each other, one for each device along 'model'.
  """

  def __init__(
    self,
    mesh: Mesh,
    snapshot: Snapshot,
    spare: int = 0,
    before: 'PlacedShards | None' = None,
  ):
    """Brings documents to the devices; arguments as of Placed."""
    self._mesh = mesh
    super().__init__(snapshot, spare, before)

  @property
  def tables(self) -> Shards:
    """The tries of each device."""
    return Shards(
      tuple(part.tables for part in self._parts),
      tuple(part.firsts for part in self._parts),
    )

  def _built_base(self, before):
    index = self.snapshot.base
    tries = self._tries(index)
    room = room_of_all([trie.room for trie in tries])
    if not self.changing:
      rows = capacity(max(map(len, tries)))
      return self._shards(index, 0, tries, room, rows, capacity(len(index)))
    room = enough(room, before and before._base.room)
    return self._shards(index, 0, tries, room, room.rows)

  def _built_added(self, before):
    index, first = self.snapshot.added, len(self.snapshot.base)
    tries, sizes = self._tries(index), index.trie.code_sizes
    if before is not None and before.changing:
      room = before._parts[1].room
    else:
      room = Room.of_any(-(-self._spare // len(tries)), sizes)
    if not room.holds(room_of_all([trie.room for trie in tries])):
      room = Room.of_any(2 * max(map(len, tries)), sizes)
    return self._shards(index, first, tries, room, room.rows)

  def _shards(self, index, first, tries, room, rows, all_rows=None):
    all_rows = rows * len(tries) if all_rows is None else all_rows
    return _Shards.of(self._mesh, index, first, tries, room, rows, all_rows)

  def _tries(self, index):
    """Of each part's documents."""
    parts = self._mesh.shape[PARTS]
    if parts == 1:
      return [index.trie]
    return [
      build_trie(index.codes_NL[begin:end], index.trie.code_sizes)
      for begin, end in bounds(len(index), parts)
    ]
