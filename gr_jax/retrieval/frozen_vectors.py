"""Vectors of a frozen encoder, computed once and kept on disk."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from gr_jax import locks, processes
from gr_jax.retrieval.shards import encode_shards, join

_MARK = 'vectors.json'


@dataclasses.dataclass(frozen=True)
class FrozenVectors:
  """What the encoder pooled, memory-mapped; neither projected nor normalised.

  Attributes:
    documents: [N, E] float32, in corpus order.
    queries: source -> [examples, E] float32.
  """

  documents: np.ndarray
  queries: Mapping[str, np.ndarray]


def frozen_vectors(
  directory: pathlib.Path,
  encode: Callable[[jax.Array], jax.Array],
  prepared,
  sources: Sequence[str],
  fingerprint: str,
  report: Callable[[str], None],
  shard_rows: int | None = None,
) -> FrozenVectors:
  """Reads the vectors of prepared examples, and encodes those not there yet.

  An interrupted run goes on with the next shard; several processes share them.

  Args:
    directory: for the files; emptied when they are of other inputs.
    encode: [B, S] token ids (0 pads) -> [B, E] vectors; jitted.
    prepared: data.prepared.PreparedData.
    sources: names of the example sources that are trained on.
    fingerprint: of the encoder's weights, pooling and the prepared examples.
    report: told what is being encoded.
    shard_rows: see shards.encode_shards.

  Returns:
    The vectors of the documents and of the queries of each source.
  """
  texts = _texts(prepared, sources)
  paths = {name: directory / f'{name}.npy' for name in texts}

  def absent():
    if not _is_of(directory, fingerprint):
      return list(paths)
    return [name for name, path in paths.items() if not path.exists()]

  def start(stack):
    lock = directory.with_name(f'.{directory.name}.lock')
    doing = f'encoding texts into {directory}'
    stack.enter_context(locks.held(lock, doing, 'choose another CACHE_DIR'))
    _start_folder(directory, fingerprint)
    return absent()

  if processes.first(absent):
    with contextlib.ExitStack() as stack:
      for name in processes.first(lambda: start(stack)):
        count = texts[name][1]
        report(f'encoding {count:,} texts of {name!r}, once for all runs here')
        folder = directory / f'{name}.shards'
        shards = encode_shards(
          folder, encode, *texts[name], fingerprint, shard_rows
        )
        _join(shards, count, paths[name])
  tables = {
    name: np.load(path, mmap_mode='r', allow_pickle=False)
    for name, path in paths.items()
  }
  return FrozenVectors(
    documents=tables['documents'],
    queries={name: tables[f'queries_{name}'] for name in sources},
  )


def _join(shards, count: int, path: pathlib.Path) -> None:
  processes.first(lambda: join(shards, count, path))


def _texts(prepared, sources: Sequence[str]) -> dict[str, tuple]:
  """What reads the tokens of each file, how many texts, the longest one."""
  texts = {
    'documents': (
      prepared.document_tokens,
      len(prepared.document_ids),
      prepared.document_length,
    )
  }
  for name in sources:
    source = prepared.sources[name]
    texts[f'queries_{name}'] = (
      source.query_tokens,
      len(source),
      prepared.query_length,
    )
  return texts


def _mark_text(fingerprint: str) -> str:
  return json.dumps({'fingerprint': fingerprint}) + '\n'


def _is_of(directory: pathlib.Path, fingerprint: str) -> bool:
  """Whether what lies in a folder is of these inputs."""
  mark = directory / _MARK
  return mark.is_file() and mark.read_text() == _mark_text(fingerprint)


def _start_folder(directory: pathlib.Path, fingerprint: str) -> None:
  """Keeps the folder of the same inputs, replaces one of others.

  Vectors without a mark are of nobody knows what: a kill while the folder was
  being removed leaves such.
  """
  if _is_of(directory, fingerprint):
    return
  if directory.exists():
    shutil.rmtree(directory)
  directory.mkdir(parents=True)
  partial = directory / f'{_MARK}.partial'
  partial.write_text(_mark_text(fingerprint))
  os.replace(partial, directory / _MARK)
