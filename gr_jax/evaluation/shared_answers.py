"""Queries asked batch by batch, by one process or by several together.

A batch is a shard of retrieval.shards: its answers stay when the evaluation is
killed. Batches are the same whatever the number of processes, and so are the
answers.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from gr_jax.evaluation import protocol
from gr_jax.evaluation.rankings import Rankings
from gr_jax.retrieval.shards import columns, joined, make_shards

_FIELDS = tuple(field.name for field in dataclasses.fields(Rankings))


def ask_in_shards(
  system: protocol.System,
  texts: Sequence[str],
  k: int,
  batch: int,
  folder: pathlib.Path,
  inputs: str,
) -> list[pathlib.Path]:
  """Asks all queries, as `protocol.ask` does; answers that are there stay.

  Every process calls it.

  Args:
    system: what is asked.
    texts: the queries.
    k: places of a ranking.
    batch: queries asked at once.
    folder: for the answers; emptied when they are of other inputs.
    inputs: what the answers depend on, as a checksum.

  Returns:
    The files of the answers, for `joined_answers`.
  """
  batch = min(batch, len(texts))
  # Only where there is something to ask, and outside of the clock.
  warm_up = functools.cache(lambda: protocol.warm_up(system, texts, k, batch))

  def make(places, show):
    warm_up()
    chunk = [texts[place] for place in places.tolist()]
    found, seconds = protocol.answered(system, chunk, k, batch)
    show(len(chunk), 1.0)
    return columns(
      **{name: np.asarray(getattr(found, name)) for name in _FIELDS},
      seconds=np.full(len(chunk), seconds / len(chunk)),
    )

  return make_shards(folder, make, len(texts), inputs, batch, 'question')


def joined_answers(paths: Sequence[pathlib.Path]) -> tuple[Rankings, float]:
  """The answers of all processes in order, and queries per second of one."""
  rows = joined(paths)
  rate = len(rows) / max(float(rows['seconds'].sum()), 1e-9)
  return Rankings(**{name: rows[name].copy() for name in _FIELDS}), rate
