"""Planned beams against a plain reference, over one trie and over several."""

import dataclasses
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.decoding import beam, planning, trie, visibility
from gr_jax.decoding.continuations import Nodes

BATCH, LENGTH, WIDTH = 2, 3, 4
SIZES = (5, 40, 300)
DOCUMENTS = 250


def tables_of(built):
  """A trie on the device, of one shape: compiling is the cost."""
  with mock.patch.object(trie, 'capacity', lambda size: 1024):
    return built.tables()


def make_problem(seed):
  """Codes, code scores [B, L, K] and document scores [B, N]."""
  rng = np.random.default_rng(seed)
  skew = [1, 3, 10][seed % 3]
  codes_NL = (SIZES * rng.random((DOCUMENTS, LENGTH)) ** skew).astype(np.int32)
  table = rng.normal(size=(BATCH, LENGTH, max(SIZES))).astype(np.float32)
  documents_BN = rng.normal(size=(BATCH, DOCUMENTS)).astype(np.float32)
  return codes_NL, table, documents_BN


@functools.partial(jax.jit, static_argnames='how')
def search(table, documents_BN, tables, visible=None, *, how):
  def step(state, codes_BW, level):
    scores_B1K = jnp.take(table, level, axis=1)[:, None]
    # What comes next depends on what came last.
    return scores_B1K * (1 + codes_BW % 3)[..., None], state

  def scores_fn(documents_BC):
    return jnp.take_along_axis(documents_BN, documents_BC, axis=1)

  return beam.beam_search(
    lambda width: jnp.zeros((BATCH, width)),
    step,
    tables,
    WIDTH,
    LENGTH,
    visible,
    beam.Rules(plan=planning.Plan(how, scores_fn) if how else None),
  )


def reference(codes_NL, table_LK, documents_N, how):
  """Codes and scores of the beams of one query, in plain Python."""
  order = np.lexsort(codes_NL.T[::-1])
  beams = [((), np.float32(0))]
  for level in range(LENGTH):
    found = []
    for place, (prefix, score) in enumerate(beams):
      last = prefix[-1] if prefix else 0
      inside = (codes_NL[:, :level] == prefix).all(axis=1)
      for code in np.unique(codes_NL[inside, level]):
        total = score + table_LK[level, code] * np.float32(1 + last % 3)
        found.append((-total, place, (*prefix, int(code))))
    pool = sorted(found)[: WIDTH * how.pool]
    planned = []
    for place, (least, _, prefix) in enumerate(pool):
      own = codes_NL[order][:, : level + 1] == prefix
      beneath = order[own.all(axis=1)]
      spread = 2 * np.arange(how.documents) + 1
      seen = beneath[len(beneath) * spread // (2 * how.documents)]
      weight = np.float32(how.weight)
      total = -least + weight * documents_N[seen].max()
      planned.append((-total, place))
    kept = sorted(place for _, place in sorted(planned)[:WIDTH])
    beams = [(pool[place][2], -pool[place][0]) for place in kept]
  return beams


@pytest.mark.parametrize('pool, documents', [(1, 1), (3, 1), (3, 4), (80, 300)])
def test_equals_a_plain_reference(pool, documents):
  how = planning.Planning(2.0, pool, documents)
  for seed in range(6):
    codes_NL, table, documents_BN = make_problem(seed)
    tables = tables_of(trie.build_trie(codes_NL, SIZES))
    found = search(table, documents_BN, tables, how=how)
    for query in range(BATCH):
      expected = reference(codes_NL, table[query], documents_BN[query], how)
      assert [tuple(row) for row in found.codes_BWL[query].tolist()] == [
        codes for codes, _ in expected
      ]
      np.testing.assert_allclose(
        found.scores_BW[query],
        np.array([score for _, score in expected]),
        rtol=1e-5,
      )


def test_beams_stand_in_the_order_of_their_own_scores():
  how = planning.Planning(5.0, 4, 4)
  codes_NL, table, documents_BN = make_problem(0)
  tables = tables_of(trie.build_trie(codes_NL, SIZES))
  planned = search(table, documents_BN, tables, how=how)
  assert (jnp.diff(planned.scores_BW, axis=1) <= 0).all()
  plain = search(table, documents_BN, tables, how=None)
  assert (planned.codes_BWL != plain.codes_BWL).any()


@pytest.mark.parametrize('share', [0.1, 0.5, 1.0])
def test_hidden_documents_are_as_if_they_were_not_there(share):
  how = planning.Planning(2.0, 3, 4)
  codes_NL, table, documents_BN = make_problem(1)
  rng = np.random.default_rng(0)
  seen_N = rng.random(DOCUMENTS) < share
  built = trie.build_trie(codes_NL, SIZES)
  tables = tables_of(built)
  seen = visibility.visible(built, tables, seen_N[None], np.zeros(BATCH, int))
  found = search(table, documents_BN, tables, seen, how=how)
  alone = tables_of(trie.build_trie(codes_NL[seen_N], SIZES))
  expected = search(table, documents_BN[:, seen_N], alone, how=how)
  np.testing.assert_array_equal(found.codes_BWL, expected.codes_BWL)
  np.testing.assert_array_equal(found.scores_BW, expected.scores_BW)


@pytest.mark.parametrize('count', [0, 120, 249, 250])
def test_two_tries_are_as_one_where_all_documents_are_looked_at(count):
  how = planning.Planning(2.0, 3, DOCUMENTS)
  codes_NL, table, documents_BN = make_problem(2)
  whole = tables_of(trie.build_trie(codes_NL, SIZES))
  there = trie.build_trie(codes_NL[:count], SIZES)
  came = trie.build_trie(codes_NL[count:], SIZES)
  came = dataclasses.replace(came, documents=came.documents + np.int32(count))
  parts = tables_of(there), tables_of(came)
  found = search(table, documents_BN, parts, (None, None), how=how)
  expected = search(table, documents_BN, whole, how=how)
  np.testing.assert_array_equal(found.codes_BWL, expected.codes_BWL)
  np.testing.assert_array_equal(found.scores_BW, expected.scores_BW)


def test_rows_of_large_nodes_are_spread_without_overflow():
  starts = np.array([[0, 7, 5]], np.int32)
  sizes = np.array([[2_000_000_000, 1, 0]], np.int64)
  nodes = Nodes(jnp.asarray(starts), jnp.asarray((starts + sizes), jnp.int32))
  rows, some = planning.spread_rows(nodes, 8)
  odd = 2 * np.arange(8, dtype=np.int64) + 1
  np.testing.assert_array_equal(rows[0, 0], 2_000_000_000 * odd // 16)
  np.testing.assert_array_equal(rows[0, 1], np.full(8, 7))
  assert some.tolist() == [[True, True, False]]
