"""The trie against sets and dictionaries of plain Python."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.decoding import sorting, trie


@st.composite
def corpora(draw):
  """Codes [N, L] and code sizes: skewed, tiny, with duplicates."""
  sizes = draw(
    st.lists(st.sampled_from([1, 2, 9, 70, 600]), min_size=1, max_size=4)
  )
  documents = draw(st.integers(1, 150))
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
  bounds = [*built.leaf_starts, len(built)]
  found = [
    built.documents[start:end].tolist()
    for start, end in itertools.pairwise(bounds)
  ]
  assert found == [buckets[row] for row in sorted(buckets)]
  np.testing.assert_array_equal(codes_NL[built.documents].T, built.columns)


@settings(max_examples=60, deadline=None)
@given(corpora())
def test_wide_nodes_list_their_children(corpus):
  codes_NL, sizes = corpus
  built = trie.build_trie(codes_NL, sizes)
  rows = sorted(map(tuple, codes_NL.tolist()))
  wide = []
  for level, size in enumerate(sizes):
    first_row = {}
    for row, codes in enumerate(rows):
      first_row.setdefault(codes[:level], row)
    for prefix, start in sorted(first_row.items()):
      beneath = [codes for codes in rows if codes[:level] == prefix]
      # The root counts as wide, and as dense, whatever it has.
      if level and len(beneath) <= trie.SCANNED_ROWS:
        continue
      number = built.wide_nodes[level, start // trie.SCANNED_ROWS]
      assert number == len(wide)
      wide.append(number)
      children = slice(*built.child_offsets[number : number + 2])
      codes = sorted({codes[level] for codes in beneath})
      assert built.child_codes[children].tolist() == codes
      assert built.child_starts[children].tolist() == [
        start + [row[level] for row in beneath].index(code) for code in codes
      ]
      place = built.bitmap_rows[number]
      dense = not level or max(len(codes), 16) * 16 >= size
      assert (place >= 0) == dense
      if place >= 0:
        bits = np.unpackbits(
          built.bitmaps[place].view(np.uint8), bitorder='little'
        )
        assert np.flatnonzero(bits).tolist() == codes
  assert np.sum(built.wide_nodes >= 0) == len(wide) == len(built.bitmap_rows)
  assert np.sum(built.bitmap_rows >= 0) == len(built.bitmaps)


def test_row_order_does_not_change_the_tables():
  rng = np.random.default_rng(0)
  codes_NL = rng.integers(0, 9, (300, 3))
  order = rng.permutation(300)
  one = trie.build_trie(codes_NL, (9, 9, 9))
  two = trie.build_trie(codes_NL[order], (9, 9, 9))
  for name in set(trie.ARRAYS) - {'documents'}:
    np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_identifiers_longer_than_one_sort_key():
  rng = np.random.default_rng(1)
  codes_NL = rng.integers(0, 65536, (200, 12))
  codes_NL[100:, :6] = codes_NL[:100, :6]
  built = trie.build_trie(codes_NL, [65536] * 12)
  expected = sorted(range(200), key=lambda row: tuple(codes_NL[row]))
  assert built.documents.tolist() == expected


def test_a_trie_of_nothing_and_room_for_any():
  nothing = trie.build_trie(np.zeros((0, 3), int), (5, 300, 7))
  assert (
    len(nothing) == len(nothing.leaf_starts) == len(nothing.child_ends) == 0
  )
  rng = np.random.default_rng(0)
  for sizes in ((5, 300, 7), (600, 600, 600)):
    room = trie.Room.of_any(1000, sizes)
    for skew in (0, 1, 4, 20):
      for count in (1, 999, 1000):
        codes_NL = (sizes * rng.random((count, 3)) ** skew).astype(int)
        codes_NL = np.minimum(codes_NL, np.array(sizes) - 1)
        built = trie.build_trie(codes_NL, sizes)
        assert room.holds(built.room)
        shapes = {array.shape for array in built.tables(room).columns}
        assert shapes == {(room.rows,)}
  assert room.grown(0.3).holds(room) and not room.holds(room.grown(0.3))


@settings(max_examples=60, deadline=None)
@given(
  st.lists(st.sampled_from([1, 3, 300, 65536, 2**31]), min_size=1, max_size=9),
  st.sampled_from([1, 2, 3000]),
  st.sampled_from([1, 30, 200]),
  st.integers(0, 2**31),
)
def test_rows_are_sorted_whatever_ties_there_are(sizes, documents, skew, seed):
  rng = np.random.default_rng(seed)
  drawn_NL = rng.random((documents, len(sizes))) ** skew
  codes_NL = (drawn_NL * sizes).astype(np.int64)
  codes_NL[rng.random(documents) < 0.5] = codes_NL[0]
  expected = sorted(range(documents), key=lambda row: tuple(codes_NL[row]))
  assert sorting.sorted_rows(codes_NL, sizes).tolist() == expected


def test_blocks_do_not_show(monkeypatch):
  rng = np.random.default_rng(2)
  codes_NL = (rng.random((3000, 3)) ** 3 * 600).astype(int)
  one = trie.build_trie(codes_NL, (600, 600, 600))
  monkeypatch.setattr(sorting, '_BLOCK', 7)
  two = trie.build_trie(codes_NL, (600, 600, 600))
  for name in trie.ARRAYS:
    np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize('documents', [2_013_265_793, 2**31 - 1, 2**32 + 5])
def test_more_documents_than_32_bits_number_are_refused(documents):
  codes_NL = np.broadcast_to(np.zeros((1, 1), np.uint8), (documents, 1))
  with pytest.raises(ValueError, match=f'{documents} documents need 64-bit'):
    trie.build_trie(codes_NL, (2,))


def test_more_children_than_32_bits_number_are_refused(monkeypatch):
  # At each position some rows leave with a code of their own.
  codes_NL = np.zeros((128, 8), int)
  leaves = [15, *[16] * 6, 17]
  at = np.repeat(np.arange(8), leaves)
  codes_NL[np.arange(128), at] = np.concatenate([*map(np.arange, leaves)]) + 1
  children = len(trie.build_trie(codes_NL, (18,) * 8).child_codes)
  assert children == 135
  monkeypatch.setattr(trie, '_LARGEST', trie.capacity(2 * 128))
  with pytest.raises(ValueError, match='135 children of wide nodes need'):
    trie.build_trie(codes_NL, (18,) * 8)


@pytest.mark.parametrize(
  ('codes', 'sizes', 'message'),
  [
    ([[0, 3]], (2, 3), 'code 3 of document 0 at position 1'),
    ([[0, 1], [-1, 0]], (2, 3), 'code -1 of document 1 at position 0'),
    ([[0, 1]], (2, 3, 4), r'expected codes \[N, 3\]'),
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
