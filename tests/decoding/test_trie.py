"""The trie against sets and dictionaries of plain Python."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.decoding import mask, trie


@st.composite
def corpora(draw):
  """Codes [N, L] and code sizes: skewed, tiny, with duplicates."""
  sizes = draw(st.lists(st.integers(1, 70), min_size=1, max_size=4))
  documents = draw(st.integers(1, 40))
  skew = draw(st.sampled_from([1, 3, 20]))
  rng = np.random.default_rng(draw(st.integers(0, 2**31)))
  columns = [
    (size * rng.random(documents) ** skew).astype(np.int32) for size in sizes
  ]
  return np.stack(columns, axis=1), sizes


@settings(max_examples=60, deadline=None)
@given(corpora())
def test_leaves_hold_the_documents_of_an_identifier_in_corpus_order(corpus):
  codes_NL, sizes = corpus
  buckets = collections.defaultdict(list)
  for document, row in enumerate(codes_NL.tolist()):
    buckets[tuple(row)].append(document)
  built = trie.build_trie(codes_NL, sizes)
  bounds = built.leaf_offsets
  found = [
    built.leaf_documents[start:end].tolist()
    for start, end in itertools.pairwise(bounds)
  ]
  assert found == [buckets[row] for row in sorted(buckets)]


@settings(max_examples=40, deadline=None)
@given(corpora())
def test_walking_the_tables_reaches_exactly_the_prefixes(corpus):
  codes_NL, sizes = corpus
  tables = trie.build_trie(codes_NL, sizes).tables()
  reached = {(): 0}
  for level in range(len(sizes)):
    nodes = np.zeros((1, 40), np.int32)  # one shape: compiling is the cost
    nodes[0, : len(reached)] = list(reached.values())
    allowed = np.asarray(mask.allowed_codes(tables, nodes, 96))[0]
    beams, codes = np.nonzero(allowed[: len(reached)])
    chosen = np.zeros((1, 40), np.int32)
    chosen[0, : len(codes)] = codes
    parents = np.zeros((1, 40), np.int32)
    parents[0, : len(codes)] = nodes[0, beams]
    children = np.asarray(mask.child_nodes(tables, parents, chosen))[0]
    prefixes = list(reached)
    reached = {
      (*prefixes[beam], int(code)): int(child)
      for beam, code, child in zip(beams, codes, children, strict=False)
    }
    rows = codes_NL[:, : level + 1].tolist()
    assert set(reached) == {tuple(row) for row in rows}
    assert len(set(reached.values())) == len(reached)
  leaves = sorted(reached.values())
  assert leaves == list(
    range(int(tables.leaf_start), int(tables.leaf_start) + len(leaves))
  )


def test_row_order_does_not_change_the_tables():
  rng = np.random.default_rng(0)
  codes_NL = rng.integers(0, 9, (300, 3))
  order = rng.permutation(300)
  one = trie.build_trie(codes_NL, (9, 9, 9))
  two = trie.build_trie(codes_NL[order], (9, 9, 9))
  np.testing.assert_array_equal(one.bitmaps, two.bitmaps)
  np.testing.assert_array_equal(one.first_child, two.first_child)
  np.testing.assert_array_equal(one.leaf_offsets, two.leaf_offsets)


def test_identifiers_longer_than_one_sort_key():
  rng = np.random.default_rng(1)
  codes_NL = rng.integers(0, 65536, (200, 12))
  codes_NL[100:, :6] = codes_NL[:100, :6]
  built = trie.build_trie(codes_NL, [65536] * 12)
  expected = sorted(range(200), key=lambda row: tuple(codes_NL[row]))
  assert built.leaf_documents.tolist() == expected


@pytest.mark.parametrize(
  ('codes', 'sizes', 'message'),
  [
    ([[0, 3]], (2, 3), 'code 3 of document 0 at position 1'),
    ([[0, 1], [-1, 0]], (2, 3), 'code -1 of document 1 at position 0'),
    ([[0, 1]], (2, 3, 4), r'expected codes \[N, 3\]'),
    (np.zeros((0, 2), int), (2, 3), 'one document or more'),
  ],
)
def test_impossible_codes_are_refused(codes, sizes, message):
  with pytest.raises(ValueError, match=message):
    trie.build_trie(np.array(codes), sizes)


def test_capacity_has_eight_steps_an_octave():
  sizes = [trie.capacity(size) for size in range(1, 5000)]
  assert sizes == sorted(sizes)
  assert all(
    size <= room <= max(128, size * 1.125 + 1)
    for size, room in enumerate(sizes, start=1)
  )
  assert len(set(sizes)) < 50
