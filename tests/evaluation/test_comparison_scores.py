"""Scores from one search: the measures of ir_measures, weights from dev."""

import numpy as np
import pytest

from gr_jax.evaluation import comparison_scores, judging, metrics
from gr_jax.evaluation.comparison_scores import Found
from gr_jax.evaluation.rankings import Rankings
from gr_jax.types import NO_DOC, Judgement, Query, UserError

# Byte order and numbers disagree: 'd10' stands before 'd9'.
IDS = [f'd{n}' for n in range(120)]


def random_split(rng, queries=40):
  judgements = [
    Judgement(f'q{query}', IDS[row], int(rng.integers(0, 4)))
    for query in range(queries)
    for row in rng.choice(len(IDS), 12, replace=False)
  ]
  # Graded, not relevant at all, and not even judged.
  judgements += [Judgement('nothing', 'd3', 0)]
  asked = [Query(f'q{query}', 'text') for query in range(queries)]
  return judging.Questions('dev', [*asked, Query('nothing', '')], judgements)


def test_measures_are_those_of_ir_measures():
  rng = np.random.default_rng(0)
  split = random_split(rng)
  asked = comparison_scores.judged(split, IDS)
  rows_BC = np.array([rng.permutation(len(IDS))[:110] for _ in asked.texts])
  rows_BC[::3, 60:] = NO_DOC
  rows_BC[5] = NO_DOC
  # Few distinct scores: ties everywhere.
  scores_BC = -np.sort(rng.integers(0, 9, rows_BC.shape), axis=1).astype(float)
  scored_B = np.zeros(len(rows_BC), np.int64)
  wanted = metrics.score(
    Rankings(rows_BC, scores_BC, scored_B, scored_B),
    asked.query_ids,
    IDS,
    split.judgements,
  ).values
  shuffle_BC = rng.permuted(np.tile(np.arange(110), (len(rows_BC), 1)), axis=1)
  found = comparison_scores.measures(
    np.take_along_axis(rows_BC, shuffle_BC, axis=1),
    np.take_along_axis(scores_BC, shuffle_BC, axis=1),
    asked,
  )
  assert set(found) == set(metrics.NAMES)
  for name in metrics.NAMES:
    np.testing.assert_allclose(found[name], wanted[name], atol=1e-6)


def test_weights_come_from_a_grid_and_the_first_of_equals_wins():
  split = judging.Questions(
    'dev', [Query('q', 'text')], [Judgement('q', 'd1', 1)]
  )
  asked = comparison_scores.judged(split, IDS)

  def fit(generative, dense, names=('R@1',)):
    found = Found(np.array([[0, 1]]), np.array([generative]), np.array([dense]))
    return comparison_scores.fit_weights(found, asked, names)

  assert fit([-9.0, -1.0], [0.1, 0.9]) == (0.0, 1.0)
  assert fit([-9.0, -1.0], [0.50, 0.49]) == (0.0025, 1.0)
  assert fit([-9.0, -1.0], [0.9, 0.5]) == (0.08, 1.0)
  assert fit([-2.0, -1.0], [0.9, 0.1]) == (1.0, 0.0)
  # A measure that is the same at all weights leaves the choice to the others.
  assert fit([-9.0, -1.0], [0.9, 0.5], ('R@10', 'R@1')) == (0.08, 1.0)
  assert fit([-9.0, -1.0], [0.9, 0.5], ('R@10',)) == (0.0, 1.0)


def test_a_smaller_budget_takes_the_first_candidates():
  rows_BC = np.arange(6).reshape(1, 6)
  found = Found(rows_BC, -rows_BC / 1.0, rows_BC / 1.0).first(2)
  assert found.documents_BC.tolist() == [[0, 1]]
  assert found.fused((0.5, 1.0)).tolist() == [[0.0, 0.5]]


def test_a_judged_document_that_no_run_knows_is_refused():
  split = judging.Questions(
    'dev', [Query('q', 'text')], [Judgement('q', 'gone', 1)]
  )
  with pytest.raises(UserError, match="judges document 'gone'"):
    comparison_scores.judged(split, IDS)
