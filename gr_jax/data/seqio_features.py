"""seqio's view of our texts and vocabularies; only preparation imports it."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from gr_jax.data.text_examples import TextExample
from gr_jax.data.vocabularies import Vocabulary
from gr_jax.types import UserError

# A length that no text reaches: MAX_CHARACTERS gives fewer tokens.
_ALL_TOKENS = 1 << 20
_TEXTS = ('query', 'document')
# Texts that pass together from Python to TensorFlow and back.
_BATCH = 512
TEXT_SIGNATURE = {
  'query': tf.TensorSpec([None], tf.string),
  'query_id': tf.TensorSpec([None], tf.string),
  'document': tf.TensorSpec([None], tf.string),
  'document_id': tf.TensorSpec([None], tf.string),
  'document_index': tf.TensorSpec([None], tf.int32),
  'order': tf.TensorSpec([None], tf.int64),
  'inputs': tf.TensorSpec([None], tf.int64),
}
# What 'order' counts within a shard, below the number of the shard.
ORDER_BITS = 32


class SeqioVocabulary(seqio.Vocabulary):
  """One of our vocabularies where seqio and T5X expect theirs."""

  def __init__(self, vocabulary: Vocabulary):
    super().__init__()
    self.vocabulary = vocabulary

  def __eq__(self, other):
    # seqio mixes Tasks of equal vocabularies only.
    return (
      isinstance(other, SeqioVocabulary)
      and other.vocabulary.sha256 == self.vocabulary.sha256
    )

  def __hash__(self):
    return hash(self.vocabulary.sha256)

  @property
  def bos_id(self) -> int | None:
    """None: what text begins with is the vocabulary's own business."""
    return None

  @property
  def eos_id(self) -> int | None:
    """The end marker, where the vocabulary has one."""
    return getattr(self.vocabulary, 'eos_id', None)

  @property
  def unk_id(self) -> int | None:
    """What stands for unknown text, where the vocabulary says."""
    return getattr(self.vocabulary, 'unk_id', None)

  @property
  def _base_vocab_size(self):
    return self.vocabulary.size

  def _encode(self, s):
    return self.vocabulary.encode(s, _ALL_TOKENS)

  def _decode(self, ids):
    return self.vocabulary.decode(ids)

  def _encode_tf(self, s):
    ids = tf.numpy_function(
      lambda text: np.asarray(self._encode(as_string(text)), np.int32),
      [s],
      tf.int32,
    )
    return tf.ensure_shape(ids, [None])

  def _decode_tf(self, ids):
    return tf.numpy_function(
      lambda row: self._decode(np.asarray(row).tolist()).encode(),
      [ids],
      tf.string,
    )


def as_string(text) -> str:
  """What TensorFlow hands over as a text."""
  # A graph hands over bytes, eager execution an array around them.
  return np.asarray(text, object).item().decode()


class ShardedTextSource(seqio.DataSource):
  """Text examples by shard, read in order.

  Each shard is a range of documents, so that one worker can make one output
  file from it. 'order' tells an example's shard and its place there, so that
  what Beam shuffles into a cache can be sorted again.
  """

  def __init__(
    self,
    examples: Callable[[str, int], Iterator[TextExample]],
    shards: Mapping[str, int],
    inputs: int = 0,
  ):
    """Wraps a reader.

    Args:
      examples: of a split and shard.
      shards: how many shards each split has.
      inputs: what every example carries as 'inputs': a hash of all that it
        was made from.
    """
    super().__init__(splits=tuple(shards))
    self._examples = examples
    self._inputs = inputs
    self._shards = dict(shards)

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """No: a shard is a range of documents."""
    return False

  def list_shards(self, split: str) -> Sequence[str]:
    """Names of the shards of a split."""
    return [f'{split}-{number:05d}' for number in range(self._shards[split])]

  def get_dataset(
    self,
    split: str = 'train',
    shuffle: bool = False,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    sequence_length: Mapping[str, int] | None = None,
    use_cached: bool = False,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    """The texts of every shard, or of one in `shard_info.num_shards`.

    Args:
      split: which split.
      shuffle: whether the shards come in random order.
      seed: of that order.
      shard_info: which shards, when not all.
      sequence_length: not used here.
      use_cached: not used here.
      num_epochs: not used here; the Task repeats.

    Returns:
      Examples with string features, an int32 document_index, and 'order' and
      'inputs' as int64.
    """
    del sequence_length, use_cached, num_epochs
    numbers = np.arange(self._shards[split])
    if shuffle:
      generator = np.random.default_rng(None if seed is None else int(seed))
      generator.shuffle(numbers)
    if shard_info is not None:
      numbers = numbers[shard_info.index :: shard_info.num_shards]
    return self._texts(split, numbers.tolist())

  def _texts(self, split: str, numbers: Sequence[int]) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(
      functools.partial(self._batches, split, numbers),
      output_signature=TEXT_SIGNATURE,
    ).unbatch()

  def _batches(self, split: str, numbers: Sequence[int]):
    for number in numbers:
      first = number << ORDER_BITS
      examples = iter(self._examples(split, number))
      while rows := list(itertools.islice(examples, _BATCH)):
        order = np.arange(first, first + len(rows), dtype=np.int64)
        inputs = np.full(len(rows), self._inputs, np.int64)
        yield _columns(rows) | {'order': order, 'inputs': inputs}
        first += len(rows)


def _columns(rows: Sequence[TextExample]) -> dict[str, np.ndarray]:
  # TensorFlow takes bytes; numpy strings would lose trailing blanks.
  texts = {
    name: np.array([getattr(row, name).encode() for row in rows], object)
    for name in ('query', 'query_id', 'document', 'document_id')
  }
  indices = np.array([row.document_index for row in rows], np.int32)
  return {**texts, 'document_index': indices}


def tokenize(
  dataset: tf.data.Dataset,
  output_features: Mapping[str, seqio.Feature],
  lengths: Mapping[str, int],
) -> tf.data.Dataset:
  """Replaces the text of each output feature by its token ids.

  A feature is cut inside the vocabulary, so that the end marker survives;
  'FEATURE_truncated' says whether it was. Texts that are no output feature are
  dropped, ids are passed through. What seqio caches is made before it knows a
  sequence length: the lengths are those of the settings.

  Args:
    dataset: examples with strings.
    output_features: what to tokenise, with its vocabulary.
    lengths: tokens at most of each feature.

  Returns:
    Examples with int32 token ids.
  """

  def encode(batch):
    batch = dict(batch)
    for name in _TEXTS:
      texts = batch.pop(name)
      if name not in output_features:
        continue
      ids, counts, truncated = tf.numpy_function(
        functools.partial(
          _encode_texts,
          output_features[name].vocabulary.vocabulary,
          lengths[name],
        ),
        [texts],
        [tf.int32, tf.int64, tf.bool],
        # tf.data saves no iterator over what has a state.
        stateful=False,
      )
      ids = tf.ensure_shape(ids, [None])
      ragged = tf.RaggedTensor.from_row_lengths(
        ids, tf.ensure_shape(counts, [None]), validate=False
      )
      batch[name] = ragged
      batch[f'{name}_truncated'] = tf.ensure_shape(truncated, [None])
    return batch

  return dataset.batch(_BATCH).map(encode).unbatch()


def cut(
  dataset: tf.data.Dataset,
  sequence_length: Mapping[str, int] | None,
  lengths: Mapping[str, int],
) -> tf.data.Dataset:
  """Cuts tokens to a shorter sequence length, the end marker kept.

  Args:
    dataset: examples as `tokenize` makes them, perhaps out of a cache.
    sequence_length: tokens at most of each feature; None for those it has.
    lengths: what `tokenize` cut to.

  Returns:
    Examples of the same features.

  Raises:
    UserError: for a length past that, whose tokens are gone.
  """
  asked = {
    name: length
    for name, length in (sequence_length or {}).items()
    if name in lengths and name in dataset.element_spec and length
  }
  for name, length in asked.items():
    if length > lengths[name]:
      raise UserError(
        f'the Task keeps {lengths[name]} tokens of a {name}, {length} are '
        f'asked for: raise PreparationSettings.{name}_length (and cache again)'
      )
  shorter = {n: length for n, length in asked.items() if length < lengths[n]}

  def shorten(example):
    example = dict(example)
    for name, length in shorter.items():
      ids = example[name]
      # Of what stands past the others only the last is kept.
      end = ids[length - 1 :][-1:]
      example[name] = tf.concat([ids[: length - 1], end], axis=0)
      example[f'{name}_truncated'] |= tf.size(ids) > length
    return example

  return dataset.map(shorten) if shorter else dataset


def _encode_texts(vocabulary: Vocabulary, length: int, texts: np.ndarray):
  encoded = vocabulary.encode_counted([text.decode() for text in texts], length)
  counts = np.array([len(row.ids) for row in encoded], np.int64)
  flat = [number for row in encoded for number in row.ids]
  truncated = np.array([row.truncated for row in encoded], bool)
  return np.array(flat, np.int32), counts, truncated
