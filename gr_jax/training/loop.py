"""The training loop: step, log, evaluate, save, and nothing else."""

import time

import jax
import numpy as np

from gr_jax.types import UserError


def train_loop(
  *, state, step_fn, batches, put, settings, checkpoints, writer, hashes, hooks
):
  """Trains until `settings.steps`, from wherever `state` stands.

  Args:
    state: training.state.TrainState.
    step_fn: from training.step.make_step.
    batches: iterator of batches with get_state, already at the state's step.
    put: function from a numpy batch to device arrays.
    settings: training.state.TrainingSettings.
    checkpoints: training.checkpoints.Checkpoints.
    writer: training.logs writer.
    hashes: kept beside every checkpoint, compared on restore.
    hooks: functions (step, state) -> {'name': value}, called every
      `evaluate_every` steps.

  Returns:
    The state after the last step, saved.

  Raises:
    UserError: a metric is not finite; no checkpoint is written after that.
  """
  totals, since, examples = {}, time.monotonic(), 0
  first = int(state.step)
  for step in range(first, settings.steps):
    batch = next(batches)
    state, metrics = step_fn(state, put(batch))
    totals = _add(totals, metrics)
    examples += len(batch['document_index'])
    done = step + 1
    last = done == settings.steps
    saving = last or done % settings.checkpoint_every == 0
    if saving or done % settings.log_every == 0:
      values = _means(totals, done, batch)
      seconds = time.monotonic() - since
      values['examples_per_second'] = examples / max(seconds, 1e-9)
      writer.write(done, values)
      totals, since, examples = {}, time.monotonic(), 0
    if hooks and settings.evaluate_every:
      if last or done % settings.evaluate_every == 0:
        for hook in hooks:
          writer.write(done, hook(done, state))
        since = time.monotonic()
    if saving:
      checkpoints.save(done, state, batches.get_state(), hashes)
  checkpoints.wait()
  return state


def _add(totals, metrics):
  """Adds a step's (total, count) pairs on the device, without waiting."""
  if not totals:
    return metrics
  return jax.tree.map(lambda a, b: a + b, totals, metrics)


def _means(totals, step, batch):
  """{'name': total / count} as floats; refuses what is not finite."""
  values = {}
  for name, (total, count) in jax.device_get(totals).items():
    values[name] = float(total) / max(float(count), 1e-9)
  broken = sorted(k for k, v in values.items() if not np.isfinite(v))
  if broken:
    shown = ', '.join(str(d) for d in batch['document_index'][:8])
    raise UserError(
      f'{", ".join(broken)} became NaN or Inf by step {step} (last batch: '
      f'documents {shown}, ...): lower OptimizerSettings.learning_rate or '
      'raise TrainingSettings.temperature, then run again from the last '
      'checkpoint'
    )
  return values
