import numpy as np
import pytest

from gr_jax.evaluation.rankings import Rankings, canonical, concatenate
from gr_jax.types import NO_DOC, UserError

IDS = ['a', 'b', 'c', 'd']


def rankings(rows, scores):
  rows_BC = np.array(rows)
  zeros = np.zeros(len(rows_BC), np.int64)
  return Rankings(rows_BC, np.array(scores), zeros, zeros)


def test_ties_stand_by_descending_id_and_empty_places_last():
  ordered = canonical(
    rankings([[NO_DOC, 0, 2, 3, 1]], [[9.0, 5.0, 2.0, 2.0, 2.0]]), IDS
  )
  assert ordered.rows_BC.tolist() == [[0, 3, 2, 1, NO_DOC]]
  assert ordered.scores_BC.dtype == np.float32


def test_scores_equal_in_float32_are_tied():
  ordered = canonical(rankings([[0, 1]], [[1.0 + 1e-12, 1.0]]), IDS)
  assert ordered.rows_BC.tolist() == [[1, 0]]


def test_the_order_of_the_corpus_does_not_matter():
  rng = np.random.default_rng(0)
  ids = [f'd{n}' for n in range(30)]
  scores = rng.integers(0, 4, 30).astype(float)

  def ranked(order):
    rows = sorted(range(30), key=lambda row: -scores[order[row]])
    answer = canonical(
      rankings([rows], [[scores[order[row]] for row in rows]]),
      [ids[at] for at in order],
    )
    return [ids[order[row]] for row in answer.rows_BC[0]]

  assert ranked(np.arange(30)) == ranked(rng.permutation(30))


@pytest.mark.parametrize(
  ('rows', 'scores', 'message'),
  [
    ([[0, 0]], [[2.0, 1.0]], 'document row 0 twice'),
    ([[0, 1]], [[2.0, np.nan]], 'rank 2 should be finite, got nan'),
    ([[0, 1]], [[np.inf, 1.0]], 'rank 1 should be finite, got inf'),
    ([[0, 1]], [[1e300, 1.0]], 'should be finite'),
    ([[0, 4]], [[2.0, 1.0]], 'row 4 of 4 documents'),
    ([[-2, 1]], [[2.0, 1.0]], 'row -2 of 4 documents'),
    ([[0, 1]], [[1.0, 2.0]], 'rises after rank 1'),
    ([[0, 1]], [[1.0]], 'one shape'),
  ],
)
def test_bad_rankings_are_refused(rows, scores, message):
  with pytest.raises(UserError, match=message):
    canonical(rankings(rows, scores), IDS)


def test_nan_in_an_empty_place_is_no_score():
  ordered = canonical(rankings([[0, NO_DOC, NO_DOC]], [[1.0, np.nan, 7]]), IDS)
  assert ordered.rows_BC.tolist() == [[0, NO_DOC, NO_DOC]]


def test_concatenate_keeps_the_order():
  joined = concatenate(
    [rankings([[0]], [[1.0]]), rankings([[1], [2]], [[2.0], [3.0]])]
  )
  assert joined.rows_BC.tolist() == [[0], [1], [2]]
  assert joined.documents_scored_B.shape == (3,)
