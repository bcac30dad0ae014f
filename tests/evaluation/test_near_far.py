import random

import numpy as np
import pytest

from gr_jax.evaluation.near_far import halves, word_overlaps


def test_word_overlaps_are_those_of_brute_force():
  draw = random.Random(0)

  def texts(count):
    return [
      ' '.join(draw.choices('aBcdef?', k=draw.randint(1, 5)))
      for _ in range(count)
    ]

  asked, trained = texts(40), texts(30)

  def overlap(one, other):
    one, other = (set(x.lower().replace('?', '').split()) for x in (one, other))
    return len(one & other) / max(len(one | other), 1)

  expected = [max(overlap(text, each) for each in trained) for text in asked]
  assert word_overlaps(asked, trained).tolist() == pytest.approx(expected)


def test_halves_by_words_and_by_vectors():
  asked = ['a b', 'x y', 'a b c', 'z']
  by_words = halves(asked, ['a b', 'c'], None)
  assert by_words['near'].tolist() == [True, False, True, False]
  assert by_words['far'].tolist() == [False, True, False, True]

  def encode(texts):
    angles_B = np.array([len(text) / 10 for text in texts])
    return np.stack([np.cos(angles_B), np.sin(angles_B)], 1).astype(np.float32)

  # The trained ones have three letters and one.
  by_vectors = halves(['1234567', '123', '12345', '1'], ['a b', 'c'], encode)
  assert by_vectors['near'].tolist() == [False, True, False, True]


def test_an_only_query_is_near():
  assert list(halves(['a'], ['b'], None)) == ['near']
