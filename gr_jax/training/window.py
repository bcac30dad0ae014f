"""What a log line says: means over the steps since the last one."""

import json
import math
import pathlib
import time
from collections.abc import Callable

import jax

from gr_jax.types import UserError

# What tells which examples a batch was made of.
_ROWS = ('document_index', 'source', 'example')


class Window:
  """Metrics since the last log, left on the device until then."""

  def __init__(
    self, record: Callable[[int, list[str], dict], str], batch_size: int
  ):
    """Starts empty.

    Args:
      record: (step, names, rows of the batch) -> where it is written and what,
        told the first step whose metrics are not finite.
      batch_size: examples of a step, over all processes.
    """
    self._record = record
    self._batch_size = batch_size
    self.reset()

  def reset(self):
    """Forgets what was added, and starts the clock."""
    self._steps = []
    self._start = time.monotonic()

  def add(self, metrics, batch):
    """Adds a step's {'name': (total, count)} without waiting for it."""
    self._steps.append((metrics, {k: batch[k] for k in _ROWS if k in batch}))

  def close(self, step):
    """{'name': mean}, and a fresh window; refuses what is not finite.

    Args:
      step: the last one that was added.

    Raises:
      UserError: with the first step that was not finite, and its documents.
    """
    steps = jax.device_get([metrics for metrics, _ in self._steps])
    for place, metrics in enumerate(steps):
      broken = sorted(
        name
        for name, (total, _) in metrics.items()
        if not math.isfinite(float(total))
      )
      if broken:
        first = step - len(steps) + place + 1
        found = self._record(first, broken, self._steps[place][1])
        raise UserError(
          f'{", ".join(broken)} became NaN or Inf at step {first} ({found}): '
          'lower OptimizerSettings.learning_rate or raise '
          'TrainingSettings.temperature, then run again from the last '
          'checkpoint'
        )
    values = {
      name: sum(float(metrics[name][0]) for metrics in steps)
      / max(sum(float(metrics[name][1]) for metrics in steps), 1e-9)
      for name in steps[0]
    }
    seconds = max(time.monotonic() - self._start, 1e-9)
    values['examples_per_second'] = len(steps) * self._batch_size / seconds
    self.reset()
    return values


def make_record(directory: pathlib.Path, prepared):
  """What writes the batch that broke a run to DIRECTORY/not_finite_0.json.

  Args:
    directory: of the logs.
    prepared: data.prepared.PreparedData, for the ids.

  Returns:
    `record` of Window. Each process writes its share of the batch.
  """

  def record(step, names, rows):
    documents = [prepared.document_ids[d] for d in rows['document_index']]
    kinds = sorted(prepared.sources)
    queries = [
      prepared.sources[kinds[source]].example(example).query_id
      for source, example in zip(rows['source'], rows['example'], strict=True)
    ]
    path = directory / f'not_finite_{jax.process_index()}.json'
    content = {
      'step': step,
      'not_finite': names,
      'documents': documents,
      'queries': queries,
    }
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    return f'documents {", ".join(documents[:8])}, ...; all are in {path}'

  return record
