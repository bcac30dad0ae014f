"""No n-gram stands in a query twice, against loops over all n-grams."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_query_sampling import (
  DOCUMENTS,
  END,
  KEYS,
  assert_frequencies,
  drawn,
  every_sequence,
  repeats,
)

from gr_jax.querygen.repeats import repeating_tokens
from gr_jax.querygen.sampling import SamplingSettings

# Three words, so that most sequences of so many repeat something.
LONGEST = 5


@pytest.mark.parametrize('n, first', [(1, 0), (2, 0), (3, 0), (4, 2), (9, 0)])
def test_tokens_that_complete_an_ngram_again(n, first):
  rows, length, size = 50, 8, 4
  tokens_RL = np.random.default_rng(n).integers(1, size, (rows, length))
  program = jax.jit(
    functools.partial(repeating_tokens, n=n, first=first, size=size)
  )
  total = 0
  for position in range(length):
    found_RV = program(jnp.asarray(tokens_RL), jnp.int32(position))
    expected_RV = np.array(
      [
        [repeats([*row[first:position], token], n) for token in range(size)]
        for row in tokens_RL.tolist()
      ]
    )
    np.testing.assert_array_equal(found_RV, expected_RV)
    total += expected_RV.sum()
  assert (total > 0) == (n < length)


@pytest.mark.parametrize(
  'settings',
  [
    {'no_repeat_ngram': 1, 'top_p': 1.0},
    {'no_repeat_ngram': 2, 'top_p': 0.9},
    {'no_repeat_ngram': 2, 'top_p': 1.0, 'top_k': 2},
  ],
)
def test_what_is_left_is_drawn_as_often_as_it_should(settings):
  assert_frequencies(SamplingSettings(**settings), LONGEST)


def repeated(sequence, n):
  """Whether some n-gram of it stands in a sequence twice."""
  return any(repeats(sequence[:end], n) for end in range(len(sequence) + 1))


@pytest.mark.parametrize('n', [0, 1, 2, 3])
def test_a_wide_beam_finds_the_best_that_repeat_nothing(n):
  # As many as are under way at most.
  width = 3 ** (LONGEST - 1)
  found_BWL, log_probs_BW = drawn(
    DOCUMENTS,
    KEYS,
    queries=width,
    method='beam',
    max_tokens=LONGEST,
    no_repeat_ngram=n,
  )
  every = every_sequence(LONGEST)
  allowed = [s for s in every if not repeated(s, n)]
  assert (len(allowed) < len(every)) == (n > 0)
  for document in range(2):
    totals = {s: every[s][document].sum() for s in allowed}
    best = sorted(totals, key=lambda s: -totals[s] / (len(s) + 1))[:width]
    found = [tuple(int(t) for t in row if t) for row in found_BWL[document]]
    assert found == best + [()] * (width - len(best))
    np.testing.assert_allclose(
      log_probs_BW[document, : len(best)],
      [totals[s] for s in best],
      rtol=1e-4,
      atol=1e-4,
    )


@pytest.mark.parametrize('method', ['sample', 'beam'])
def test_a_prefix_does_not_count(method):
  """Nor does it stop where it repeats itself."""
  found_BWL, _ = drawn(
    DOCUMENTS,
    KEYS,
    queries=40 if method == 'sample' else 3,
    method=method,
    prefix=(5, 5),
    max_tokens=6,
    min_tokens=3,
    no_repeat_ngram=1,
  )
  assert (found_BWL[:, :, :2] == 5).all()
  # Each of the three words once, in some order.
  assert (np.sort(found_BWL[:, :, 2:5]) == [[[1, 4, 5]]]).all()


@pytest.mark.parametrize('method', ['sample', 'beam'])
def test_what_repeats_comes_where_nothing_else_may(method):
  found_BWL, _ = drawn(
    DOCUMENTS,
    KEYS,
    queries=5,
    method=method,
    max_tokens=6,
    min_tokens=5,
    no_repeat_ngram=1,
  )
  words_BWL = found_BWL[:, :, :5]
  assert np.isin(words_BWL, (1, 4, 5)).all() and not (words_BWL == END).any()
  assert (np.sort(words_BWL[:, :, :3]) == [[[1, 4, 5]]]).all()
