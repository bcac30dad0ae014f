"""Steps: learning, accumulation, frozen parts, determinism, rates."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers.residual import ResidualConfig
from gr_jax.models.bert import BertConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.objectives.weighted_sum import ObjectiveSettings, only
from gr_jax.schedule import Schedule
from gr_jax.training.initial import init_params, make_state
from gr_jax.training.microbatches import in_parts
from gr_jax.training.optimizer import (
  OptimizerSettings,
  learning_rate,
  make_optimizer,
)
from gr_jax.training.stages import stage_objective, stage_optimizers
from gr_jax.training.state import TrainingSettings
from gr_jax.training.step import make_step
from gr_jax.types import UserError

STACK = T5Config(
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  num_encoder_layers=0,
  num_decoder_layers=1,
  mlp_dim=16,
  dropout_rate=0.0,
)
MODEL = Retriever(
  RetrieverConfig(
    encoder=BertConfig(
      vocab_size=20, emb_dim=8, num_heads=2, num_layers=1, mlp_dim=16
    ),
    indexer=ResidualConfig(positions=2, codes=4),
    decoder=CodeDecoderConfig(stack=STACK),
    width=8,
  )
)
SETTINGS = TrainingSettings(steps=50, noise=Schedule(0.0, kind='constant'))


def batch(rows=8):
  vectors = jax.random.normal(jax.random.key(0), (rows, 8))
  noise = 0.1 * jax.random.normal(jax.random.key(1), (rows, 8))
  return {
    'query_vectors': vectors + noise,
    'document_vectors': vectors,
    'document_index': jnp.arange(rows),
  }


@functools.cache
def drawn():
  params, _, usage = init_params(MODEL, 0, documents=8)
  return params, usage


def start(train_encoder=False, settings=SETTINGS):
  # A copy: steps donate what they are given.
  params, usage = jax.tree.map(jnp.copy, drawn())
  optimizer = make_optimizer(settings.optimizer, settings.steps)
  return make_state(params, usage, optimizer, train_encoder), optimizer


@functools.cache
def stepper(model, settings, objective):
  return make_step(
    model,
    optimizer=make_optimizer(settings.optimizer, settings.steps),
    settings=settings,
    objective_settings=objective,
    upkeep=None,
    seed=0,
  )


def run(settings, objective=None, steps=3):
  state, _ = start(settings=settings)
  step = stepper(MODEL, settings, objective or ObjectiveSettings())
  for _ in range(steps):
    state, metrics = step(state, batch())
  return state, metrics


def test_the_decoder_learns_the_codes():
  fast = dataclasses.replace(
    SETTINGS, optimizer=OptimizerSettings(learning_rate=0.02)
  )
  alone = only(ObjectiveSettings(), 'generation')
  step = stepper(MODEL, fast, alone)
  state, _ = start(settings=fast)
  # Queries that say nothing of their documents: geometry does not help.
  unrelated = batch() | {
    'query_vectors': jax.random.normal(jax.random.key(7), (8, 8))
  }
  losses = []
  for _ in range(SETTINGS.steps):
    state, metrics = step(state, unrelated)
    total, count = metrics['generation']
    losses.append(float(total) / float(count))
  assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
  assert int(state.step) == SETTINGS.steps


def test_the_frozen_encoder_stays_as_it_is():
  state, _ = start()
  before = jax.tree.map(np.asarray, state.frozen)
  assert set(before) == {'encoder', 'identifiers', 'query_means'}
  state, _ = run(SETTINGS)
  jax.tree.map(np.testing.assert_array_equal, before, state.frozen)
  assert set(state.all_params()) == set(start()[0].all_params())


def test_the_same_seed_gives_the_same_bits():
  noisy = dataclasses.replace(SETTINGS, noise=Schedule(0.5))
  first, second = run(noisy)[0], run(noisy)[0]
  jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_accumulation_is_the_mean_of_the_microbatches(monkeypatch):
  # How well a document's codes are written does not depend on who else is in
  # its batch, as long as nothing reaches codes that are scaled by the batch.
  config = dataclasses.replace(MODEL.config, indexer_gradient=0.0)
  monkeypatch.setitem(globals(), 'MODEL', Retriever(config))
  alone = only(ObjectiveSettings(), 'generation')
  whole, metrics = run(SETTINGS, alone)
  parts, split = run(dataclasses.replace(SETTINGS, accumulate=4), alone)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    whole.params,
    parts.params,
  )
  assert split['generation'][1] == metrics['generation'][1]


def test_the_dense_stage_leaves_codes_and_decoder_alone():
  state, _ = start()
  before = jax.tree.map(np.asarray, state.params)
  state, metrics = run(SETTINGS, stage_objective(ObjectiveSettings(), 'dense'))
  for part in ('indexer', 'decoder'):
    jax.tree.map(
      np.testing.assert_array_equal, before[part], state.params[part]
    )
  kernel = state.params['projection']['kernel']
  assert np.any(before['projection']['kernel'] != np.asarray(kernel))
  assert 'generation' not in metrics


@pytest.mark.parametrize('name', ['adamw', 'adafactor', 'lion'])
def test_every_optimizer_moves_every_part(name):
  settings = dataclasses.replace(
    SETTINGS, optimizer=OptimizerSettings(name=name, weight_decay=0.01)
  )
  before = start(settings=settings)[0].params
  before = jax.tree.map(np.asarray, before)
  after = run(settings)[0].params
  for part in before:
    moved = [
      np.any(a != np.asarray(b))
      for a, b in zip(
        jax.tree.leaves(before[part]),
        jax.tree.leaves(after[part]),
        strict=True,
      )
    ]
    assert any(moved), part


@pytest.mark.parametrize('name', ['adamw', 'adafactor', 'lion'])
def test_weight_decay_is_per_unit_of_rate(name):
  params = {'kernel': jnp.ones((2, 2)), 'scale': jnp.ones(2)}
  optimizer = make_optimizer(
    OptimizerSettings(
      name=name, learning_rate=0.1, warmup=0.5, weight_decay=0.01
    ),
    steps=2,
  )
  state = optimizer.init(params)
  zeros = jax.tree.map(jnp.zeros_like, params)
  # The rate of the first step is 0, that of the second the peak.
  for shrinks in (0.0, 0.1 * 0.01):
    updates, state = optimizer.update(zeros, state, params)
    np.testing.assert_allclose(updates['kernel'], -shrinks, atol=1e-7)
    np.testing.assert_allclose(updates['scale'], 0.0, atol=1e-7)


def test_an_unknown_optimizer_is_refused_with_a_near_miss():
  with pytest.raises(UserError, match="did you mean 'adamw'"):
    make_optimizer(OptimizerSettings(name='adam'), 10)


def test_each_part_has_its_rate_in_each_stage():
  """Updates in the stages, against those of a rate of 1 for everything."""
  rates = {'codebook_rate': 3.0, 'vector_rate': 0.5, 'decoder_rate': 2.0}
  params = {
    'encoder': {'kernel': jnp.ones((2, 2))},
    'projection': {'kernel': jnp.ones((2, 2))},
    'indexer': {'codebooks': jnp.ones((1, 2, 2)), 'keys': jnp.ones((2, 2))},
    'decoder': {'input': jnp.ones((2, 2)), 'output': {'kernel': jnp.ones(2)}},
  }
  gradients = jax.tree.map(lambda p: 0.1 * p, params)

  def updates(**rates):
    found = {}
    training = TrainingSettings(optimizer=OptimizerSettings(**rates))
    for stage, optimizer in stage_optimizers(training).items():
      state = optimizer.init(params)
      # The rate of a stage's first step is 0.
      _, state = optimizer.update(gradients, state, params)
      found[stage] = optimizer.update(gradients, state, params)[0]
    return found

  found, plain = updates(**rates), updates(vector_rate=1.0)['dense']
  factors = {
    'dense': {'codebooks': 3.0},
    'codes': {
      'encoder': 0.5, 'projection': 0.5, 'codebooks': 3.0, 'decoder': 2.0
    },
    'settled': {
      'encoder': 0.0, 'projection': 0.0, 'codebooks': 3.0, 'decoder': 2.0
    },
  }  # fmt: skip
  for stage, factor in factors.items():
    for path, update in jax.tree_util.tree_leaves_with_path(found[stage]):
      names = [key.key for key in path]
      one = functools.reduce(lambda tree, name: tree[name], names, plain)
      scale = factor.get(names[-1], factor.get(names[0], 1.0))
      assert np.all(one != 0)
      # Each stage has its own warm-up, and with it its own first rate.
      rate = stage_rate(stage) / stage_rate('dense')
      np.testing.assert_allclose(update, scale * rate * one, rtol=1e-5)


def stage_rate(stage):
  """The rate of the second step of a stage, with default settings."""
  training = TrainingSettings()
  first = training.first_steps
  settings = training.optimizer
  steps = {
    'dense': first['codes'],
    'codes': first['settled'] - first['codes'],
    'settled': training.round_steps,
  }[stage]
  return learning_rate(settings.learning_rate, settings.warmup, steps)(1)


def test_the_codebooks_have_a_rate_of_their_own():
  slow = dataclasses.replace(
    SETTINGS, optimizer=OptimizerSettings(codebook_rate=0.0)
  )
  before = np.asarray(start()[0].params['indexer']['codebooks'])
  state, _ = run(slow)
  np.testing.assert_array_equal(before, state.params['indexer']['codebooks'])


@pytest.mark.parametrize(
  'kind, values', [('linear', [1, 1, 0.5, 0, 0]), ('cosine', [1, 1, 0.5, 0, 0])]
)
def test_schedules_move_between_their_marks(kind, values):
  schedule = Schedule(1.0, 0.0, begin=0.2, finish=0.8, kind=kind)
  found = [float(schedule.at(done)) for done in (0.0, 0.2, 0.5, 0.8, 1.0)]
  np.testing.assert_allclose(found, values, atol=1e-6)


def test_the_rate_rises_then_falls_to_zero():
  rate = learning_rate(2.0, warmup=0.1, steps=100)
  assert rate(0) == 0
  assert rate(10) == pytest.approx(2.0)
  assert rate(5) == pytest.approx(1.0)
  assert rate(100) == pytest.approx(0, abs=1e-6)


def test_a_batch_that_is_not_cut_evenly_is_refused():
  with pytest.raises(UserError, match='20 rows has no 3 microbatches'):
    in_parts({'source': np.zeros(20)}, 3)
