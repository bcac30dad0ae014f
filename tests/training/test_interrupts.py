"""Ctrl-C and SIGTERM while the loop runs: what is saved, and when it ends."""

import contextlib
import signal

import jax
import jax.numpy as jnp
import pytest
from test_loop import Recorder, run

from gr_jax.training import interrupts
from gr_jax.training.state import TrainingSettings
from gr_jax.types import Terminated


def test_a_ctrl_c_waits_for_the_end_of_a_step():
  order = []

  def interrupted(state, batch):
    signal.raise_signal(signal.SIGINT)
    order.append('step done')
    return state.replace(step=state.step + 1), {'loss': (jnp.float32(1), 1)}

  settings = TrainingSettings(steps=8, dense_fraction=0.0)
  with pytest.raises(KeyboardInterrupt), interrupts.deferred() as stop:
    run(settings, step_fn=interrupted, stop=stop)
  assert order == ['step done']


def test_a_second_ctrl_c_interrupts_at_once():
  before = signal.getsignal(signal.SIGINT)
  with contextlib.suppress(KeyboardInterrupt), interrupts.deferred() as stop:
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      stop.check()
  assert signal.getsignal(signal.SIGINT) is before


ENDED = TrainingSettings(
  steps=6,
  dense_fraction=0.5,
  settled_fraction=0.0,
  log_every=100,
  checkpoint_every=100,
  evaluate_every=5,
)


def end(where, kind, settings=ENDED):
  """Signals this process in a step, stage or evaluation; what was saved."""
  recorder = Recorder()
  waited = []

  def happens(place):
    if place == where:
      for _ in range(2):
        signal.raise_signal(kind)
      waited.append(place)

  def step(state, batch):
    done = int(state.step) + 1
    happens(f'step {done}')
    params = {'seen': state.params['seen'] + 1}
    state = state.replace(step=state.step + 1, params=params)
    return state, {'loss': (jnp.float32(1), 1)}

  def begin(state):
    happens(f'begin {int(state.step)}')
    return state

  def hook(step, state):
    happens(f'evaluate {step}')
    return {}

  save = recorder.save

  def signalled_save(step, state, data_state):
    # Schedulers repeat themselves: the save goes on.
    if kind == signal.SIGTERM:
      signal.raise_signal(kind)
    # As Checkpoints does: no step is saved twice.
    if step not in [saved for saved, *_ in recorder.saves]:
      save(step, state, data_state)

  recorder.save = signalled_save
  error = Terminated if kind == signal.SIGTERM else KeyboardInterrupt
  before = signal.getsignal(kind)
  with pytest.raises(error), interrupts.deferred() as stop:
    run(
      settings,
      step_fn=step,
      begin_fn=begin,
      hooks=(hook,),
      stop=stop,
      recorder=recorder,
    )
  assert signal.getsignal(kind) is before
  return recorder.saves, waited


@pytest.mark.parametrize('step', [1, 3, 4, 6])
def test_sigterm_saves_the_step_that_it_comes_in(step):
  saves, waited = end(f'step {step}', signal.SIGTERM)
  assert saves == [(step, float(step), {'at': step})]
  assert waited


def test_sigterm_waits_for_no_stage_and_no_evaluation():
  saves, waited = end('begin 3', signal.SIGTERM)
  assert saves == [(3, 3.0, {'at': 3})] and not waited
  saves, waited = end('evaluate 5', signal.SIGTERM)
  assert saves == [(5, 5.0, {'at': 5})] and not waited
  # Before the first step there is nothing to save.
  assert end('begin 0', signal.SIGTERM) == ([], [])
  for place in ('begin 3', 'evaluate 5'):
    assert end(place, signal.SIGINT) == ([], [])


def test_several_processes_stop_where_jax_says(monkeypatch):
  """Whichever of them was signalled."""
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  asked = []

  def reached(step):
    asked.append(step)
    return step == 4

  monkeypatch.setattr(
    interrupts.multihost_utils, 'reached_preemption_sync_point', reached
  )
  before = signal.getsignal(signal.SIGTERM)
  recorder = Recorder()
  with pytest.raises(Terminated), interrupts.deferred() as stop:
    # JAX has taken the signal over.
    assert signal.getsignal(signal.SIGTERM) is before
    run(ENDED, stop=stop, recorder=recorder)
  assert asked == [1, 2, 3, 4]
  assert [step for step, *_ in recorder.saves] == [4]
