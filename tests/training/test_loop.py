"""The loop: stages, logs, saves, and what it does with a NaN."""

import contextlib
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.training import interrupts, logs
from gr_jax.training.loop import train_loop
from gr_jax.training.state import TrainingSettings, TrainState
from gr_jax.training.window import Window, make_record
from gr_jax.types import UserError


class Batches:
  """Counts up; its state is where it stands."""

  def __init__(self, at=0):
    self.at = at

  def __next__(self):
    self.at += 1
    rows = np.full(4, self.at - 1)
    return {
      'document_index': rows,
      'source': rows % 2,
      'example': rows,
      'query_tokens': np.zeros((4, 2)),
    }

  def get_state(self):
    return {'at': self.at}


class Recorder:
  """Stands in for writer and checkpoints."""

  def __init__(self):
    self.logs, self.saves = [], []

  def write(self, step, values):
    self.logs.append((step, values))

  def save(self, step, state, data_state):
    self.saves.append((step, float(state.params['seen']), data_state))


def run(
  settings,
  first=0,
  step_fn=None,
  begin_fn=None,
  hooks=(),
  stop=None,
  watch=lambda state: {},
  record=lambda step, names, rows: '',
  recorder=None,
):
  recorder, order = recorder or Recorder(), []

  def step(name):
    def apply(state, batch):
      order.append(name)
      value = jnp.float32(batch['document_index'][0])
      params = {'seen': state.params['seen'] + value}
      return state.replace(step=state.step + 1, params=params), {
        name: (value, 1)
      }

    return apply

  def stage(name):
    def begin(state):
      order.append(f'begin {name}')
      return state

    return settings.beginnings, begin_fn or begin, step_fn or step(name)

  state = TrainState(
    step=jnp.int32(first),
    params={'seen': jnp.float32(0)},
    frozen={},
    opt_state=(),
    usage={},
  )
  train_loop(
    state=state,
    stages={name: stage(name) for name in settings.first_steps},
    batches=Batches(first),
    put=lambda batch: batch,
    settings=settings,
    save=recorder.save,
    log=recorder.write,
    window=Window(record, 4),
    watch=watch,
    hooks=hooks,
    stop=stop or interrupts.Stop(),
  )
  return recorder, order


SETTINGS = TrainingSettings(
  steps=7,
  dense_fraction=0.5,
  settled_fraction=0.15,
  log_every=2,
  checkpoint_every=4,
)


STAGES = ['begin dense'] + ['dense'] * 3
STAGES += ['begin codes'] + ['codes'] * 3 + ['begin settled', 'settled']


def test_every_stage_begins_once():
  _, order = run(SETTINGS)
  assert order == STAGES


@pytest.mark.parametrize('first', range(1, 7))
def test_a_resumed_run_goes_through_what_is_left_of_the_stages(first):
  _, order = run(SETTINGS, first=first)
  steps = [at for at, name in enumerate(STAGES) if name[:5] != 'begin']
  left = STAGES[steps[first] :]
  # A checkpoint at a stage's end is of before the next one began.
  if STAGES[steps[first] - 1].startswith('begin'):
    left = [STAGES[steps[first] - 1], *left]
  assert order == left


@pytest.mark.parametrize(
  'dense, settled, stages',
  [
    (0.0, 0.0, ['codes'] * 8),
    (0.5, 0.0, ['dense'] * 4 + ['codes'] * 4),
    (0.0, 0.25, ['codes'] * 6 + ['settled'] * 2),
  ],
)
def test_stages_that_have_no_step_do_not_begin(dense, settled, stages):
  settings = TrainingSettings(
    steps=8, dense_fraction=dense, settled_fraction=settled, settled_rounds=1
  )
  _, order = run(settings)
  assert [name for name in order if name[:5] != 'begin'] == stages
  begun = [name[6:] for name in order if name[:5] == 'begin']
  assert begun == list(dict.fromkeys(stages))


@pytest.mark.parametrize(
  'steps, fraction, rounds, begin',
  [
    (10, 0.5, 2, [5, 8]),
    (10, 0.5, 5, [5, 6, 7, 8, 9]),
    (10, 0.5, 9, [5, 6, 7, 8, 9]),
    (10, 0.0, 3, []),
  ],
)
def test_the_last_stage_begins_anew_with_each_round(
  steps, fraction, rounds, begin
):
  settings = TrainingSettings(
    steps=steps,
    dense_fraction=0.2,
    settled_fraction=fraction,
    settled_rounds=rounds,
  )
  _, order = run(settings)
  at, found = 0, []
  for name in order:
    if name == 'begin settled':
      found.append(at)
    at += not name.startswith('begin')
  assert found == begin
  assert order.count('begin codes') == order.count('begin dense') == 1


def test_logs_are_means_over_their_window_and_no_window_spans_the_stages():
  recorder, _ = run(SETTINGS)
  assert [step for step, _ in recorder.logs] == [2, 3, 4, 6, 7]
  logs = [values for _, values in recorder.logs]
  assert [values.get('dense') for values in logs[:2]] == [0.5, 2.0]
  assert [values.get('codes') for values in logs[2:4]] == [3, 4.5]
  assert logs[4]['settled'] == 6
  assert all(values['examples_per_second'] > 0 for values in logs)


def test_saves_hold_state_and_position_of_the_data():
  recorder, _ = run(SETTINGS)
  assert recorder.saves == [
    (4, 6.0, {'at': 4}),
    (7, 21.0, {'at': 7}),
  ]


def test_identifiers_are_watched_once_there_are_codes():
  recorder, _ = run(SETTINGS, watch=lambda state: {'seen': int(state.step)})
  watched = [(step, values.get('seen')) for step, values in recorder.logs]
  assert watched == [(2, None), (3, None), (4, 4), (6, 6), (7, 7)]


def test_hooks_run_once_there_are_codes():
  calls = []

  def hook(step, state):
    calls.append((step, int(state.step)))
    return {'dev/R@10': 0.5}

  settings = TrainingSettings(
    steps=7,
    dense_fraction=0.5,
    settled_fraction=0.0,
    evaluate_every=2,
    log_every=100,
  )
  recorder, _ = run(settings, hooks=(hook,))
  assert calls == [(4, 4), (6, 6), (7, 7)]
  assert (6, {'dev/R@10': 0.5}) in recorder.logs


def test_only_process_0_writes_logs(tmp_path, monkeypatch):
  with contextlib.ExitStack() as stack:
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    logs.open_log(stack, tmp_path / 'logs', 7, 0)(1, {'loss': 1.0})
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(jax, 'process_index', lambda: 0)
    log = logs.open_log(stack, tmp_path / 'logs', 7, 0)
    log(1, {'loss': 1.0})
  # Closed with the stack, whatever ended it.
  with pytest.raises(ValueError, match='closed file'):
    log(2, {'loss': 1.0})


@pytest.fixture
def named():
  """As many ids as there are rows, of two kinds of queries."""

  class Source:
    def __init__(self, kind):
      self._kind = kind

    def example(self, number):
      return types.SimpleNamespace(query_id=f'{self._kind}{number}')

  return types.SimpleNamespace(
    document_ids=[f'd{i}' for i in range(20)],
    sources={'spans': Source('s'), 'labelled': Source('l')},
  )


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_nan_stops_before_the_checkpoint_and_names_the_batch(
  bad, named, tmp_path
):
  def poisoned(state, batch):
    value = jnp.float32(bad if batch['document_index'][0] >= 5 else 1)
    return state.replace(step=state.step + 1), {
      'loss': (value, 1),
      'fine': (jnp.float32(1), 1),
    }

  settings = TrainingSettings(
    steps=30,
    dense_fraction=0.0,
    settled_fraction=0.0,
    log_every=4,
    checkpoint_every=4,
  )
  recorder = Recorder()
  with pytest.raises(UserError, match=r'^loss became NaN.*at step 6.*d5') as e:
    run(
      settings,
      step_fn=poisoned,
      record=make_record(tmp_path / 'logs', named),
      recorder=recorder,
    )
  # Within one log interval, and before the next save.
  assert [step for step, _ in recorder.logs] == [4]
  assert [step for step, *_ in recorder.saves] == [4]
  path = tmp_path / 'logs' / 'not_finite_0.json'
  assert str(path) in str(e.value)
  assert json.loads(path.read_text()) == {
    'step': 6,
    'not_finite': ['loss'],
    'documents': ['d5'] * 4,
    'queries': ['s5'] * 4,
  }


def test_nothing_that_is_not_finite_is_evaluated():
  """What an evaluation may have to save has been looked at."""

  def poisoned(state, batch):
    return state.replace(step=state.step + 1), {'loss': (jnp.inf, 1)}

  settings = TrainingSettings(
    steps=8,
    dense_fraction=0.0,
    settled_fraction=0.0,
    evaluate_every=2,
    log_every=100,
  )
  with pytest.raises(UserError, match='at step 1'):
    run(settings, step_fn=poisoned, hooks=(lambda step, state: 1 / 0,))
