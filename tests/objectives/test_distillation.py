"""Losses of rankings against plain transcriptions, pair by pair."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.objectives import distillation
from gr_jax.objectives.distillation import DistillationSettings, RankedLists
from gr_jax.types import UserError

BASE, GAP, LENGTH = 1.5, 0.5, 3
SETTINGS = DistillationSettings(
  base_margin=BASE, margin_gap=GAP, teacher_scale=0.5, prefix_bend=0.5
)


@st.composite
def lists(draw, size=5):
  """Ragged lists; some documents share an identifier with another."""
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  batch = draw(st.integers(1, 3))
  scores_BML = rng.normal(size=(batch, size, LENGTH)) * 2
  codes_BML = rng.integers(0, 2, (batch, size, LENGTH))
  # Equal identifiers have equal scores.
  for b in range(batch):
    of_codes = {}
    for m in range(size):
      key = tuple(codes_BML[b, m])
      scores_BML[b, m] = of_codes.setdefault(key, scores_BML[b, m])
  counts = rng.integers(0, size + 1, batch)
  return RankedLists(
    scores_BML=scores_BML,
    codes_BML=codes_BML,
    teacher_BM=-np.sort(-rng.normal(size=(batch, size)) * 3, axis=1),
    real_BM=np.arange(size)[None] < counts[:, None],
    dense_BM=rng.normal(size=(batch, size)),
  )


def identifiers(found, b):
  """What tells the score of each place from others': the place, if dense."""
  if found.teaching.dense_weight:
    return range(found.codes_BML.shape[1])
  return [tuple(codes_L) for codes_L in found.codes_BML[b]]


def pairs_of(found, b):
  """(i, j) with i above j that can differ."""
  names = identifiers(found, b)
  places = np.flatnonzero(found.real_BM[b])
  return [
    (i, j) for i in places for j in places if i < j and names[i] != names[j]
  ]


def once(found, b):
  """The first place of each identifier."""
  names, there = identifiers(found, b), set()
  return np.array(
    [
      place
      for place in np.flatnonzero(found.real_BM[b])
      if not (names[place] in there or there.add(names[place]))
    ],
    int,
  )


def plain_margin_rank(s, t, pairs, real, full):
  """The loop of the published code."""
  active = []
  for i, j in pairs:
    h = max(0.0, s[j] - s[i] + BASE + (j - i - 1) * GAP)
    weight = 3.0 if i == 0 else 1 / (i + 1)
    if weight * h > 0:
      active.append(weight * h)
  return sum(active) / len(active) if active else 0.0


def plain_ltrgr(s, t, pairs, real, full):
  losses = [s[j] - s[0] + BASE for i, j in pairs if i == 0]
  active = [loss for loss in losses if loss > 0]
  return sum(active) / len(active) if active else 0.0


def plain_ranknet(s, t, pairs, real, full):
  losses = [math.log1p(math.exp(s[j] - s[i])) for i, j in pairs]
  return sum(losses) / max(len(losses), 1)


def plain_lambda(s, t, pairs, real, full):
  counted = sorted({m for pair in pairs for m in pair})
  order = sorted(counted, key=lambda m: (-s[m], m))
  discount = {m: 1 / math.log2(order.index(m) + 2) for m in counted}
  gain = {m: 1 / math.log2(m + 2) for m in counted}
  total = sum(
    abs(discount[i] - discount[j])
    * abs(gain[i] - gain[j])
    * math.log1p(math.exp(s[j] - s[i]))
    for i, j in pairs
  )
  return total / max(sum(g * g for g in gain.values()), 1.0)


def softmax(values):
  powers = np.exp(np.asarray(values) - np.max(values))
  return powers / powers.sum()


def plain_kl(s, t, pairs, real, full):
  if not len(real):
    return 0.0
  wanted, found = softmax(0.5 * t[real]), softmax(s[real])
  return float(np.sum(wanted * (np.log(wanted) - np.log(found))))


def plain_listnet(s, t, pairs, real, full):
  if not len(real):
    return 0.0
  wanted = softmax(-0.5 * np.arange(len(real)))
  return float(-np.sum(wanted * np.log(softmax(s[real]))))


def plain_margin_mse(s, t, pairs, real, full):
  losses = [
    ((s[0] - s[j]) - 0.5 * (t[0] - t[j])) ** 2 for i, j in pairs if i == 0
  ]
  return sum(losses) / max(len(losses), 1)


def plain_prefix_margin_mse(s, t, pairs, real, full):
  losses = []
  for i, j in pairs:
    for length in range(1, LENGTH + 1) if i == 0 else ():
      alpha = (1 - 0.5 / length) / (1 - 0.5 / LENGTH)
      found = full[0, :length].sum() - full[j, :length].sum()
      losses.append((found - alpha * 0.5 * (t[0] - t[j])) ** 2)
  return sum(losses) / max(len(losses), 1)


PLAIN = {
  'margin_rank': plain_margin_rank,
  'ltrgr': plain_ltrgr,
  'ranknet': plain_ranknet,
  'lambda': plain_lambda,
  'kl': plain_kl,
  'listnet': plain_listnet,
  'margin_mse': plain_margin_mse,
  'prefix_margin_mse': plain_prefix_margin_mse,
}


def test_every_loss_has_a_transcription():
  assert PLAIN.keys() == set(distillation.LOSSES)


def measured(found, name, **changes):
  teaching = dataclasses.replace(SETTINGS, loss=name, **changes)
  return distillation.distillation_loss(found.replace(teaching=teaching))


def equal_their_loops(name, found, weight=0.0):
  with jax.enable_x64(True):
    loss, metrics = measured(found, name, dense_weight=weight)
  found = found.replace(teaching=DistillationSettings(dense_weight=weight))
  expected = []
  for b, scores_ML in enumerate(found.scores_BML):
    real = once(found, b)
    # A positive alone has nothing to stand before.
    real = real if len(real) > 1 else real[:0]
    pairs = pairs_of(found, b) if len(real) else []
    s = scores_ML.sum(axis=-1) + weight * found.dense_BM[b]
    expected.append(PLAIN[name](s, found.teacher_BM[b], pairs, real, scores_ML))
  assert float(loss) == pytest.approx(np.mean(expected), rel=1e-6, abs=1e-9)
  total, count = metrics[name]
  assert float(total) == pytest.approx(np.sum(expected), rel=1e-6, abs=1e-9)
  assert count == len(expected)


@pytest.mark.parametrize('name', PLAIN)
@settings(max_examples=25, deadline=None)
@given(found=lists())
def test_losses_equal_their_loops(name, found):
  equal_their_loops(name, found)


@pytest.mark.parametrize('name', sorted(PLAIN.keys() - {'prefix_margin_mse'}))
@settings(max_examples=5, deadline=None)
@given(found=lists())
def test_the_dense_score_puts_documents_of_one_identifier_in_order(name, found):
  equal_their_loops(name, found, weight=0.7)


@pytest.mark.parametrize('name', PLAIN)
def test_gradients_are_finite_differences(name):
  rng = np.random.default_rng(3)
  codes_BML = np.arange(2 * 5 * LENGTH).reshape(2, 5, LENGTH)
  found = RankedLists(
    scores_BML=rng.normal(size=(2, 5, LENGTH)),
    codes_BML=codes_BML,
    teacher_BM=-np.sort(rng.normal(size=(2, 5))),
    real_BM=np.array([[True] * 5, [True] * 3 + [False] * 2]),
  )
  with jax.enable_x64(True):

    def loss(scores_BML):
      return measured(found.replace(scores_BML=scores_BML), name)[0]

    slopes = np.asarray(jax.grad(loss)(jnp.asarray(found.scores_BML)))
    step = 1e-6
    for place in ((0, 0, 0), (0, 3, 1), (1, 2, 2), (1, 4, 0)):
      moved = np.zeros_like(found.scores_BML)
      moved[place] = step
      up, down = loss(found.scores_BML + moved), loss(found.scores_BML - moved)
      assert slopes[place] == pytest.approx(
        float(up - down) / (2 * step), rel=1e-4, abs=1e-7
      )
  assert np.any(slopes) and not np.any(slopes[1, 3:])


@pytest.mark.parametrize('name', PLAIN)
def test_lists_of_nothing_give_nothing(name):
  found = RankedLists(
    scores_BML=np.ones((2, 4, LENGTH), np.float32),
    codes_BML=np.zeros((2, 4, LENGTH), np.int32),
    teacher_BM=np.zeros((2, 4), np.float32),
    real_BM=np.array([[False] * 4, [True] + [False] * 3]),
  )
  loss, slopes = jax.value_and_grad(
    lambda s: measured(found.replace(scores_BML=s), name)[0]
  )(found.scores_BML)
  assert float(loss) == 0
  assert not np.any(slopes)


def test_a_list_that_is_no_longer_hard_counts_nothing():
  scores_BM = np.array([[5.0, 1.0, 0.5], [5.0, 4.0, 0.5]])
  found = RankedLists(
    scores_BML=np.repeat(scores_BM[..., None] / LENGTH, LENGTH, axis=-1),
    codes_BML=np.arange(2 * 3 * LENGTH).reshape(2, 3, LENGTH),
    teacher_BM=np.zeros((2, 3)),
    real_BM=np.ones((2, 3), bool),
  )
  loss, metrics = measured(found, 'ranknet', still_hard=True)
  alone, _ = measured(jax.tree.map(lambda x: x[1:], found), 'ranknet')
  assert float(loss) == pytest.approx(float(alone) / 2)
  assert metrics['list_accuracy'] == (2, 2)


TWINS = RankedLists(
  # The second has the identifier of the positive, the third that of the last.
  scores_BML=np.repeat([[[2.0], [2.0], [0.0], [0.0]]], LENGTH, axis=-1),
  codes_BML=np.array(
    [[[1] * LENGTH, [1] * LENGTH, [2] * LENGTH, [2] * LENGTH]]
  ),
  teacher_BM=np.array([[4.0, 3.0, 2.0, 1.0]]),
  real_BM=np.ones((1, 4), bool),
  dense_BM=np.zeros((1, 4)),
)


@pytest.mark.parametrize('name', PLAIN)
def test_a_list_whose_positive_shares_its_identifier_ends_being_hard(name):
  loss, metrics = measured(TWINS, name, still_hard=True)
  assert float(loss) == 0
  assert metrics['list_accuracy'] == (1, 1)
  if name != 'prefix_margin_mse':
    # The dense score might put the positive first, and does not yet.
    _, metrics = measured(TWINS, name, still_hard=True, dense_weight=1.0)
    assert metrics['list_accuracy'] == (0, 1)
    assert metrics[name][0] > 0


@pytest.mark.parametrize('name', PLAIN)
def test_documents_of_one_identifier_alone_teach_nothing(name):
  found = TWINS.replace(real_BM=np.array([[True, True, False, False]]))
  loss, metrics = measured(found, name)
  assert float(loss) == 0
  assert metrics['list_accuracy'] == (0, 1)


@pytest.mark.parametrize('name', ['kl', 'listnet'])
def test_of_one_identifier_the_first_document_is_followed(name):
  """As if the others were not in the list."""
  alone = jax.tree.map(lambda x: x[:, [0, 2]], TWINS)
  loss, _ = measured(TWINS, name)
  assert float(loss) == pytest.approx(float(measured(alone, name)[0]), rel=1e-6)


def test_the_dense_score_is_added():
  found = RankedLists(
    scores_BML=np.zeros((1, 3, LENGTH)),
    codes_BML=np.arange(3 * LENGTH).reshape(1, 3, LENGTH),
    teacher_BM=np.array([[2.0, 1.0, 0.0]]),
    real_BM=np.ones((1, 3), bool),
    dense_BM=np.array([[1.0, 0.0, -1.0]]),
  )
  loss, _ = measured(found, 'ranknet', dense_weight=2.0)
  expected = [math.log1p(math.exp(-2)), math.log1p(math.exp(-4))]
  assert float(loss) == pytest.approx((2 * expected[0] + expected[1]) / 3)


def test_unknown_losses_are_refused():
  with pytest.raises(UserError, match=r"not 'rank_net'.*mean 'ranknet'"):
    DistillationSettings(loss='rank_net')


def test_what_no_loss_reads_is_refused():
  with pytest.raises(UserError, match=r'dense_weight must be 0, got 0\.5'):
    DistillationSettings(loss='prefix_margin_mse', dense_weight=0.5)
  for scale in (0.0, -1.0):
    with pytest.raises(UserError, match='teacher_scale must be at least'):
      DistillationSettings(loss='kl', teacher_scale=scale)


@pytest.mark.parametrize('loss', ['margin_rank', 'ranknet'])
def test_documents_that_a_teacher_finds_alike_are_not_put_in_order(loss):
  """The last two: they may change places."""

  def value(scores_M):
    found = RankedLists(
      scores_BML=scores_M[None, :, None],
      codes_BML=np.arange(4)[None, :, None],
      teacher_BM=np.array([[0.0, 3.0, 1.0, 1.0]]),
      real_BM=np.ones((1, 4), bool),
      teaching=dataclasses.replace(SETTINGS, loss=loss, margin_gap=0.0),
    )
    return distillation.distillation_loss(found)[0]

  one, other = (
    value(jnp.array([9.0, 6, 0, 1])),
    value(jnp.array([9.0, 6, 1, 0])),
  )
  assert float(one) == pytest.approx(float(other), abs=1e-6)
