"""What T5X asks of a Task's examples: the arrays that a Retriever reads."""

from collections.abc import Mapping
from typing import ClassVar

import seqio
import tensorflow as tf

from gr_jax.types import UserError

_TEXTS = ('query', 'document')
# Of Tasks whose examples a teacher has ranked documents for.
_LISTS = {
  'list_index': seqio.FeatureConverter.FeatureSpec(dtype=tf.int32, rank=2),
  'list_scores': seqio.FeatureConverter.FeatureSpec(dtype=tf.float32, rank=2),
}


class RetrievalFeatureConverter(seqio.FeatureConverter):
  """Queries, documents and numbers of documents as a Retriever takes them.

  Task features are 'query' and 'document', token ids of any length, and
  'targets', the number of the document alone. Model features are 'query_tokens'
  and 'document_tokens', padded with 0, and 'document_index'.

  Where the lengths name them, 'list_index' int32 [P, M] and 'list_scores'
  float32 [P, M] go through as they are; their length is P.
  """

  TASK_FEATURES: ClassVar = dict.fromkeys(
    (*_TEXTS, 'targets'), seqio.FeatureConverter.FeatureSpec(dtype=tf.int32)
  )
  MODEL_FEATURES: ClassVar = {
    'query_tokens': seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    'document_tokens': seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    'document_index': seqio.FeatureConverter.FeatureSpec(
      dtype=tf.int32, rank=0
    ),
  }
  PACKING_FEATURE_DTYPES: ClassVar = {}

  def __init__(self, pack: bool = False, use_custom_packing_ops: bool = False):
    """Made by T5X and by seqio's Evaluator.

    Args:
      pack: refused: a vector stands for one text.
      use_custom_packing_ops: of packing.
    """
    if pack or use_custom_packing_ops:
      raise UserError(
        'a vector stands for one text: set DatasetConfig.pack = False'
      )
    super().__init__(pack=False)

  def __call__(
    self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
  ) -> tf.data.Dataset:
    """Converts a Task's examples.

    Args:
      ds: the examples.
      task_feature_lengths: of each feature that is taken.
    """
    # A launcher has one converter for Tasks with lists and those without.
    named = _LISTS.keys() & task_feature_lengths.keys()
    self._passthrough_features = {name: _LISTS[name] for name in named}
    return super().__call__(ds, task_feature_lengths)

  def _convert_features(
    self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
  ) -> tf.data.Dataset:
    def convert(example):
      texts = {
        f'{name}_tokens': _padded(example[name], task_feature_lengths[name])
        for name in _TEXTS
      }
      lists = {name: example[name] for name in self._passthrough_features}
      return texts | lists | {'document_index': example['targets'][0]}

    return ds.map(convert, num_parallel_calls=tf.data.AUTOTUNE)

  def get_model_feature_lengths(
    self, task_feature_lengths: Mapping[str, int]
  ) -> Mapping[str, int]:
    """Lengths of the model features; seqio reads none of a number."""
    passed = self._passthrough_features
    return {
      'query_tokens': task_feature_lengths['query'],
      'document_tokens': task_feature_lengths['document'],
      'document_index': 1,
      **{name: task_feature_lengths[name] for name in passed},
    }


def _padded(ids: tf.Tensor, length: int) -> tf.Tensor:
  """[length] token ids, 0 behind the last."""
  padded = tf.pad(ids, [[0, length - tf.shape(ids)[0]]])
  return tf.ensure_shape(padded, [length])
