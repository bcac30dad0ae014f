"""Task features of launchers that train on Tasks themselves, as T5X does."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import seqio
import tensorflow as tf

from gr_jax.data.seqio_features import (
  TEXT_SIGNATURE,
  ShardedTextSource,
  as_string,
)


class DocumentIds(seqio.Vocabulary):
  """Numbers of documents as a vocabulary whose words are their ids.

  What a launcher predicts are numbers of documents; seqio's metrics and T5X's
  files then show their ids. -1 stands for no document.
  """

  def __init__(self, document_ids: Sequence[str]):
    super().__init__()
    self.document_ids = document_ids

  def __eq__(self, other):
    return (
      isinstance(other, DocumentIds) and other.document_ids == self.document_ids
    )

  def __hash__(self):
    return hash(tuple(self.document_ids))

  @property
  def bos_id(self) -> None:
    """None: numbers of documents have no marks."""
    return None

  @property
  def eos_id(self) -> None:
    """None."""
    return None

  @property
  def unk_id(self) -> None:
    """None."""
    return None

  @property
  def _base_vocab_size(self):
    return len(self.document_ids)

  def _encode(self, s):
    return [self._numbers[s]]

  def _decode(self, ids):
    # seqio hands whatever this gives to the metrics: blanks in ids survive.
    return [self.document_ids[number] for number in ids if number >= 0]

  def _encode_tf(self, s):
    return tf.numpy_function(
      lambda text: np.asarray(self._encode(as_string(text)), np.int32),
      [s],
      tf.int32,
    )

  def _decode_tf(self, ids):
    return tf.constant(self._decode(ids.numpy().tolist()), tf.string)

  @functools.cached_property
  def _numbers(self):
    return {name: number for number, name in enumerate(self.document_ids)}


class ResumableTextSource(ShardedTextSource):
  """A source of which iterators over a Task can be saved and go on.

  tf.data saves no generator: here a whole shard at a time is in memory.
  """

  @classmethod
  def of(cls, source: ShardedTextSource) -> 'ResumableTextSource':
    """The same source, resumable."""
    return cls(source._examples, source._shards, source._inputs)

  def _texts(self, split: str, numbers: Sequence[int]) -> tf.data.Dataset:
    names = tuple(TEXT_SIGNATURE)

    def read(number):
      parts = list(self._batches(split, [int(number)])) or [self._nothing()]
      return [np.concatenate([part[name] for part in parts]) for name in names]

    def shard(number):
      types = [TEXT_SIGNATURE[name].dtype for name in names]
      # Not stateful: it gives the same for the same number.
      found = tf.numpy_function(read, [number], types, stateful=False)
      columns = [tf.ensure_shape(column, [None]) for column in found]
      return tf.data.Dataset.from_tensor_slices(
        dict(zip(names, columns, strict=True))
      )

    numbers = np.asarray(numbers, np.int64)
    return tf.data.Dataset.from_tensor_slices(numbers).flat_map(shard)

  def _nothing(self):
    """The columns of a shard without examples."""
    return {
      name: np.zeros(
        0, object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
      )
      for name, spec in TEXT_SIGNATURE.items()
    }


def for_launcher(task: seqio.Task, ids: DocumentIds) -> seqio.Task:
  """A Task of pairs with 'targets', the number of the document; resumable.

  Args:
    task: with 'query', 'document' and 'document_index', from a
      ShardedTextSource.
    ids: of the collection.
  """
  target = seqio.Feature(ids, add_eos=False)
  return task.replace(
    source=ResumableTextSource.of(task.source),
    preprocessors=[*task.preprocessors, _add_targets],
    output_features={**task.output_features, 'targets': target},
  )


def _add_targets(dataset: tf.data.Dataset) -> tf.data.Dataset:
  return dataset.map(
    lambda example: example | {'targets': example['document_index'][None]}
  )


def with_lists(
  task: seqio.Task, draw: Callable, shape: tuple[int, int]
) -> seqio.Task:
  """A Task of which each example has lists that a teacher has ranked.

  Args:
    task: of `for_launcher`.
    draw: (order, document_index, seed) -> 'list_index' int32 [P, M] and
      'list_scores' float32 [P, M]; order as ShardedTextSource gives it, int64
      seed [2] from seqio's, another one for each example of each epoch.
    shape: P, M.
  """
  vocabulary = seqio.PassThroughVocabulary(size=1)
  types = {'list_index': tf.int32, 'list_scores': tf.float32}

  def add(example, seed):
    arguments = [example['order'], example['document_index'], tf.stack(seed)]
    # Not stateful: it gives the same for the same arguments.
    drawn = tf.numpy_function(draw, arguments, [*types.values()], False)
    drawn = [tf.ensure_shape(array, shape) for array in drawn]
    return example | dict(zip(types, drawn, strict=True))

  features = {
    name: seqio.Feature(vocabulary, add_eos=False, dtype=dtype, rank=2)
    for name, dtype in types.items()
  }
  return task.replace(
    preprocessors=[
      *task.preprocessors,
      seqio.map_over_dataset(add, num_seeds=1),
    ],
    output_features={**task.output_features, **features},
  )
