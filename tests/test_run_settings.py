"""Settings that would train nothing are refused; controls change one thing."""

import dataclasses
import pathlib

import pytest

from gr_jax.data.ranked_lists import ListSettings
from gr_jax.indexers.static import StaticConfig
from gr_jax.models.retriever import RetrieverConfig
from gr_jax.objectives.weighted_sum import ObjectiveSettings
from gr_jax.run_settings import RunSettings, control
from gr_jax.training.state import TrainingSettings
from gr_jax.types import UserError


@pytest.mark.parametrize(
  'changes, expected',
  [
    ({'steps': 0}, 'steps must be at least 1, got 0'),
    ({'accumulate': 0}, 'accumulate must be at least 1'),
    ({'evaluate_every': -1}, 'evaluate_every must be at least 0'),
    ({'dense_fraction': -0.1}, 'dense_fraction must be at least 0'),
    # Codebooks would never start.
    ({'dense_fraction': 1.0}, 'and below 1, got 1.0'),
  ],
)
def test_training_settings_out_of_range(changes, expected):
  with pytest.raises(UserError, match=expected):
    TrainingSettings(**changes)


@pytest.mark.parametrize(
  'settings, expected',
  [
    (
      {'training': TrainingSettings(settled_fraction=1.0, dense_fraction=0.0)},
      'leave steps for the codes',
    ),
    ({'training': TrainingSettings(settled_rounds=0)}, 'trained_run; name one'),
    ({'trained_run': 'runs/b'}, 'settled_fraction = 1.0'),
    ({'lists': ListSettings(path='a.jsonl')}, 'go together'),
    ({'objective': ObjectiveSettings(distillation=1.0)}, 'go together'),
    (
      {
        'objective': ObjectiveSettings(distillation=1.0),
        'lists': ListSettings(path='a'),
      },
      'distil from a',
    ),
    (
      {
        'objective': ObjectiveSettings(distillation=1.0),
        'lists': ListSettings(refresh_every=9),
        'trained_run': 'runs/b',
        'training': TrainingSettings(
          dense_fraction=0.0, settled_fraction=1.0, train_encoder=True
        ),
      },
      'refresh_every ranks by vectors of a frozen encoder',
    ),
  ],
)
def test_what_a_run_begins_with(settings, expected):
  with pytest.raises(UserError, match=expected):
    RunSettings('runs/a', **settings)


def test_a_dense_stage_needs_its_criterion():
  objective = ObjectiveSettings(bottleneck=0.0)
  with pytest.raises(UserError, match='dense_fraction = 0, or a weight'):
    RunSettings('runs/a', objective=objective)
  training = TrainingSettings(dense_fraction=0.0)
  RunSettings('runs/a', objective=objective, training=training)


@pytest.mark.parametrize(
  'name, needed',
  [
    ('agreement', 'reads_queries'),
    ('code_contrast', 'reads_queries'),
    ('reconstruction', 'reconstructs'),
  ],
)
def test_a_criterion_needs_what_it_reads(name, needed):
  objective = ObjectiveSettings(**{name: 0.1})
  with pytest.raises(UserError, match=f'RetrieverConfig.{needed} = True'):
    RunSettings('runs/a', objective=objective)
  model = RetrieverConfig(**{needed: True})
  RunSettings('runs/a', objective=objective, model=model)


def test_fixed_identifiers_are_not_read_on_queries():
  model = RetrieverConfig(indexer=StaticConfig('hash'), reads_queries=True)
  with pytest.raises(UserError, match="'hash' identifiers say nothing"):
    RunSettings('runs/a', model=model)


@pytest.mark.parametrize(
  'name, criteria',
  [
    ('random_ids', {'generation', 'bottleneck'}),
    ('dense_only', {'bottleneck'}),
  ],
)
def test_controls_keep_budget_data_and_decoder(name, criteria):
  run = RunSettings('runs/a', seed=3)
  changed = control(run, name, pathlib.Path('runs/a'))
  kept = {
    field.name
    for field in dataclasses.fields(ObjectiveSettings)
    if field.name != 'temperature' and getattr(changed.objective, field.name)
  }
  assert kept == criteria
  assert changed.training.steps == run.training.steps
  assert changed.training.settled_fraction == 0
  assert changed.loader == run.loader
  assert changed.model.decoder.stack == run.model.decoder.stack
  # Vectors, or a decoder of meaningless codes, learn all they can.
  rates = changed.training.optimizer
  if name == 'dense_only':
    assert rates.vector_rate == 1
    assert changed.model.decoder == run.model.decoder
  else:
    assert rates.decoder_rate == changed.model.decoder.correction == 1
  assert changed.cache_dir == str(pathlib.Path('runs/a').absolute())
  indexer = changed.model.indexer
  assert indexer.code_sizes == (128,) * 8
  fixed = isinstance(indexer, StaticConfig) and indexer.kind == 'random'
  assert fixed == (name == 'random_ids')
