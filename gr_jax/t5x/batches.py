"""Batches for T5X whose place a checkpoint holds.

`task_batches` reads the seqio Task or mixture of a DatasetConfig, as T5X's own
function does; `prepared_batches` reads a run's prepared examples with our
loader, and so gives the batches that gr_jax.train trains on.
"""

import dataclasses
import functools
import json
import pathlib

import jax
import numpy as np
from clu.data import dataset_iterator
from t5x import utils

from gr_jax import run_lists
from gr_jax.data import loader
from gr_jax.t5x import run

_READ = (
  'query_tokens',
  'document_tokens',
  'document_index',
  'list_index',
  'list_scores',
)


def task_batches(
  cfg, shard_id, num_shards, feature_converter_cls, num_epochs=None
):
  """Batches of a seqio Task or mixture, for `train.get_dataset_fn`.

  Args:
    cfg: t5x.utils.DatasetConfig.
    shard_id: of this process.
    num_shards: how many share a batch.
    feature_converter_cls: of the model.
    num_epochs: None for no end.
  """
  dataset = utils.get_dataset(
    cfg, shard_id, num_shards, feature_converter_cls, num_epochs
  )
  return TaskIterator(dataset)


def prepared_batches(
  cfg, shard_id, num_shards, feature_converter_cls, run_dir=''
):
  """The batches of gr_jax.train, for `train.get_dataset_fn`.

  Args:
    cfg: t5x.utils.DatasetConfig, of which the batch size is read.
    shard_id: of this process.
    num_shards: how many share a batch.
    feature_converter_cls: not read.
    run_dir: folder of the run; bound in gin.
  """
  del feature_converter_cls
  settings, prepared = run.opened(run_dir)
  loading = dataclasses.replace(settings.loader, batch_size=cfg.batch_size)
  # T5X lays the parts of its processes one behind the other.
  rows_SR = np.arange(cfg.batch_size).reshape(num_shards, -1)
  rows = rows_SR[shard_id]
  make = functools.partial(
    loader.batches,
    prepared,
    loading,
    rows,
    lists=run_lists.lists_of_rows(settings, prepared, rows),
  )
  return LoaderIterator(make)


def place_of(batches: int) -> str:
  """What a file says that holds the place behind so many batches."""
  return json.dumps({'next_index': batches})


class TaskIterator(dataset_iterator.TfDatasetIterator):
  """tf.data's iterator, which also starts behind a number of batches."""

  def __init__(self, dataset):
    super().__init__(dataset, checkpoint=True)

  def restore(self, filename):
    """Goes on from what `save` or `place_of` wrote.

    Args:
      filename: tf.data's files begin so; a file of just this name counts
        batches, which are read to get past them.
    """
    path = pathlib.Path(filename)
    if not path.is_file():
      super().restore(filename)
      return
    self.reset()
    for _ in range(json.loads(path.read_text())['next_index']):
      next(self)


class LoaderIterator(dataset_iterator.DatasetIterator):
  """Our loader's iterator."""

  def __init__(self, make):
    """Makes the iterator.

    Args:
      make: () -> an iterator of data.loader.batches.
    """
    self._make = make
    self.reset()
    first = self._read(next(make()))
    self._spec = jax.tree.map(
      lambda rows: dataset_iterator.ArraySpec(rows.dtype, rows.shape), first
    )

  @property
  def element_spec(self):
    """Types and shapes of a batch."""
    return self._spec

  def __next__(self):
    return self._read(next(self._batches))

  def reset(self):
    """Starts again."""
    self._batches = self._make()

  def save(self, filename):
    """Writes the place as JSON."""
    state = self._batches.get_state()
    pathlib.Path(filename).write_text(json.dumps(state))

  def restore(self, filename):
    """Goes on from what `save` or `place_of` wrote."""
    self._batches.set_state(json.loads(pathlib.Path(filename).read_text()))

  def _read(self, batch):
    return {name: batch[name] for name in _READ if name in batch}
