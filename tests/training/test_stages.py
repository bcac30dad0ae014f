"""What the last stage begins with: identifiers for the whole corpus."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from test_step import MODEL, SETTINGS, batch, start

from gr_jax.data.ranked_lists import ListSettings
from gr_jax.indexers.numberings import number_identifiers
from gr_jax.indexers.static import StaticConfig
from gr_jax.models.retriever import Retriever
from gr_jax.objectives.weighted_sum import ObjectiveSettings
from gr_jax.training.initial import init_params, make_state
from gr_jax.training.stages import begin_stage, stage_objective, stages
from gr_jax.types import UserError

# Both would have [0, 1]; the second is nearer to it.
CODES = np.array([[[0, 1], [2, 3]], [[0, 1], [3, 3]]] * 4, np.int32)
COSTS = np.array([[0.2, 0.3], [0.1, 0.4]] * 4)


def begun(model, state, optimizer, room=8.0, rounds=1):
  config = dataclasses.replace(model.config, room=room)
  texts = types.SimpleNamespace(candidates=lambda params: (CODES, COSTS))
  training = dataclasses.replace(SETTINGS, settled_rounds=rounds)
  settings = types.SimpleNamespace(model=config, training=training)
  return begin_stage('settled', settings, texts, optimizer, state)


@pytest.mark.parametrize(
  'room, expected',
  [
    (0.0, [[0, 1]] * 8),
    # 8 documents, 16 identifiers: room for one each, and only three are asked.
    (2.0, [[2, 3], [0, 1], [0, 1], [3, 3], [0, 1], [0, 1], [0, 1], [0, 1]]),
  ],
)
def test_documents_get_the_nearest_identifier_with_room(room, expected):
  state, optimizer = start()
  after = begun(MODEL, state, optimizer, room)
  table = after.frozen['identifiers']['table']
  np.testing.assert_array_equal(table, expected)
  assert table.sharding == state.frozen['identifiers']['table'].sharding
  for name in ('params', 'usage', 'opt_state'):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(after, name), getattr(state, name)
    )


def test_static_kinds_keep_theirs():
  config = dataclasses.replace(
    MODEL.config, indexer=StaticConfig('random', positions=2, codes=4)
  )
  params, _, usage = init_params(Retriever(config), 0, documents=8)
  optimizer = start()[1]
  state = make_state(params, usage, optimizer, False)
  after = begun(Retriever(config), state, optimizer)
  np.testing.assert_array_equal(
    after.frozen['identifiers']['table'], state.frozen['identifiers']['table']
  )


def test_the_last_stage_moves_codewords_and_leaves_identifiers():
  training = dataclasses.replace(SETTINGS, steps=4)
  settings = types.SimpleNamespace(
    model=MODEL.config,
    training=training,
    objective=ObjectiveSettings(),
    lists=ListSettings(),
    seed=0,
  )
  state, optimizer = start(settings=training)
  state = begun(MODEL, state, optimizer)
  before = jax.tree.map(np.asarray, (state.params, state.frozen))
  *_, step = stages(
    MODEL, settings, None, dict.fromkeys(('codes', 'settled'), optimizer)
  )['settled']
  for _ in range(2):
    state, metrics = step(state, batch())
  assert 'quantised' in metrics and 'density' not in metrics
  jax.tree.map(np.testing.assert_array_equal, before[1], state.frozen)
  moved = np.any(
    before[0]['indexer']['codebooks'] != state.params['indexer']['codebooks'],
    axis=-1,
  )
  used = np.zeros((2, 4), bool)
  used[0, [0, 2]] = used[1, [1, 3]] = True
  np.testing.assert_array_equal(moved, used)


def test_what_says_where_identifiers_should_be_is_left_out():
  settings = stage_objective(
    ObjectiveSettings(density=1.0, commitment=1.0, sharpness=1.0), 'settled'
  )
  assert settings.quantised and settings.generation and settings.consistency
  assert not (settings.density or settings.commitment or settings.sharpness)


def test_rounds_are_counted_from_none():
  with pytest.raises(UserError, match='settled_rounds must be at least 0'):
    dataclasses.replace(SETTINGS, settled_rounds=-1)


def test_without_rounds_documents_keep_what_they_had():
  state, optimizer = start()
  before = np.asarray(state.frozen['identifiers']['table'])
  given = begun(MODEL, state, optimizer)
  assert not np.array_equal(given.frozen['identifiers']['table'], before)
  state, optimizer = start()
  kept = begun(MODEL, state, optimizer, rounds=0)
  np.testing.assert_array_equal(kept.frozen['identifiers']['table'], before)


def test_codes_that_no_text_tells_start_without_encoding_the_corpus():
  config = dataclasses.replace(
    MODEL.config, indexer=StaticConfig('random', positions=2, codes=4)
  )
  model = Retriever(config)
  params, _, usage = init_params(model, 0, documents=8)
  optimizer = start()[1]
  state = make_state(params, usage, optimizer, False)
  # These texts have ids and nothing to encode.
  ids = [f'd{n}' for n in range(8)]
  texts = types.SimpleNamespace(
    prepared=types.SimpleNamespace(document_ids=ids)
  )
  settings = types.SimpleNamespace(model=config, seed=3)
  after = begin_stage('codes', settings, texts, optimizer, state)
  np.testing.assert_array_equal(
    after.frozen['identifiers']['table'],
    number_identifiers(config.indexer, ids, 3),
  )
