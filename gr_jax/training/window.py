"""What a log line says: means over the steps since the last one."""

import math
import time

import jax

from gr_jax.types import UserError


class Window:
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
