import math

import numpy as np
import pytest

from gr_jax.evaluation.metrics import (
  NAMES,
  bootstrap_means,
  paired_bootstrap,
  score,
)
from gr_jax.evaluation.rankings import Rankings
from gr_jax.types import NO_DOC, Judgement, UserError


def rankings(rows):
  rows_BC = np.array(rows)
  scores_BC = np.broadcast_to(-np.arange(rows_BC.shape[1]), rows_BC.shape)
  zeros = np.zeros(len(rows_BC), np.int64)
  return Rankings(rows_BC, scores_BC, zeros, zeros)


def oracle(ranked, relevance):
  """The five measures in plain Python; trec_eval's nDCG has linear gains."""
  total = sum(value > 0 for value in relevance.values())
  hits = [relevance.get(document, 0) > 0 for document in ranked]
  first = hits[:10].index(True) + 1 if True in hits[:10] else math.inf
  gains = [max(relevance.get(document, 0), 0) for document in ranked[:10]]
  ideal = sorted((max(v, 0) for v in relevance.values()), reverse=True)[:10]

  def dcg(values):
    return sum(value / math.log2(n + 2) for n, value in enumerate(values))

  recall = {f'R@{k}': sum(hits[:k]) / total for k in (1, 10, 100)}
  return {**recall, 'RR@10': 1 / first, 'nDCG@10': dcg(gains) / dcg(ideal)}


def test_measures_equal_their_definitions():
  rng = np.random.default_rng(0)
  ids = [f'd{n}' for n in range(150)]
  rows = np.stack([rng.permutation(150)[:120] for _ in range(40)])
  judgements = [
    Judgement(f'q{q}', ids[d], int(rng.integers(1, 4)))
    for q in range(40)
    for d in rng.choice(150, rng.integers(1, 15), replace=False)
  ]
  found = score(rankings(rows), [f'q{q}' for q in range(40)], ids, judgements)
  assert NAMES == ('R@1', 'R@10', 'R@100', 'RR@10', 'nDCG@10')
  for q in range(40):
    relevance = {
      j.document_id: j.relevance for j in judgements if j.query_id == f'q{q}'
    }
    expected = oracle([ids[row] for row in rows[q, :100]], relevance)
    for name in NAMES:
      assert found.values[name][q] == pytest.approx(expected[name]), name
  assert found.means()['R@10'] == pytest.approx(found.values['R@10'].mean())


def test_queries_without_a_relevant_document_are_counted_not_averaged():
  judgements = [
    Judgement('found', 'a', 1),
    Judgement('missed', 'b', 1),
    Judgement('nothing relevant', 'a', 0),
  ]
  found = score(
    rankings([[0], [0], [0], [NO_DOC]]),
    ['found', 'nothing relevant', 'never judged', 'missed'],
    ['a', 'b'],
    judgements,
  )
  assert found.query_ids == ('found', 'missed')
  assert found.without_relevant == 2
  for name in NAMES:
    assert found.values[name].tolist() == [1.0, 0.0]


def test_recall_at_1_is_a_share_of_the_relevant_documents():
  judgements = [Judgement('q', 'a', 1), Judgement('q', 'b', 1)]
  found = score(rankings([[0, 1]]), ['q'], ['a', 'b'], judgements)
  assert found.means()['R@1'] == 0.5


def test_what_cannot_be_judged_is_refused():
  one = [Judgement('q', 'a', 1)]
  with pytest.raises(UserError, match='twice'):
    score(rankings([[0, 0]]), ['q'], ['a'], one)
  with pytest.raises(UserError, match='asked twice'):
    score(rankings([[0], [0]]), ['q', 'q'], ['a'], one)
  with pytest.raises(UserError, match='1 queries were asked and 2 answered'):
    score(rankings([[0], [0]]), ['q'], ['a'], one)
  with pytest.raises(UserError, match='none of the 1 queries'):
    score(rankings([[0]]), ['other'], ['a'], one)


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
  rng = np.random.default_rng(1)
  covered = 0
  for trial in range(200):
    a = rng.normal(0.3, 1.0, 80)
    b = np.zeros(80)
    interval = paired_bootstrap(a, b, seed=trial, samples=400)
    covered += interval.low <= 0.3 <= interval.high
  assert 175 <= covered <= 200


def test_bootstrap_is_paired_and_repeatable():
  rng = np.random.default_rng(2)
  shared = rng.normal(0, 10, 300)
  # Unpaired, the spread of the queries would hide this difference.
  interval = paired_bootstrap(shared + 0.1, shared, seed=3, samples=500)
  assert interval.low == pytest.approx(0.1)
  assert interval.high == pytest.approx(0.1)
  a, b = rng.random((2, 50))
  assert paired_bootstrap(a, b, 4, 300) == paired_bootstrap(a, b, 4, 300)
  assert paired_bootstrap(a, b, 4, 300) != paired_bootstrap(a, b, 5, 300)
  with pytest.raises(UserError, match='same queries'):
    paired_bootstrap(a, b[:-1])


def test_bootstrap_over_seeds_pairs_them_and_counts_their_spread():
  rng = np.random.default_rng(5)
  shared = rng.normal(0, 10, (3, 200))
  # The same shift for each seed, each with another level of its own.
  shift = paired_bootstrap(shared + 0.1, shared, samples=500)
  assert shift.low == pytest.approx(0.1)
  assert shift.high == pytest.approx(0.1)
  same = paired_bootstrap(shared, shared, samples=500)
  assert (same.mean, same.low, same.high) == (0, 0, 0)
  # Seeds paired across each other would not see a constant shift.
  wrong = paired_bootstrap(shared + 0.1, shared[::-1], samples=500)
  assert wrong.high - wrong.low > 0.5
  # What differs from seed to seed widens the interval, as queries alone do not.
  noise = rng.normal(0, 0.1, (3, 200))
  by_seed = noise + np.array([[-1.0], [0.0], [1.0]])
  zero = np.zeros((3, 200))
  interval = paired_bootstrap(by_seed, zero, samples=2000)
  assert interval.low < -0.5 and interval.high > 0.5
  flat = paired_bootstrap(by_seed.mean(axis=0), zero[0], samples=2000)
  assert flat.high - flat.low < 0.1


def test_many_intervals_are_those_of_each():
  rng = np.random.default_rng(6)
  one, two = rng.random((2, 90)), rng.random((1, 90)) - 2
  both = bootstrap_means([one, two], seed=1, samples=3000)
  assert both[0].mean == pytest.approx(one.mean())
  assert both[1].mean == pytest.approx(two.mean())
  assert both[1].high < 0 < both[0].low
  alone = paired_bootstrap(two[0], np.zeros(90), seed=1, samples=3000)
  assert (both[1].low, both[1].high) == pytest.approx((alone.low, alone.high))
