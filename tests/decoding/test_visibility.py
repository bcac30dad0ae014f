"""What is hidden is as if it had never been there."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.decoding import beam, trie, visibility
from gr_jax.retrieval.program import expand_buckets
from gr_jax.types import NO_DOC

LENGTH, CODES, WIDTH, ROOM = 3, 700, 20, 160


@st.composite
def problems(draw):
  """Codes, what two queries may find, and the scores of prefixes."""
  sizes = [draw(st.sampled_from([1, 2, 5, 40, CODES])) for _ in range(LENGTH)]
  sizes[draw(st.integers(0, LENGTH - 1))] = CODES
  documents = draw(st.sampled_from([2, 20, 150]))
  skew = draw(st.sampled_from([1, 4, 15]))
  rng = np.random.default_rng(draw(st.integers(0, 2**31)))
  codes_NL = (sizes * rng.random((documents, LENGTH)) ** skew).astype(np.int32)
  share = draw(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
  seen_FN = rng.random((2, documents)) < [[share], [0.5]]
  table = rng.normal(size=(LENGTH, CODES)).astype(np.float32)
  if draw(st.booleans()):
    table = np.round(table)  # many ties
  return codes_NL, sizes, seen_FN, table


def tables_of(built):
  """On the device, of one shape: compiling is the cost."""
  with mock.patch.object(trie, 'capacity', lambda size: 1024):
    return built.tables()


@functools.partial(jax.jit, static_argnames='batch')
def search(table, tables, visible, batch):
  """Beams, and the documents in their buckets."""

  def step(state, codes_BW, level):
    # What comes next depends on what came last.
    scores_BWK = jnp.take(table, level, axis=0)[None, None, :]
    return scores_BWK * (1 + codes_BW % 3)[..., None], state

  found = beam.beam_search(
    lambda width: jnp.zeros((batch, width)),
    step,
    tables,
    WIDTH,
    LENGTH,
    visible,
  )
  return found, *expand_buckets(found, tables, ROOM, jnp.int32(ROOM), visible)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_equals_a_trie_of_the_visible_documents_alone(problem):
  codes_NL, sizes, seen_FN, table = problem
  built = trie.build_trie(codes_NL, sizes)
  tables = tables_of(built)
  # Selections are named by queries in any order.
  visible = visibility.visible(built, tables, seen_FN[::-1], np.array([1, 0]))
  found, documents_BC, beams_BC = search(jnp.asarray(table), tables, visible, 2)
  for query, seen_N in enumerate(seen_FN):
    if not seen_N.any():
      assert not np.asarray(found.valid_BW[query]).any()
      assert (np.asarray(documents_BC[query]) == NO_DOC).all()
      continue
    alone = trie.build_trie(codes_NL[seen_N], sizes)
    expected, numbers_BC, places_BC = search(
      jnp.asarray(table), tables_of(alone), None, 1
    )
    for name in ('codes_BWL', 'scores_BW', 'valid_BW'):
      np.testing.assert_array_equal(
        getattr(found, name)[query], getattr(expected, name)[0]
      )
    numbers_C = np.asarray(numbers_BC[0])
    there_C = numbers_C != NO_DOC
    names_C = np.where(there_C, np.flatnonzero(seen_N)[numbers_C], NO_DOC)
    np.testing.assert_array_equal(documents_BC[query], names_C)
    np.testing.assert_array_equal(
      np.asarray(beams_BC[query])[there_C], np.asarray(places_BC[0])[there_C]
    )


@pytest.mark.parametrize('share', [0.02, 0.5, 0.98])
def test_ranks_and_rows_are_inverses(share):
  rng = np.random.default_rng(0)
  seen_FN = rng.random((2, 500)) < share
  seen_FN[:, -1] = True
  built = trie.build_trie(rng.integers(0, 9, (500, 3)), (9, 9, 9))
  visible = visibility.visible(built, built.tables(), seen_FN, np.array([1, 0]))
  rows = np.arange(501)
  for query, seen_N in enumerate(seen_FN[::-1]):
    bits_N = seen_N[built.documents]
    before = np.concatenate([[0], np.cumsum(bits_N)])
    counted = visible.before(jnp.broadcast_to(rows[None], (2, 501)))[query]
    np.testing.assert_array_equal(counted, before)
    ranks = jnp.broadcast_to(jnp.arange(500)[None], (2, 500))
    np.testing.assert_array_equal(
      visible.at_rank(ranks)[query, : bits_N.sum()], np.flatnonzero(bits_N)
    )


def test_children_end_where_the_next_prefix_begins():
  rng = np.random.default_rng(0)
  codes_NL = (rng.random((400, 3)) ** 3 * 30).astype(int)
  built = trie.build_trie(codes_NL, (30, 30, 30))
  rows = [tuple(row) for row in codes_NL[built.documents].tolist()]
  seen = 0
  for level, wide in enumerate(built.wide_nodes):
    for number in wide[wide >= 0]:
      for child in range(*built.child_offsets[number : number + 2]):
        start, end = built.child_starts[child], built.child_ends[child]
        prefix = rows[start][: level + 1]
        assert {row[: level + 1] for row in rows[start:end]} == {prefix}
        assert end == len(rows) or rows[end][: level + 1] != prefix
        seen += 1
  assert seen == len(built.child_ends) > 100
