"""Several tries are searched as one of all their documents."""

import dataclasses
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.decoding import beam, trie, visibility
from gr_jax.retrieval.program import expand_buckets

LENGTH, CODES, WIDTH, ROOM = 3, 700, 20, 160


@st.composite
def problems(draw):
  """Codes, how many come later, what two queries may find, and scores."""
  sizes = [draw(st.sampled_from([1, 2, 5, 40, CODES])) for _ in range(LENGTH)]
  sizes[draw(st.integers(0, LENGTH - 1))] = CODES
  documents = draw(st.sampled_from([2, 20, 150]))
  skew = draw(st.sampled_from([1, 4, 15]))
  rng = np.random.default_rng(draw(st.integers(0, 2**31)))
  codes_NL = (sizes * rng.random((documents, LENGTH)) ** skew).astype(np.int32)
  later = draw(st.sampled_from([0, 1, documents // 4, documents]))
  share = draw(st.sampled_from([0.5, 0.95, 1.0]))
  seen_FN = rng.random((2, documents)) < [[share], [0.5]]
  table = rng.normal(size=(LENGTH, CODES)).astype(np.float32)
  if draw(st.booleans()):
    table = np.round(table)  # many ties
  return codes_NL, sizes, documents - later, seen_FN, table


def parts_of(codes_NL, sizes, count, seen_FN):
  """Tries of the first `count` documents and of the others; what is seen."""
  numbers = np.arange(len(codes_NL), dtype=np.int32)
  with mock.patch.object(trie, 'capacity', lambda size: 1024):
    parts = []
    for some in (numbers[:count], numbers[count:]):
      built = trie.build_trie(codes_NL[some], sizes)
      built = dataclasses.replace(built, documents=some[built.documents])
      tables = built.tables()
      seen = visibility.visible(built, tables, seen_FN, np.arange(2))
      parts.append((tables, seen))
    return zip(*parts, strict=True)


@functools.partial(jax.jit, static_argnames='batch')
def search(table, tables, visible, batch=2):
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
  documents = expand_buckets(found, tables, ROOM, jnp.int32(ROOM), visible)
  return dataclasses.replace(found, buckets=()), documents


def assert_equal(found, expected):
  """The same beams and the same documents in the same order."""
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_two_tries_are_as_one_of_all_documents(problem):
  codes_NL, sizes, count, seen_FN, table = problem
  table = jnp.asarray(table)
  (whole, _), (seen, _) = parts_of(codes_NL, sizes, len(codes_NL), seen_FN)
  tables, seen_parts = parts_of(codes_NL, sizes, count, seen_FN)
  assert_equal(search(table, tables, (None, None)), search(table, whole, None))
  assert_equal(search(table, tables, seen_parts), search(table, whole, seen))


def test_three_tries_are_as_one():
  rng = np.random.default_rng(0)
  sizes = (5, 40, CODES)
  codes_NL = (sizes * rng.random((150, 3)) ** 4).astype(np.int32)
  everything = np.ones((2, 150), bool)
  (whole, _), _ = parts_of(codes_NL, sizes, 150, everything)
  (first, _), _ = parts_of(codes_NL[:100], sizes, 100, everything)
  (second, third), _ = parts_of(codes_NL[100:], sizes, 30, everything)
  tables = (
    first,
    *(
      dataclasses.replace(part, documents=part.documents + 100)
      for part in (second, third)
    ),
  )
  for _ in range(20):
    table = jnp.asarray(np.round(rng.normal(size=(3, CODES)), 1))
    found = search(table, tables, (None, None, None))
    assert_equal(found, search(table, whole, None))
