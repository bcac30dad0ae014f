"""Beams over tries of parts are beams over the trie of all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from gr_jax.decoding import beam, sharded
from gr_jax.decoding.trie import build_trie

pytestmark = pytest.mark.mesh

PARTS = 8
OVER_DEVICES = beam.Rules(join=sharded.joined_over_devices)
# Nodes of few rows, with bitmaps and with lists, in one trie or in a part.
SIZES = (12, 3000, 5, 40)
WIDTH, BATCH = 30, 3


def identifiers(count, seed):
  """Skewed; many documents share one."""
  rng = np.random.default_rng(seed)
  return (np.array(SIZES) * rng.random((count, len(SIZES))) ** 3).astype(int)


def next_scores(scores_LBK, state, codes_BW, level):
  """Of few distinct values: many ties."""
  del codes_BW
  scores_BK = scores_LBK[level]
  shape = (BATCH, state.shape[1], scores_BK.shape[1])
  return jnp.broadcast_to(scores_BK[:, None], shape), state


def decode(tables, scores_LBK, rules=beam.AS_SCORED):
  return beam.beam_search(
    lambda beams: jnp.zeros((BATCH, beams)),
    functools.partial(next_scores, scores_LBK),
    tables,
    WIDTH,
    len(SIZES),
    rules=rules,
  )


@pytest.fixture(scope='module')
def decoders():
  """A decode of one trie, and one of parts on as many devices."""
  mesh = Mesh(np.array(jax.devices()[:PARTS]), (sharded.PARTS,))
  stacked = PartitionSpec(sharded.PARTS)

  def of_part(tables, scores_LBK):
    beams = decode(sharded.own(tables), scores_LBK, OVER_DEVICES)
    return jax.tree.map(lambda leaf: leaf[None], beams)

  spread = jax.shard_map(
    of_part,
    mesh=mesh,
    in_specs=(stacked, PartitionSpec()),
    out_specs=stacked,
    check_vma=False,
  )
  return mesh, jax.jit(decode), jax.jit(spread)


@pytest.mark.parametrize('seed, count', [(0, 6000), (1, 6000), (2, 6), (3, 0)])
def test_beams_do_not_depend_on_the_parts(decoders, seed, count):
  mesh, of_one, of_parts = decoders
  codes_NL = identifiers(count, seed)
  scores = np.random.default_rng(seed).integers(
    -4, 1, (len(SIZES), BATCH, max(SIZES))
  )
  scores_LBK = jnp.asarray(scores, jnp.float32)
  room = build_trie(identifiers(6000, 0), SIZES).room.grown(0.25)
  expected = of_one(build_trie(codes_NL, SIZES).tables(room), scores_LBK)
  tries = [
    build_trie(codes_NL[begin:end], SIZES)
    for begin, end in sharded.bounds(count, PARTS)
  ]
  found = of_parts(
    sharded.on_devices(mesh, lambda part: tries[part].tables(room)), scores_LBK
  )
  for part in range(PARTS):
    np.testing.assert_array_equal(found.codes_BWL[part], expected.codes_BWL)
    np.testing.assert_array_equal(found.scores_BW[part], expected.scores_BW)
  assert bool(np.any(expected.valid_BW)) == (count > 0)
  # Each device has those documents of a bucket that it holds.
  sizes_PBW = np.asarray(found.buckets[0].sizes_BW)
  np.testing.assert_array_equal(
    sizes_PBW.sum(axis=0), expected.buckets[0].sizes_BW
  )
  for part, trie in enumerate(tries):
    for query, place in np.argwhere(sizes_PBW[part] > 0):
      start = found.buckets[0].starts_BW[part, query, place]
      np.testing.assert_array_equal(
        trie.columns[:, start], expected.codes_BWL[query, place]
      )
