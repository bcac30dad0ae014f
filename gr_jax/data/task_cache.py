"""Examples out of what seqio_cache_tasks wrote, in the order of the Task.

Beam writes a Task's examples in an order of its own, another one each time.
'order' of each example brings back that of the Task, and a hash that does not
depend on it says whether two caches hold the same.
"""

import hashlib
import pathlib
import struct
from collections.abc import Iterator, Mapping

import numpy as np

from gr_jax.data.task_rows import READ_BATCH, Row, rows_of_batch
from gr_jax.types import UserError, near_miss

_SPLIT = 'train'
# Order, document index, whether cut, numbers of tokens and of id bytes.
_HEADER = struct.Struct('<qiiii')
_TOKEN = np.dtype('<i4')
# What is held back before it is appended to the files of its shards.
_SPILL_BYTES = 64 << 20
_MODULUS = 1 << 256
_REMEDY = (
  'cache the Task again (python -m gr_jax.prepare --plan=PLAN, then '
  'seqio_cache_tasks with --overwrite)'
)


class ContentHash:
  """A hash of examples that does not depend on their order.

  The SHA-256 of each example are added up modulo 2^256, so that an example
  that is there twice counts twice.
  """

  def __init__(self):
    self._sum = 0
    self.examples = 0

  def add(self, example: Mapping[str, object]) -> None:
    """Counts one example: features as numpy arrays, numbers or bytes."""
    digest = hashlib.sha256()
    for name in sorted(example):
      value = np.asarray(example[name])
      # Bool and int32 come out of a cache as they went in; their width says
      # nothing of their value.
      text = value.dtype.kind in 'OS'
      content = value.item() if text else value.astype('<i8').tobytes()
      digest.update(f'{name} {value.ndim} {len(content)}\n'.encode())
      digest.update(content)
    number = int.from_bytes(digest.digest(), 'big')
    self._sum = (self._sum + number) % _MODULUS
    self.examples += 1

  def summary(self) -> dict:
    """{'examples': how many, 'sha256': 64 hexadecimal digits}."""
    return {'examples': self.examples, 'sha256': f'{self._sum:064x}'}


class TaskCache:
  """The cache of one Task."""

  def __init__(self, task, folder: str, stamp: int):
    """Finds the cache.

    Args:
      task: a seqio.Task of `tasks.beir.beir_tasks`.
      folder: the `--output_cache_dir` of seqio_cache_tasks.
      stamp: `plan_files.inputs_stamp` of what the examples should be made of.

    Raises:
      UserError: when there is no complete cache.
    """
    import seqio

    self._task, self._stamp = task, stamp
    before = seqio.get_global_cache_dirs()
    seqio.set_global_cache_dirs([folder])
    place = task.cache_dir
    seqio.set_global_cache_dirs(before)
    if place is None:
      path = pathlib.Path(folder)
      there = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
      raise UserError(
        f'{folder}: no complete cache of the Task {task.name!r}; there are '
        f'{there}{near_miss(task.name, there)}; {_REMEDY}'
      )
    self._place = place

  def batches(self) -> Iterator[Mapping[str, np.ndarray]]:
    """All examples in the order of the cache, checked for what made them.

    Raises:
      UserError: when the cache is damaged, or was made from other inputs.
    """
    import tensorflow as tf

    dataset = self._task.get_dataset(
      split=_SPLIT, use_cached=True, shuffle=False, try_in_mem_cache=False
    )
    if not {'order', 'inputs'} <= dataset.element_spec.keys():
      raise UserError(f'{self._place}: not of a Task of gr_jax; {_REMEDY}')
    count = 0
    try:
      for batch in dataset.ragged_batch(READ_BATCH).as_numpy_iterator():
        if (batch['inputs'] != self._stamp).any():
          raise UserError(
            f'{self._place}: cached from other texts, settings or vocabulary '
            f'than those of this preparation; {_REMEDY}'
          )
        count += len(batch['order'])
        yield batch
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
      raise UserError(
        f'{self._place}: damaged: {error.message}; {_REMEDY}'
      ) from error
    expected = self._task.get_cached_stats(_SPLIT)['examples']
    if count != expected:
      raise UserError(
        f'{self._place}: damaged: {count} examples, {expected} were cached; '
        f'{_REMEDY}'
      )

  def content(self) -> dict:
    """Count and order-free hash of the examples, see ContentHash."""
    content = ContentHash()
    for batch in self.batches():
      _count(content, batch)
    return content.summary()

  def spill(self, folder: pathlib.Path, feature: str) -> dict:
    """Divides the cache into a file for each shard of the Task, unsorted.

    Args:
      folder: of the files, which `sorted_rows` reads and removes.
      feature: whose tokens are wanted.

    Returns:
      What `content` does.

    Raises:
      UserError: as `batches`.
    """
    from gr_jax.data.seqio_features import ORDER_BITS

    content, held, size = ContentHash(), {}, 0
    for batch in self.batches():
      _count(content, batch)
      rows = rows_of_batch(batch, feature)
      for order, row in zip(batch['order'].tolist(), rows, strict=True):
        record = _encode(order, row)
        held.setdefault(order >> ORDER_BITS, bytearray()).extend(record)
        size += len(record)
      if size > _SPILL_BYTES:
        self._append(folder, held)
        held, size = {}, 0
    self._append(folder, held)
    return content.summary()

  def sorted_rows(self, folder: pathlib.Path, shard: int) -> Iterator[Row]:
    """The rows of a shard in the order of the Task; removes its file.

    Raises:
      UserError: when an example is missing or there twice.
    """
    from gr_jax.data.seqio_features import ORDER_BITS

    path = self._spilled(folder, shard)
    content = path.read_bytes() if path.exists() else b''
    rows = sorted(_decode_all(content), key=lambda pair: pair[0])
    path.unlink(missing_ok=True)
    first = shard << ORDER_BITS
    if [order - first for order, _ in rows] != list(range(len(rows))):
      raise UserError(
        f'{self._place}: damaged: an example of shard {shard} is missing or '
        f'there twice; {_REMEDY}'
      )
    return (row for _, row in rows)

  def _append(self, folder: pathlib.Path, held: dict[int, bytearray]) -> None:
    for shard, records in held.items():
      with self._spilled(folder, shard).open('ab') as file:
        file.write(records)

  def _spilled(self, folder: pathlib.Path, shard: int) -> pathlib.Path:
    return folder / f'{self._task.name}-{shard:05d}.unsorted'


def _count(content: ContentHash, batch: Mapping[str, np.ndarray]) -> None:
  for row in range(len(batch['order'])):
    content.add({name: values[row] for name, values in batch.items()})


def _encode(order: int, row: Row) -> bytes:
  name = row.query_id.encode()
  header = _HEADER.pack(
    order, row.document_index, row.truncated, len(row.tokens), len(name)
  )
  return header + row.tokens.astype(_TOKEN).tobytes() + name


def _decode_all(content: bytes) -> Iterator[tuple[int, Row]]:
  at = 0
  while at < len(content):
    order, index, cut, tokens, name = _HEADER.unpack_from(content, at)
    at += _HEADER.size
    ids = np.frombuffer(content, _TOKEN, tokens, at)
    at += ids.nbytes
    yield order, Row(ids, index, content[at : at + name].decode(), bool(cut))
    at += name
