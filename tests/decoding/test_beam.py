"""The beam search against plain Python: a reference beam and brute force."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.decoding import beam, continuations, trie
from gr_jax.types import NO_DOC

BATCH = 2
STATES = 61  # the toy model hashes a prefix to one of so many states
CODES = 700


@st.composite
def problems(draw):
  """Codes, code sizes, width, and the score table of a toy model."""
  # Few shapes: the widest position is always there.
  length = draw(st.sampled_from([1, 3]))
  sizes = draw(
    st.lists(
      st.sampled_from([1, 2, 5, 40, CODES]), min_size=length, max_size=length
    )
  )
  sizes[draw(st.integers(0, length - 1))] = CODES
  # Nodes of few rows, wide ones, and among 700 codes some that are not dense.
  documents = draw(st.sampled_from([2, 7, 250]))
  width = draw(st.sampled_from([1, 70]))
  skew = draw(st.sampled_from([1, 4, 15]))
  rng = np.random.default_rng(draw(st.integers(0, 2**31)))
  codes_NL = np.stack(
    [(size * rng.random(documents) ** skew).astype(np.int32) for size in sizes],
    axis=1,
  )
  table = rng.normal(size=(BATCH, length, STATES, CODES))
  if draw(st.booleans()):
    table = np.round(table)  # many ties
  return codes_NL, sizes, width, table.astype(np.float32)


def tables_of(codes_NL, sizes):
  """A trie on the device, of one shape: compiling is the cost."""
  with mock.patch.object(trie, 'capacity', lambda size: 1024):
    return trie.build_trie(codes_NL, sizes).tables()


def zeros(beams):
  """A state without content."""
  return jnp.zeros((1, beams))


def toy_step(table, state, codes_BW, level):
  """Scores by a hash of the prefix, which has to follow its beam."""
  hashes_BW = jnp.where(
    level == 0, 0, (state['hash'] * 7 + codes_BW + 1) % STATES
  )
  scores = table[jnp.arange(BATCH)[:, None], level, hashes_BW]
  return scores, {'hash': hashes_BW, 'shared': state['shared']}


@functools.partial(jax.jit, static_argnames=('width', 'length'))
def search(table, tables, width, length):
  def start(beams):
    return {
      'hash': jnp.zeros((BATCH, beams), jnp.int32),
      'shared': jnp.zeros((BATCH, 1, 3)),
    }

  return beam.beam_search(
    start, functools.partial(toy_step, table), tables, width, length
  )


def toy_scores(table_LSK, codes):
  """Score of an identifier's prefixes, added in order in float32."""
  state, total = 0, np.float32(0)
  for level, code in enumerate(codes):
    if level:
      state = (state * 7 + codes[level - 1] + 1) % STATES
    total = np.float32(total + table_LSK[level, state, code])
  return total


def reference_beam(table_LSK, identifiers, width, length):
  """Beam search with sets: best first, ties by beam, then by code."""
  beams = [()]
  for level in range(length):
    prefixes = {row[: level + 1] for row in identifiers}
    found = [
      (-toy_scores(table_LSK, prefix), beams.index(prefix[:-1]), prefix[-1])
      for prefix in prefixes
      if prefix[:-1] in beams
    ]
    beams = [
      (*beams[parent], code) for _, parent, code in sorted(found)[:width]
    ]
  return beams


@settings(max_examples=80, deadline=None)
@given(problems())
def test_equals_a_plain_reference_beam_search(problem):
  codes_NL, sizes, width, table = problem
  built = trie.build_trie(codes_NL, sizes)
  tables = tables_of(codes_NL, sizes)
  result = search(jnp.asarray(table), tables, width, len(sizes))
  identifiers = {tuple(row) for row in codes_NL.tolist()}
  for query in range(BATCH):
    expected = reference_beam(table[query], identifiers, width, len(sizes))
    count = len(expected)
    assert result.valid_BW[query].tolist() == [
      place < count for place in range(width)
    ]
    found = [tuple(row) for row in result.codes_BWL[query].tolist()]
    assert found == expected + [(NO_DOC,) * len(sizes)] * (width - count)
    for place, row in enumerate(expected):
      (nodes,) = result.buckets
      bucket = nodes.starts_BW, nodes.ends_BW
      start, end = (int(bound[query, place]) for bound in bucket)
      assert built.documents[start:end].tolist() == [
        document
        for document, codes in enumerate(codes_NL.tolist())
        if tuple(codes) == row
      ]
    assert (nodes.sizes_BW[query, count:] == 0).all()
    scores = np.asarray(result.scores_BW[query])
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(
      scores[:count], [toy_scores(table[query], row) for row in expected]
    )


@settings(max_examples=30, deadline=None)
@given(problems())
def test_a_beam_as_wide_as_the_widest_level_equals_brute_force(problem):
  codes_NL, sizes, _, table = problem
  width = 256  # at most 250 documents, so at most 250 nodes at any level
  tables = tables_of(codes_NL, sizes)
  result = search(jnp.asarray(table), tables, width, len(sizes))
  identifiers = {tuple(row) for row in codes_NL.tolist()}
  for query in range(BATCH):
    best = sorted(-toy_scores(table[query], row) for row in identifiers)
    valid = np.asarray(result.valid_BW[query])
    np.testing.assert_array_equal(
      -np.asarray(result.scores_BW[query])[valid], best
    )


@pytest.mark.parametrize('skew', [1, 6])
def test_wide_nodes_are_read_in_pieces_and_beside_other_kinds(
  monkeypatch, skew
):
  monkeypatch.setattr(continuations, '_PIECE', 2)
  monkeypatch.setattr(continuations, '_PIECES', 3)
  rng = np.random.default_rng(skew)
  sizes = (3, CODES, CODES)
  codes_NL = (sizes * rng.random((900, 3)) ** [1, skew, skew]).astype(int)
  # One node that is wide and not dense: 20 of 700 codes, of two rows each.
  codes_NL[:40, :2], codes_NL[:40, 2] = (2, CODES - 1), np.arange(40) // 2 * 5
  built = trie.build_trie(codes_NL, sizes)
  kinds = np.diff(built.child_offsets), built.bitmap_rows >= 0
  assert any(kinds[1]) and any(kinds[0][~kinds[1]] >= 20)
  table = rng.normal(size=(BATCH, 3, STATES, CODES)).astype(np.float32)
  table[1] = np.round(table[1])  # many ties
  table[:, 1, :, CODES - 1] += 9  # its beam stays
  # Compiled anew: the pieces are constants of the program.
  fresh = jax.jit(search.__wrapped__, static_argnames=('width', 'length'))
  result = fresh(jnp.asarray(table), built.tables(), 50, 3)
  identifiers = {tuple(row) for row in codes_NL.tolist()}
  for query in range(BATCH):
    expected = reference_beam(table[query], identifiers, 50, 3)
    found = [tuple(row) for row in result.codes_BWL[query].tolist()]
    assert found == expected


def test_impossible_scores_lose_to_possible_ones_and_stay_finite():
  codes_NL = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
  tables = trie.build_trie(codes_NL, (2, 2)).tables()
  scores = jnp.array([[0.0, -jnp.inf], [jnp.nan, -1.0]])

  def step_fn(state, codes_BW, level):
    return jnp.broadcast_to(scores[level], (*codes_BW.shape, 2)), state

  result = beam.beam_search(zeros, step_fn, tables, 5, 2)
  assert np.isfinite(result.scores_BW).all()
  assert result.codes_BWL[0, 0].tolist() == [0, 1]
  assert result.scores_BW[0, 0] == -1.0
  assert result.valid_BW[0].tolist() == [True] * 4 + [False]


def test_a_small_change_of_the_corpus_does_not_recompile():
  rng = np.random.default_rng(0)
  traces = 0

  @jax.jit
  def counted(tables):
    nonlocal traces
    traces += 1

    def step_fn(state, codes_BW, level):
      return jnp.zeros((*codes_BW.shape, 9)), state

    return beam.beam_search(zeros, step_fn, tables, 4, 2)

  for documents in (1000, 1003, 990):
    codes_NL = rng.integers(0, 9, (documents, 2))
    counted(trie.build_trie(codes_NL, (9, 9)).tables())
  assert traces == 1
