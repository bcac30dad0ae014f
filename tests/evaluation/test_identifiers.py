import collections
import itertools
import math

import numpy as np
import pytest

from gr_jax.evaluation.identifiers import gini, identifier_statistics
from gr_jax.types import UserError


def test_uniform_codes_fill_the_space():
  codes_NL = np.array(list(itertools.product(range(4), range(4), range(4))))
  found = identifier_statistics(codes_NL, [4, 4, 4])
  assert found.uniqueness == 1
  assert found.position_entropy == pytest.approx((1, 1, 1))
  assert found.sequence_entropy == pytest.approx(1)
  assert found.documents_per_id == {'mean': 1, 'p99': 1, 'max': 1}
  assert found.dead_codes == 0
  assert found.gini == pytest.approx(0)


def test_equal_codes_are_a_collapse():
  found = identifier_statistics(np.full((50, 3), 2), [4, 8, 1000])
  assert found.identifiers == 1
  assert found.uniqueness == pytest.approx(1 / 50)
  assert found.position_entropy == (0, 0, 0)
  assert found.sequence_entropy == 0
  assert found.documents_per_id == {'mean': 50, 'p99': 50, 'max': 50}
  assert found.dead_codes_per_position == (3, 7, 999)
  assert found.dead_codes == 1009


def test_copies_of_a_position_hide_from_position_entropy_only():
  first_N = np.arange(512) % 8
  found = identifier_statistics(np.stack([first_N] * 4, axis=1), [8] * 4)
  assert found.position_entropy == pytest.approx((1, 1, 1, 1))
  assert found.uniqueness == pytest.approx(8 / 512)
  assert found.sequence_entropy == pytest.approx(math.log(8) / math.log(512))


def test_statistics_equal_brute_force():
  rng = np.random.default_rng(0)
  sizes = (5, 3, 7)
  codes_NL = np.stack(
    [np.minimum(rng.geometric(0.4, 300), k) - 1 for k in sizes], axis=1
  )
  found = identifier_statistics(codes_NL, sizes)
  counts = collections.Counter(map(tuple, codes_NL.tolist()))

  def entropy(counter):
    return -sum(n / 300 * math.log(n / 300) for n in counter.values())

  assert found.identifiers == len(counts)
  assert found.sequence_entropy == pytest.approx(
    entropy(counts) / math.log(min(300, 5 * 3 * 7))
  )
  for position, size in enumerate(sizes):
    usage = collections.Counter(codes_NL[:, position].tolist())
    assert found.position_entropy[position] == pytest.approx(
      entropy(usage) / math.log(size)
    )
    assert found.dead_codes_per_position[position] == size - len(usage)
  held = sorted(counts.values())
  assert found.documents_per_id['max'] == held[-1]
  assert found.documents_per_id['mean'] == pytest.approx(300 / len(held))
  differences = sum(abs(a - b) for a in held for b in held)
  assert found.gini == pytest.approx(differences / (2 * len(held) * 300))


def test_one_code_or_one_document_is_full_use():
  found = identifier_statistics(np.zeros((1, 2), int), [1, 4])
  assert found.position_entropy == (1, 0)
  assert found.sequence_entropy == 1


def test_spaces_too_large_for_an_integer():
  codes_NL = np.arange(100)[:, None] * np.ones((1, 32), int)
  found = identifier_statistics(codes_NL, [1024] * 32)
  assert found.sequence_entropy == pytest.approx(1)


def test_gini_closed_form():
  # One of n holds nearly everything: (n - 1) / n in the limit.
  assert gini(np.array([1, 1, 1, 10**9])) == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize(
  ('codes', 'sizes', 'message'),
  [
    ([[0, 4]], [4, 4], 'position 1 should lie in 0..3, got 4'),
    ([[-1, 0]], [4, 4], 'position 0 should lie in 0..3, got -1'),
    ([[0, 0]], [4], '2 positions and sizes are given for 1'),
    ([0, 1], [4], 'shape'),
    (np.zeros((0, 2), int), [4, 4], 'at least one'),
  ],
)
def test_bad_codes_are_refused(codes, sizes, message):
  with pytest.raises(UserError, match=message):
    identifier_statistics(np.array(codes), sizes)
