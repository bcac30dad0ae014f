"""Batches of documents with queries of theirs, in random order, resumable."""

import sys
from collections.abc import Sequence

import grain
import numpy as np

from gr_jax.data.loader import pad
from gr_jax.data.loader_checks import check_size
from gr_jax.data.prepared import PreparedData
from gr_jax.types import UserError

SOURCE = 'labelled'


def query_groups(
  document_indices: np.ndarray, width: int, seed: int
) -> np.ndarray:
  """Examples of the same document side by side, `width` of them a row.

  Args:
    document_indices: [X] document of each example.
    width: W.
    seed: of the order of a document's examples.

  Returns:
    [G, W] int32 numbers of examples, -1 where a document has no more; each
    example is in one row.
  """
  rng = np.random.default_rng(seed)
  order = rng.permutation(len(document_indices))
  order = order[np.argsort(document_indices[order], kind='stable')]
  documents = document_indices[order]
  first = np.flatnonzero(np.diff(documents, prepend=-1))
  counts = np.diff(np.append(first, len(order)))
  # Place of each example among those of its document.
  places = np.arange(len(order)) - np.repeat(first, counts)
  rows_before = np.cumsum(-(-counts // width)) - (-(-counts // width))
  rows = np.repeat(rows_before, counts) + places // width
  groups = np.full((rows[-1] + 1, width), -1, np.int32)
  groups[rows, places % width] = order
  return groups


class _Gather:
  """Turns rows of groups into tokens."""

  def __init__(self, prepared: PreparedData, groups: np.ndarray):
    self._prepared = prepared
    self._groups = groups

  def __call__(self, rows_B: np.ndarray) -> dict[str, np.ndarray]:
    prepared, source = self._prepared, self._prepared.sources[SOURCE]
    examples_BW = self._groups[rows_B]
    real_BW = examples_BW >= 0
    found = source.query_tokens(examples_BW[real_BW])
    tokens_BWL = np.zeros((*real_BW.shape, prepared.query_length), np.int32)
    tokens_BWL[real_BW] = pad(found, prepared.query_length)
    document_B = source.document_indices[examples_BW[:, 0]].astype(np.int32)
    return {
      'document_tokens': pad(
        prepared.document_tokens(document_B), prepared.document_length
      ),
      'query_tokens': tokens_BWL,
      'document_index': document_B,
      'source': np.full_like(
        document_B, sorted(prepared.sources).index(SOURCE)
      ),
      'example': examples_BW[:, 0],
    }


def batches(
  prepared: PreparedData,
  batch_size: int,
  width: int,
  seed: int,
  prefetch: int,
  rows: Sequence[int] | None = None,
) -> grain.DatasetIterator:
  """An endless iterator of documents with labelled queries of theirs.

  Args:
    prepared: the examples.
    batch_size: B, documents of a batch, over all processes.
    width: W, queries of a document in a batch; a document with more of them is
      in several batches of an epoch.
    seed: of the order.
    prefetch: batches made ahead of the step.
    rows: places in the batch that are read, in order; all when None.

  Returns:
    A grain iterator with `get_state` and `set_state`. It yields
    'document_tokens' int32 [B, S] and 'query_tokens' int32 [B, W, L], padded
    with 0, and 'document_index', 'source' and 'example' [B] of the first query.

  Raises:
    UserError: there is no labelled query.
  """
  size = check_size(batch_size)
  rows = np.arange(size) if rows is None else np.asarray(rows)
  source = prepared.sources.get(SOURCE)
  if source is None or not len(source):
    raise UserError(
      f'{prepared.directory} has no labelled queries to learn to write: give '
      'qrels/train.tsv, and PreparationSettings.sources with labelled'
    )
  groups = query_groups(source.document_indices, width, seed)
  order = grain.MapDataset.range(len(groups)).seed(seed).shuffle().repeat(None)
  dataset = (
    grain.MapDataset.range(sys.maxsize // size)
    .map(lambda batch: np.asarray([order[batch * size + row] for row in rows]))
    .map(_Gather(prepared, groups))
  )
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch)
  return iter(dataset.to_iter_dataset(options))
