"""The mask as an array, scores over allowed codes alone, early ends."""

import collections
import dataclasses
import functools
import itertools
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.decoding import allowed, beam, ends, trie, visibility
from gr_jax.types import NO_DOC

SIZES = (60, 300, 7)
WIDTH, LENGTH = 12, 3


def parts_of(codes_NL, count, seen_FN):
  """Two tries of some documents and the others, and what is seen of each."""
  numbers = np.arange(len(codes_NL), dtype=np.int32)
  parts = []
  with mock.patch.object(trie, 'capacity', lambda size: 1024):
    for some in (numbers[:count], numbers[count:]):
      built = trie.build_trie(codes_NL[some], SIZES)
      built = dataclasses.replace(built, documents=some[built.documents])
      tables = built.tables()
      seen = visibility.visible(built, tables, seen_FN, np.arange(2))
      parts.append((tables, seen))
  return zip(*parts, strict=True)


def scores_of(table, codes_BW, level):
  """What comes next depends on what came last."""
  scores_BWK = jnp.take(table, level, axis=0)[None, None, :]
  return scores_BWK * (1 + codes_BW % 3)[..., None]


@functools.partial(jax.jit, static_argnames='renormalised')
def search(table, tables, visible, renormalised):
  return beam.beam_search(
    lambda width: jnp.zeros((2, width)),
    lambda state, codes_BW, level: (scores_of(table, codes_BW, level), state),
    tables,
    WIDTH,
    LENGTH,
    visible,
    beam.Rules(renormalised),
  )


def reference(table, identifiers):
  """Identifiers with the product of their codes' shares among the allowed."""
  below = collections.defaultdict(set)
  for row in identifiers:
    for level, code in enumerate(row):
      below[row[:level]].add(code)
  beams = [((), 0.0)]
  for level in range(LENGTH):
    grown = []
    for place, (prefix, total) in enumerate(beams):
      factor = 1 + (prefix[-1] if prefix else 0) % 3
      scores = {code: factor * table[level][code] for code in below[prefix]}
      most = max(scores.values())
      lost = most + math.log(sum(math.exp(s - most) for s in scores.values()))
      grown += [
        (total + score - lost, -place, -code, (*prefix, code))
        for code, score in scores.items()
      ]
    grown.sort(reverse=True)
    beams = [(prefix, total) for total, *_, prefix in grown[:WIDTH]]
  return beams


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 4, 12]), st.booleans())
def test_renormalised_scores_are_of_a_distribution_over_what_is_allowed(
  seed, skew, ties
):
  rng = np.random.default_rng(seed)
  codes_NL = (np.array(SIZES) * rng.random((200, 3)) ** skew).astype(np.int32)
  seen_FN = rng.random((2, 200)) < [[0.9], [0.1]]
  seen_FN[:, 0] = True
  table = rng.normal(size=(LENGTH, max(SIZES))).astype(np.float32)
  if ties:
    table = np.round(table)
  tables, seen = parts_of(codes_NL, 170, seen_FN)
  found = search(jnp.asarray(table), tables, seen, True)
  for query, seen_N in enumerate(seen_FN):
    identifiers = {tuple(row) for row in codes_NL[seen_N].tolist()}
    expected = reference(table.tolist(), identifiers)
    scores = np.asarray(found.scores_BW[query])[: len(expected)]
    np.testing.assert_allclose(
      scores, [total for _, total in expected], rtol=1e-4, atol=1e-4
    )
    rows = [tuple(row) for row in found.codes_BWL[query].tolist()]
    assert set(rows) - {(NO_DOC,) * 3} <= identifiers
    assert np.asarray(found.valid_BW[query]).sum() == len(expected)
    # With as many beams as identifiers all probability is there.
    if len(identifiers) <= WIDTH:
      assert np.exp(scores).sum() == pytest.approx(1, rel=1e-4)


def test_the_mask_names_the_codes_below_each_node():
  rng = np.random.default_rng(0)
  codes_NL = (np.array(SIZES) * rng.random((300, 3)) ** 3).astype(np.int32)
  seen_FN = rng.random((2, 300)) < [[1.0], [0.3]]
  tables, seen = parts_of(codes_NL, 250, seen_FN)
  found = search(jnp.zeros((3, 300)), tables, seen, False)
  nodes = allowed.roots(tables, 2)
  prefixes = [[()], [()]]
  checked = 0
  # Down the first beams: the beams of shorter lengths are made again.
  for level in range(LENGTH):
    mask = np.asarray(allowed.allowed_codes(tables, nodes, level, 300, seen))
    for query, place in itertools.product(range(2), range(len(prefixes[0]))):
      prefix = prefixes[query][place]
      below = {
        row[level]
        for row in codes_NL[seen_FN[query]].tolist()
        if tuple(row[:level]) == prefix
      }
      assert set(np.flatnonzero(mask[query, place])) == below
      checked += len(below)
    if level == 0:
      state = beam.init(tables, jnp.zeros((2, 1, 300)), WIDTH, LENGTH, seen)
    else:
      zeros = jnp.zeros((2, WIDTH, 300))
      state, _ = beam.step(state, tables, zeros, level, WIDTH, seen)
    nodes = state.nodes
    prefixes = [
      [tuple(row[: level + 1]) for row in rows]
      for rows in state.codes_BWL.tolist()
    ]
  assert found.valid_BW.all() and checked > 100


def test_identifiers_of_different_lengths():
  rng = np.random.default_rng(1)
  identifiers = sorted(
    {tuple(rng.integers(0, 4, rng.integers(1, 4)).tolist()) for _ in range(40)}
  )
  codes_NL, sizes = ends.ended(identifiers, (4, 4, 4))
  assert sizes == (5, 5, 5)
  assert ends.lengths(codes_NL, (4, 4, 4)).tolist() == [
    len(row) for row in identifiers
  ]
  built = trie.build_trie(codes_NL, sizes)
  table = rng.normal(size=(3, 4)).astype(np.float32)
  ending = np.float32([9.0, -0.7, 0.4])  # never read at level 0

  def search(end_fn):
    step = ends.with_ends(
      lambda state, codes_BW, level: (
        scores_of(jnp.asarray(table), codes_BW, level),
        state,
      ),
      (4, 4, 4),
      end_fn,
    )
    start = lambda width: jnp.zeros((1, width))  # noqa: E731
    return beam.beam_search(start, step, built.tables(), 50, 3)

  def score(row, ends_at):
    total, before = 0.0, 0
    for level, code in enumerate(row):
      total += table[level][code] * (1 + before % 3)
      before = code
    return total + (ends_at[len(row)] if len(row) < 3 else 0.0)

  def end_fn(state, level):
    return jnp.broadcast_to(jnp.asarray(ending)[level], state.shape)

  for found, ends_at in (
    (search(None), np.zeros(3)),
    (search(end_fn), ending),
  ):
    expected = sorted((-score(row, ends_at), row) for row in identifiers)
    count = len(identifiers)
    assert found.valid_BW[0].tolist() == [w < count for w in range(50)]
    names = [
      tuple(code for code in row if code != 4)
      for row in found.codes_BWL[0, :count].tolist()
    ]
    assert names == [row for _, row in expected]
    np.testing.assert_allclose(
      found.scores_BW[0, :count], [-s for s, _ in expected], rtol=1e-5
    )


@pytest.mark.parametrize(
  ('identifier', 'message'),
  [
    ([], '1 to 2 codes, it has 0'),
    ([1, 2, 3], '1 to 2 codes, it has 3'),
    ([4], r'below \[4\]'),
    ([0, -1], r'below \[4, 3\]'),
  ],
)
def test_impossible_identifiers_are_refused(identifier, message):
  with pytest.raises(ValueError, match=f'identifier 1 should have .*{message}'):
    ends.ended([[0, 1], identifier], (4, 3))
