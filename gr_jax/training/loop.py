"""The training loop: step, log, evaluate, save, and nothing else."""

import math
import time

import jax

from gr_jax.types import UserError


def train_loop(
  *,
  state,
  dense_step,
  step_fn,
  start_codes,
  batches,
  put,
  settings,
  save,
  log,
  hooks,
  check_interrupt,
):
  """Trains until `settings.steps`, from wherever `state` stands.

  Args:
    state: training.state.TrainState.
    dense_step: from training.step.make_step, for the first `dense_steps`.
    step_fn: the same, for all others.
    start_codes: state -> state, called between the two.
    batches: iterator of batches with get_state, already at the state's step.
    put: function from a numpy batch to device arrays.
    settings: training.state.TrainingSettings.
    save: (step, state, state of the batches) -> None.
    log: (step, {'name': value}) -> None.
    hooks: functions (step, state) -> {'name': value}, called every
      `evaluate_every` steps once there are codes.
    check_interrupt: called before each step, from interrupts.deferred.

  Returns:
    The state after the last step, saved.

  Raises:
    UserError: a metric is not finite; no checkpoint is written after that.
  """
  window = _Window()
  for step in range(int(state.step), settings.steps):
    check_interrupt()
    dense = step < settings.dense_steps
    if step == settings.dense_steps:
      state = start_codes(state)
    batch = next(batches)
    state, metrics = (dense_step if dense else step_fn)(state, put(batch))
    window.add(metrics, batch)
    done = step + 1
    last = done == settings.steps
    saving = last or done % settings.checkpoint_every == 0
    # The stages measure different criteria: no window spans both.
    staged = done == settings.dense_steps
    if saving or staged or done % settings.log_every == 0:
      log(done, window.close(done))
    if saving:
      save(done, state, batches.get_state())
    if hooks and not dense and (last or done % settings.evaluate_every == 0):
      for hook in hooks:
        log(done, hook(done, state))
      window = _Window()
  return state


class _Window:
  """Sums of metrics since the last log, left on the device until then."""

  def __init__(self):
    self._totals = None
    self._batch = None
    self._examples = 0
    self._start = time.monotonic()

  def add(self, metrics, batch):
    """Adds a step's {'name': (total, count)} without waiting for it."""
    if self._totals is not None:
      metrics = jax.tree.map(lambda a, b: a + b, self._totals, metrics)
    self._totals = metrics
    self._batch = batch
    self._examples += len(batch['document_index'])

  def close(self, step):
    """{'name': mean}, and a fresh window; refuses what is not finite."""
    values = {
      name: float(total) / max(float(count), 1e-9)
      for name, (total, count) in jax.device_get(self._totals).items()
    }
    broken = sorted(k for k, v in values.items() if not math.isfinite(v))
    if broken:
      shown = ', '.join(str(d) for d in self._batch['document_index'][:8])
      raise UserError(
        f'{", ".join(broken)} became NaN or Inf by step {step} (last batch: '
        f'documents {shown}, ...): lower OptimizerSettings.learning_rate or '
        'raise TrainingSettings.temperature, then run again from the last '
        'checkpoint'
      )
    seconds = max(time.monotonic() - self._start, 1e-9)
    values['examples_per_second'] = self._examples / seconds
    self.__init__()
    return values
