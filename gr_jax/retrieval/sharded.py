"""The compiled search over a mesh: queries along 'data', documents on 'model'.

The queries of a batch are split along 'data'. Along 'model' the model is run
with the same parameters on every device, and each device looks into its own
tries and multiplies with its own vectors. What they exchange is small: W
continuations at every position, sizes of buckets, and numbers and dense scores
of the candidates.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gr_jax.decoding.beam import Beams, Rules
from gr_jax.decoding.sharded import (
  PARTS,
  QUERIES,
  Shards,
  allowed_on_any_device,
  joined_over_devices,
  own,
)
from gr_jax.decoding.union import Seen
from gr_jax.decoding.visibility import Visible
from gr_jax.retrieval.fusion import Weights
from gr_jax.retrieval.program import (
  NO_PART,
  Candidates,
  decoded,
  dense_scores,
  documents_at,
  pieces,
  places_of_pieces,
  ranked,
)
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.types import NO_DOC, UserError


def checked_mesh(mesh: Mesh) -> Mesh:
  """The same devices, or a refusal; axes beside the two hold copies."""
  if not {QUERIES, PARTS} <= set(mesh.axis_names):
    raise UserError(
      f'the mesh of a search should have the axes {QUERIES!r} and {PARTS!r}, '
      f'it has {mesh.axis_names}'
    )
  if mesh.is_multi_process:
    raise UserError('the devices of a search should be of one process')
  # Axes of another type would show in the types of all that is computed.
  return Mesh(mesh.devices, mesh.axis_names)


def over_local_devices(
  settings: SearchSettings,
) -> tuple[SearchSettings, Mesh | None]:
  """How all devices of this process search: each has a share of the queries.

  Args:
    settings: of a search by one device.

  Returns:
    The settings with up to as many queries at once on each device, and the
    mesh. On one device the settings stay and there is no mesh; so do they with
    planning ahead, which one device does alone.
  """
  devices = np.array(jax.local_devices())
  if len(devices) == 1 or settings.planning:
    return settings, None
  # The sizes of one device as well: a few queries fill no larger batch.
  sizes = {s * n for s in settings.batch_sizes for n in (1, len(devices))}
  settings = dataclasses.replace(settings, batch_sizes=tuple(sorted(sizes)))
  return settings, Mesh(devices[:, None], (QUERIES, PARTS))


def divided_sizes(sizes: Sequence[int], mesh: Mesh) -> tuple[int, ...]:
  """Batch sizes, raised to what the devices along 'data' share evenly."""
  parts = mesh.shape[QUERIES]
  return tuple(sorted({-(-size // parts) * parts for size in sizes}))


def copied(mesh: Mesh, tree: Any) -> Any:
  """A copy on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_queries(mesh: Mesh, tokens_BS: np.ndarray) -> jax.Array:
  """Queries, a share of them on each device along 'data'."""
  return jax.device_put(tokens_BS, NamedSharding(mesh, PartitionSpec(QUERIES)))


@functools.partial(
  jax.jit,
  static_argnames=(
    'model',
    'mesh',
    'fusion',
    'length',
    'width',
    'candidates',
    'k',
    'renormalised',
  ),
)
def sharded_program(
  model: Any,
  params: Any,
  shards: Shards,
  vectors: tuple[jax.Array, ...],
  tokens_BS: jax.Array,
  budget: jax.Array,
  weights: Weights,
  visible: tuple[Visible | None, ...],
  *,
  mesh: Mesh,
  fusion: str,
  length: int,
  width: int,
  candidates: int,
  k: int,
  renormalised: bool = False,
) -> tuple[Candidates, jax.Array]:
  """Searches a batch of queries as `search_program` does, and finds the same.

  Args:
    model: as there.
    params: copied to all devices.
    shards: the tries, of each device.
    vectors: [parts, N, D] of the documents of each trie, padded.
    tokens_BS: the queries, as many as the devices along 'data' share evenly.
    budget: documents scored for a query at most, of all devices.
    weights: of the parts of a final score.
    visible: of each trie; all leaves have an axis in front, of the parts, or
      of 1 for the selection of each query.
    mesh: of `checked_mesh`.
    fusion: how the parts of a score are joined.
    length: L, codes of an identifier.
    width: W, beams.
    candidates: C, room for `budget` documents.
    k: documents returned for a query, at most C.
    renormalised: whether codes are scored among the allowed ones alone.
  """
  search = functools.partial(
    _search,
    model,
    fusion=fusion,
    length=length,
    width=width,
    candidates=candidates,
    k=k,
    renormalised=renormalised,
  )
  return jax.shard_map(
    search,
    mesh=mesh,
    in_specs=_in_specs(visible),
    out_specs=PartitionSpec(QUERIES),
    # Loops start from constants, which are not known to differ by device.
    check_vma=False,
  )(params, shards, vectors, tokens_BS, budget, weights, visible)


def _in_specs(visible):
  """Along which axis of the mesh each argument of `_search` is cut."""
  along_parts, everywhere = PartitionSpec(PARTS), PartitionSpec()
  seen = Visible(PartitionSpec(None, QUERIES), *(along_parts,) * 4)
  return (
    everywhere,
    along_parts,
    along_parts,
    PartitionSpec(QUERIES),
    everywhere,
    everywhere,
    tuple(None if each is None else seen for each in visible),
  )


def _search(
  model,
  params,
  shards,
  vectors,
  tokens_BS,
  budget,
  weights,
  visible,
  *,
  fusion,
  length,
  width,
  candidates,
  k,
  renormalised,
):
  """What one device does."""
  shards, vectors, visible = own((shards, vectors, visible))
  queries_BD, beams = decoded(
    model,
    params,
    tokens_BS,
    shards.tries,
    visible,
    lambda _: Rules(
      renormalised, join=joined_over_devices, anywhere=allowed_on_any_device
    ),
    width,
    length,
  )
  own_BC, parts_BC, beams_BC = expand_own_buckets(
    beams, shards, candidates, budget, visible
  )
  firsts_P = jnp.stack(shards.firsts)
  numbers_BC = own_BC + firsts_P[jnp.maximum(parts_BC, 0)]
  numbers_BC = jnp.where(own_BC == NO_DOC, NO_DOC, numbers_BC)
  # Documents of the second table stand behind those of the first.
  first = shards.tries[0].count
  rows_BC = jnp.where(parts_BC > 0, own_BC + first, own_BC)
  dense_BC = dense_scores_of_own(queries_BD, vectors, rows_BC, first)
  return ranked(
    beams,
    jax.lax.pmax(numbers_BC, PARTS),
    beams_BC,
    # Zeros of others change no sum.
    jax.lax.psum(dense_BC, PARTS),
    weights,
    fusion=fusion,
    k=k,
  )


def expand_own_buckets(
  beams: Beams,
  shards: Shards,
  candidates: int,
  budget: jax.Array,
  visible: Seen,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """This device's documents of the beams' buckets, in their places among all.

  A bucket is of the first trie's documents from device to device, then of the
  second's: corpus order.

  Args:
    beams: finished beams with this device's nodes.
    shards: this device's.
    candidates: C, room for documents of all devices.
    budget: int32, documents of all devices taken at most.
    visible: which documents each query may find, of this device's.

  Returns:
    [B, C] this device's number of a document, NO_DOC in the places of others;
    [B, C] its trie, NO_PART there; and [B, C] the beams, of all.
  """
  devices, tries = jax.lax.axis_size(PARTS), len(shards.tries)
  starts_BY, ends_BY = pieces(beams, visible)
  batch = starts_BY.shape[0]
  sizes_BYG = jax.lax.all_gather(ends_BY - starts_BY, PARTS, axis=2)
  taken_BC, pieces_BC, firsts_BY = places_of_pieces(
    sizes_BYG.reshape(batch, -1), candidates, budget
  )
  own_BC, devices_BC = jnp.divmod(pieces_BC, devices)
  beams_BC, parts_BC = jnp.divmod(own_BC, tries)
  mine_BC = taken_BC & (devices_BC == jax.lax.axis_index(PARTS))
  parts_BC = jnp.where(mine_BC, parts_BC, NO_PART)
  slots_BC = (
    jnp.take_along_axis(starts_BY, own_BC, axis=1)
    - jnp.take_along_axis(firsts_BY, pieces_BC, axis=1)
    + jnp.arange(candidates, dtype=jnp.int32)[None, :]
  )
  documents_BC = documents_at(shards.tries, slots_BC, parts_BC, visible)
  return documents_BC, parts_BC, beams_BC


def dense_scores_of_own(
  queries_BD: jax.Array,
  vectors: tuple[jax.Array, ...],
  documents_BC: jax.Array,
  first: jax.Array,
) -> jax.Array:
  """[B, C] dot products of this device's documents, 0 for others.

  As many are scored at once as each device has if all have as many, until no
  query has more.

  Args:
    queries_BD: vectors of the queries.
    vectors: [N, D] of this device's documents, as `dense_scores` has them.
    documents_BC: their numbers, NO_DOC for those of others.
    first: number of the first document of the second table.
  """
  batch, candidates = documents_BC.shape
  size = -(-candidates // jax.lax.axis_size(PARTS))
  mine_BC = documents_BC != NO_DOC
  if size == candidates:
    scores_BC = dense_scores(queries_BD, vectors, documents_BC, first)
    return jnp.where(mine_BC, scores_BC, 0.0)
  order_BC = jnp.argsort(~mine_BC, axis=1, stable=True).astype(jnp.int32)
  most = jnp.max(jnp.sum(mine_BC, axis=1, dtype=jnp.int32))
  queries_B1 = jnp.arange(batch, dtype=jnp.int32)[:, None]

  def score(turn, scores_BC):
    # At the end some are scored again, as slices keep their size.
    start = jnp.minimum(turn * size, candidates - size)
    places_BX = jax.lax.dynamic_slice_in_dim(order_BC, start, size, axis=1)
    own_BX = jnp.take_along_axis(documents_BC, places_BX, axis=1)
    new_BX = dense_scores(queries_BD, vectors, own_BX, first)
    return scores_BC.at[queries_B1, places_BX].set(new_BX)

  scores_BC = jnp.zeros((batch, candidates), jnp.float32)
  scores_BC = jax.lax.fori_loop(0, -(-most // size), score, scores_BC)
  return jnp.where(mine_BC, scores_BC, 0.0)
