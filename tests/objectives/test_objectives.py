"""Criteria against closed forms and loops written out."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.objectives import weighted_sum
from gr_jax.objectives.commitment import commitment_loss
from gr_jax.objectives.consistency import consistency_loss
from gr_jax.objectives.contrastive import info_nce_loss
from gr_jax.objectives.generation import generation_loss
from gr_jax.objectives.optional import optional_criteria
from gr_jax.objectives.weighted_sum import ObjectiveSettings, objective, only
from gr_jax.schedule import Schedule

POSITIONS, CODES = 3, 4
# Criteria look at their own only when they are called.
NO_OUTPUTS = types.SimpleNamespace(
  assignment=None,
  uncertainty=None,
  query_vectors_BD=None,
  document_vectors_BD=None,
)


def one_hot(codes_BL):
  return jax.nn.one_hot(jnp.array(codes_BL), CODES)


def unit(seed, rows=5, width=8):
  vectors = jax.random.normal(jax.random.key(seed), (rows, width))
  return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def test_generation_is_the_cross_entropy_of_every_position():
  scores = jax.random.normal(jax.random.key(0), (5, POSITIONS, CODES))
  codes = jax.random.randint(jax.random.key(1), (5, POSITIONS), 0, CODES)
  value, metrics = generation_loss(scores, one_hot(codes), codes)
  expected = 0.0
  for b in range(5):
    for t in range(POSITIONS):
      row = np.asarray(scores[b, t], np.float64)
      expected += np.log(np.exp(row).sum()) - row[codes[b, t]]
  assert value == pytest.approx(expected / 5, rel=1e-5)
  assert metrics['generation'][0] == pytest.approx(expected, rel=1e-5)
  hits = np.mean(np.argmax(scores, -1) == codes)
  total, count = metrics['code_accuracy']
  assert total / count == pytest.approx(hits)


def test_info_nce_leaves_out_repeats_of_a_document():
  queries, vectors = unit(0), unit(1)
  documents = jnp.array([0, 1, 1, 2, 3])
  more, of_more = unit(2), jnp.array([1, 7, -1, 0, 9])
  alone = info_nce_loss(queries, vectors, documents, 0.1, 'dense')
  joined = info_nce_loss(
    queries, vectors, documents, 0.1, 'dense', more, of_more
  )
  # Further negatives, but none that is -1 or the query's own document.
  for (value, metrics), extra in ((alone, []), (joined, of_more.tolist())):
    losses, hits = [], []
    for b in range(5):
      rows = [c for c in range(5) if c == b or documents[c] != documents[b]]
      kept = [vectors[c] for c in rows]
      kept += [
        more[x] for x, d in enumerate(extra) if d not in (-1, documents[b])
      ]
      scores = np.asarray(jnp.stack(kept) @ queries[b], np.float64) / 0.1
      own = scores[rows.index(b)]
      losses.append(np.log(np.exp(scores).sum()) - own)
      hits.append(own == scores.max())
    assert value == pytest.approx(np.mean(losses), rel=1e-4)
    assert set(metrics) == {'dense', 'dense_accuracy'}
    assert metrics['dense_accuracy'][0] == sum(hits)


def prefixes_that_are(vectors_BD):
  """[B, 3, D] codewords whose every prefix stands for these vectors."""
  return jnp.pad(vectors_BD[:, None], ((0, 0), (0, 2), (0, 0)))


def test_consistency_is_zero_when_codes_say_what_vectors_say():
  queries, vectors, documents = unit(0), unit(1), jnp.arange(5)
  same, other = (
    consistency_loss(
      queries, vectors, prefixes_that_are(codes), documents, 0.1
    )[0]
    for codes in (vectors, unit(2))
  )
  assert same == pytest.approx(0, abs=1e-5)
  assert other > 0.1


def test_consistency_asks_the_whole_identifier_and_each_prefix():
  queries, vectors = np.asarray(unit(0)), np.asarray(unit(1))
  codewords = 0.5 * jax.random.normal(jax.random.key(2), (5, POSITIONS, 8))
  documents = np.array([0, 1, 1, 2, 3])

  def log_distribution(scores, b):
    kept = [c for c in range(5) if c == b or documents[c] != documents[b]]
    return scores[kept] - np.log(np.exp(scores[kept]).sum())

  total = 0.0
  for b in range(5):
    dense = log_distribution(vectors @ queries[b] / 0.1, b)
    divergences = []
    for t in range(1, POSITIONS + 1):
      prefixes = np.asarray(codewords)[:, :t].sum(axis=1)
      distances = np.sum((prefixes - queries[b]) ** 2, axis=-1)
      quantised = log_distribution(-distances / 0.2, b)
      divergences.append(np.sum(np.exp(dense) * (dense - quantised)))
    total += (divergences[-1] + np.mean(divergences)) / 2
  value, metrics = consistency_loss(
    queries, vectors, codewords, jnp.asarray(documents), 0.1
  )
  assert value == pytest.approx(total / 5, rel=1e-4)
  assert metrics['consistency'][0] == pytest.approx(total, rel=1e-4)


def test_consistency_moves_the_codes_and_not_their_teacher():
  queries, documents = unit(0), jnp.arange(5)
  gradients = jax.grad(
    lambda dense, codes: consistency_loss(
      queries, dense, codes, documents, 0.1
    )[0],
    argnums=(0, 1),
  )(unit(1), prefixes_that_are(unit(2)))
  assert np.all(np.asarray(gradients[0]) == 0)
  assert np.any(np.abs(gradients[1]) > 1e-3)


def test_commitment_pulls_both_sides_together():
  vectors, quantised = unit(0), unit(1)
  value, metrics = commitment_loss(vectors, quantised)
  distance = np.sum((np.asarray(vectors) - quantised) ** 2, axis=-1)
  assert value == pytest.approx(2 * float(np.mean(distance)), rel=1e-5)
  assert metrics['quantisation_error'][0] == pytest.approx(
    float(np.sum(distance)), rel=1e-5
  )
  pulls = jax.grad(lambda v, q: commitment_loss(v, q)[0], argnums=(0, 1))(
    vectors, quantised
  )
  np.testing.assert_allclose(pulls[0], -pulls[1], rtol=1e-5)


def test_every_weight_is_that_of_a_criterion():
  """`objective` passes over names that it does not know."""
  # Lists are there where a teacher is followed.
  outputs = types.SimpleNamespace(**vars(NO_OUTPUTS), lists=())
  arguments = outputs, None, (CODES,) * POSITIONS, 0.1
  known = {*weighted_sum._criteria(*arguments), *optional_criteria(*arguments)}
  settings = {field.name for field in dataclasses.fields(ObjectiveSettings)}
  assert known == settings - {'temperature'}


def test_the_criteria_that_are_on_by_default_are_not_the_optional_ones():
  arguments = NO_OUTPUTS, None, (CODES,) * POSITIONS, 0.1
  on = {
    field.name
    for field in dataclasses.fields(ObjectiveSettings)
    if field.name != 'temperature' and field.default
  }
  assert set(weighted_sum._criteria(*arguments)) == on
  assert not on & set(optional_criteria(*arguments))


def test_a_weight_may_be_a_schedule(monkeypatch):
  values = {'generation': 3.0, 'bottleneck': 5.0, 'density': 7.0}
  criteria = {
    name: (lambda name=name, value=value: (value, {name: (value, 1)}))
    for name, value in values.items()
  }
  monkeypatch.setattr(weighted_sum, '_criteria', lambda *_: criteria)
  monkeypatch.setattr(weighted_sum, 'optional_criteria', lambda *_: {})
  settings = dataclasses.replace(
    only(ObjectiveSettings(), 'generation'),
    bottleneck=Schedule(2.0, 0.0, begin=0.5),
  )
  for progress, weight in ((0.0, 2.0), (0.5, 2.0), (0.75, 1.0), (1.0, 0.0)):
    total, metrics = objective(None, None, None, settings, progress)
    assert total == pytest.approx(3.0 + weight * 5.0)
    assert set(metrics) == {'generation', 'bottleneck', 'loss'}
