"""Identifiers of a whole corpus: room, stability, and nearest otherwise."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr_jax.indexers.settling import capacity, settle


def asked(seed, documents, identifiers, beams):
  """Candidates of each document, the nearest first, and their costs."""
  rng = np.random.default_rng(seed)
  costs = rng.uniform(size=(documents, identifiers))
  # Some are wanted by nearly everybody.
  costs *= rng.uniform(0.2, 1, size=identifiers)
  order = np.argsort(costs, axis=1)[:, :beams]
  codes = np.stack([order // 4, order % 4], axis=-1)
  return codes.astype(np.int32), np.take_along_axis(costs, order, axis=1)


sizes = given(
  seed=st.integers(0, 1000),
  documents=st.integers(1, 40),
  beams=st.integers(1, 12),
  most=st.integers(1, 5),
)


@sizes
def test_no_identifier_that_a_document_would_rather_have_has_room(
  seed, documents, beams, most
):
  codes, costs = asked(seed, documents, 12, beams)
  given_codes = settle(codes, costs, most)
  places, held = [], collections.defaultdict(list)
  for row, wanted in enumerate(given_codes):
    (place,) = np.flatnonzero(np.all(codes[row] == wanted, axis=1))
    places.append(place)
    held[tuple(wanted)].append(costs[row, place])
  for row, place in enumerate(places):
    for nearer in range(place):
      others = sorted(held[tuple(codes[row, nearer])])
      assert len(others) >= most
      assert others[most - 1] <= costs[row, nearer]


@sizes
def test_identifiers_hold_no_more_than_they_take(seed, documents, beams, most):
  codes, costs = asked(seed, documents, 12, 12)
  _, counts = np.unique(settle(codes, costs, most), axis=0, return_counts=True)
  # Twelve identifiers are all candidates: nobody goes without room, where
  # there is room for all.
  if documents <= 12 * most:
    assert counts.max() <= most


def test_who_finds_no_room_gets_the_nearest():
  codes = np.array([[[0, 0]], [[0, 0]], [[0, 0]]])
  costs = np.array([[0.3], [0.1], [0.2]])
  np.testing.assert_array_equal(settle(codes, costs, 1), np.zeros((3, 2)))


def test_the_nearer_document_keeps_an_identifier():
  codes = np.array([[[0, 0], [0, 1]], [[0, 0], [1, 1]]])
  costs = np.array([[0.3, 0.4], [0.1, 0.9]])
  np.testing.assert_array_equal(settle(codes, costs, 1), [[0, 1], [0, 0]])


def test_with_room_for_all_everybody_gets_the_nearest():
  codes, costs = asked(0, 30, 12, 3)
  np.testing.assert_array_equal(settle(codes, costs, 30), codes[:, 0])


@pytest.mark.parametrize(
  'documents, sizes, room, most',
  [
    (5000, (32,) * 4, 2.0, 1),
    (5000, (10, 10), 2.0, 100),
    (5000, (10, 10), 1.01, 51),
    (5000, (10, 10), 0.0, 5000),
    (7, (3, 2), 1.0, 2),
  ],
)
def test_room_is_in_units_of_an_even_share(documents, sizes, room, most):
  assert capacity(documents, sizes, room) == most
