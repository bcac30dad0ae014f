"""The examples of a Task as preparation writes them; no TensorFlow."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

READ_BATCH = 1024


class Row(NamedTuple):
  """A query that leads to a document, or a document alone."""

  tokens: np.ndarray  # int32 [tokens]
  document_index: int
  query_id: str
  truncated: bool


def rows_of_batch(batch, feature: str) -> list[Row]:
  """The rows of a batch of one of our Tasks.

  Args:
    batch: what `dataset.ragged_batch(n).as_numpy_iterator()` gives.
    feature: whose tokens are wanted, 'query' or 'document'.
  """
  return [
    Row(
      batch[feature][row],
      index,
      batch['query_id'][row].decode(),
      bool(batch[f'{feature}_truncated'][row]),
    )
    for row, index in enumerate(batch['document_index'].tolist())
  ]


def read_rows(dataset, feature: str) -> Iterator[Row]:
  """The rows of a tf.data.Dataset, read in batches."""
  for batch in dataset.ragged_batch(READ_BATCH).as_numpy_iterator():
    yield from rows_of_batch(batch, feature)
