"""Tries of parts of a corpus, each on devices of its own, searched as one.

Along the mesh axis 'model' every device holds the tries of some documents that
follow each other. At every position it finds the best W continuations in these
alone; all are gathered, and the best W of them stay. What is among the best W
of all is among the best W of every device that has it, so nothing is lost. The
beams are then the same on all devices, and each knows its own nodes of them.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gr_jax.decoding.continuations import Nodes
from gr_jax.decoding.top_k import FLOOR, rows
from gr_jax.decoding.trie import Room, TrieTables
from gr_jax.decoding.union import Extended, as_before

# Mesh axis along which the documents are cut, and that of the queries.
PARTS = 'model'
QUERIES = 'data'


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shards:
  """Tries cut into parts; all leaves have an axis of the parts in front.

  Attributes:
    tries: one, or several that are searched as one; documents are numbered
      from 0 in each part.
    firsts: int32, number of each part's document 0, one array a trie.
  """

  tries: tuple[TrieTables, ...]
  firsts: tuple[jax.Array, ...]


def bounds(documents: int, parts: int) -> list[tuple[int, int]]:
  """First document of each part, and the one behind its last."""
  ends = [documents * part // parts for part in range(parts + 1)]
  return list(itertools.pairwise(ends))


def room_of_all(rooms: list[Room]) -> Room:
  """The smallest room that holds tables of all."""
  sizes = np.array([dataclasses.astuple(room) for room in rooms])
  return Room(*sizes.max(axis=0).tolist())


def on_devices(mesh: Mesh, held: Callable[[int], Any]) -> Any:
  """Arrays with an axis of the parts in front, each part where it belongs.

  No device sees more than its own part, and the host makes one at a time.

  Args:
    mesh: has the axis PARTS; what lies along others is copied.
    held: number of a part -> its arrays, of the same shapes for all, numpy's
      or jax's; the default device is then one that holds the part.
  """
  parts = mesh.shape[PARTS]
  sharding = NamedSharding(mesh, PartitionSpec(PARTS))
  holders: dict[int, list[jax.Device]] = {part: [] for part in range(parts)}
  places = sharding.addressable_devices_indices_map((parts,))
  for device, (place,) in places.items():
    holders[place.indices(parts)[0]].append(device)
  on = {}
  for part, devices in holders.items():
    with jax.default_device(devices[0]):
      arrays = jax.tree.map(lambda leaf: leaf[None], held(part))
    on |= {device: jax.device_put(arrays, device) for device in devices}

  def joined(*leaves):
    shape = parts, *leaves[0].shape[1:]
    return jax.make_array_from_single_device_arrays(shape, sharding, leaves)

  return jax.tree.map(joined, *(on[device] for device in places))


def own(stacked: Any) -> Any:
  """What this device holds of arrays with an axis of the parts in front.

  Args:
    stacked: as a function under shard_map sees them.
  """
  return jax.tree.map(lambda leaf: leaf[0], stacked)


def joined_over_devices(found: Extended) -> Extended:
  """The best continuations in the tries of all devices, under shard_map.

  Args:
    found: of the same beams with the same scores, the best of this device's.

  Returns:
    As many, the same on all devices along PARTS; nodes are this device's.
  """
  parts = jax.lax.axis_size(PARTS)
  if parts == 1:
    return found
  width = found.codes_BW.shape[1]
  scores_BX, parents_BX, codes_BX = jax.lax.all_gather(
    (found.scores_BW, found.parents_BW, found.codes_BW),
    PARTS,
    axis=1,
    tiled=True,
  )
  # Which of this device's each is, from 1; 0 for those of others.
  places_X = jnp.arange(parts * width, dtype=jnp.int32)
  mine_X = places_X // width == jax.lax.axis_index(PARTS)
  own_X = jnp.where(mine_X, places_X % width + 1, 0)
  least_BX, parents_BX, codes_BX, own_BX = jax.lax.sort(
    (
      -scores_BX,
      parents_BX,
      codes_BX,
      jnp.broadcast_to(own_X[None], codes_BX.shape),
    ),
    dimension=1,
    num_keys=3,
  )
  again_BX = as_before(parents_BX) & as_before(codes_BX)
  # Those of no continuation are many, and are not looked at.
  kept_BX = jnp.cumsum(
    ~again_BX | (least_BX >= -FLOOR), axis=1, dtype=jnp.int32
  )
  # First entry of each kept one, and of the one behind the last.
  numbers_V = jnp.arange(1, width + 2, dtype=jnp.int32)
  firsts_BV = jax.vmap(lambda kept_X: jnp.searchsorted(kept_X, numbers_V))(
    kept_BX
  )
  # At most one of the entries of a continuation is this device's.
  before_BX = jnp.cumsum(jnp.pad(own_BX, ((0, 0), (1, 0))), axis=1)
  own_BW = jnp.diff(rows(before_BX, firsts_BV), axis=1)
  places_BW = firsts_BV[:, :-1]
  return Extended(
    -rows(least_BX, places_BW),
    rows(parents_BX, places_BW),
    rows(codes_BX, places_BW),
    tuple(_picked(nodes, own_BW) for nodes in found.nodes),
  )


def allowed_on_any_device(allowed_BWK: jax.Array) -> jax.Array:
  """Which codes the tries of any device allow, under shard_map."""
  return jax.lax.pmax(allowed_BWK.astype(jnp.uint8), PARTS) > 0


def _picked(nodes: Nodes, own_BW: jax.Array) -> Nodes:
  """Nodes by number from 1, none for 0."""
  there_BW, places_BW = own_BW > 0, jnp.maximum(own_BW - 1, 0)
  return jax.tree.map(
    lambda bounds_BW: jnp.where(there_BW, rows(bounds_BW, places_BW), 0), nodes
  )
