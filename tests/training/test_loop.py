"""The loop: stages, logs, saves, and what it does with a NaN."""

import contextlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax import train
from gr_jax.training import interrupts
from gr_jax.training.loop import train_loop
from gr_jax.training.state import TrainingSettings, TrainState
from gr_jax.types import UserError


class Batches:
  """Counts up; its state is where it stands."""

  def __init__(self, at=0):
    self.at = at

  def __next__(self):
    self.at += 1
    return {'document_index': np.full(4, self.at - 1)}

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
  settings, first=0, step_fn=None, hooks=(), check_interrupt=lambda: None
):
  recorder, order = Recorder(), []

  def step(name):
    def apply(state, batch):
      order.append(name)
      value = jnp.float32(batch['document_index'][0])
      params = {'seen': state.params['seen'] + value}
      return state.replace(step=state.step + 1, params=params), {
        name: (value, 1)
      }

    return apply

  def start_codes(state):
    order.append('codes')
    return state

  state = TrainState(
    step=jnp.int32(first),
    params={'seen': jnp.float32(0)},
    frozen={},
    opt_state=(),
  )
  train_loop(
    state=state,
    dense_step=step('dense'),
    step_fn=step_fn or step('full'),
    start_codes=start_codes,
    batches=Batches(first),
    put=lambda batch: batch,
    settings=settings,
    save=recorder.save,
    log=recorder.write,
    hooks=hooks,
    check_interrupt=check_interrupt,
  )
  return recorder, order


SETTINGS = TrainingSettings(
  steps=7, dense_fraction=0.5, log_every=2, checkpoint_every=4
)


def test_codes_start_between_the_stages():
  _, order = run(SETTINGS)
  assert order == ['dense'] * 3 + ['codes'] + ['full'] * 4


@pytest.mark.parametrize('first, codes', [(2, 1), (3, 1), (4, 0)])
def test_a_resumed_run_starts_codes_when_an_uninterrupted_one_would(
  first, codes
):
  _, order = run(SETTINGS, first=first)
  assert order.count('codes') == codes
  assert len(order) == 7 - first + codes


def test_logs_are_means_over_their_window_and_no_window_spans_the_stages():
  recorder, _ = run(SETTINGS)
  assert [step for step, _ in recorder.logs] == [2, 3, 4, 6, 7]
  assert [values.get('dense') for _, values in recorder.logs[:2]] == [0.5, 2.0]
  assert [values.get('full') for _, values in recorder.logs[2:]] == [3, 4.5, 6]
  assert all(values['examples_per_second'] > 0 for _, values in recorder.logs)


def test_saves_hold_state_and_position_of_the_data():
  recorder, _ = run(SETTINGS)
  assert recorder.saves == [
    (4, 6.0, {'at': 4}),
    (7, 21.0, {'at': 7}),
  ]


def test_hooks_run_once_there_are_codes():
  calls = []

  def hook(step, state):
    calls.append((step, int(state.step)))
    return {'dev/R@10': 0.5}

  settings = TrainingSettings(
    steps=7, dense_fraction=0.5, evaluate_every=2, log_every=100
  )
  recorder, _ = run(settings, hooks=(hook,))
  assert calls == [(4, 4), (6, 6), (7, 7)]
  assert (6, {'dev/R@10': 0.5}) in recorder.logs


def test_only_process_0_writes_logs(tmp_path, monkeypatch):
  with contextlib.ExitStack() as stack:
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    train._log(stack, tmp_path, 7, 0)(1, {'loss': 1.0})
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(jax, 'process_index', lambda: 0)
    log = train._log(stack, tmp_path, 7, 0)
    log(1, {'loss': 1.0})
  # Closed with the stack, whatever ended it.
  with pytest.raises(ValueError, match='closed file'):
    log(2, {'loss': 1.0})


def test_a_nan_stops_before_the_checkpoint_and_names_the_batch():
  def poisoned(state, batch):
    value = jnp.float32(np.nan if batch['document_index'][0] >= 5 else 1)
    return state.replace(step=state.step + 1), {'loss': (value, 1)}

  recorder = None
  with pytest.raises(UserError, match=r'loss became NaN.*step 6.*documents 5'):
    recorder, _ = run(
      TrainingSettings(
        steps=8, dense_fraction=0.0, log_every=2, checkpoint_every=2
      ),
      step_fn=poisoned,
    )
  assert recorder is None


def test_a_ctrl_c_waits_for_the_end_of_a_step():
  order = []

  def interrupted(state, batch):
    signal.raise_signal(signal.SIGINT)
    order.append('step done')
    return state.replace(step=state.step + 1), {'loss': (jnp.float32(1), 1)}

  settings = TrainingSettings(steps=8, dense_fraction=0.0)
  with interrupts.deferred() as check, pytest.raises(KeyboardInterrupt):
    run(settings, step_fn=interrupted, check_interrupt=check)
  assert order == ['step done']


def test_a_second_ctrl_c_interrupts_at_once():
  before = signal.getsignal(signal.SIGINT)
  with interrupts.deferred() as check:
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      check()
  assert signal.getsignal(signal.SIGINT) is before
