"""Vectors of a frozen encoder, computed once and kept on disk.

  DIRECTORY/
    documents.npy              vectors of the documents
    queries_SOURCE.npy         of the queries of a source
    documents.json, ...        what each of them is of, and its checksum
    negatives_SOURCE.npy       found from them (retrieval.hard_negatives)
    negatives_SOURCE.crc32c    its checksum

Each file is of its own texts: what another source of queries adds is all that
has to be encoded for it.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np

from gr_jax import locks, processes
from gr_jax.checksums import crc32c_of
from gr_jax.retrieval.shards import encode_shards, join, write_whole
from gr_jax.types import UserError

DOCUMENTS = 'documents'


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
    directory: for the files; one that is of other inputs is made anew.
    encode: [B, S] token ids (0 pads) -> [B, E] vectors; jitted.
    prepared: data.prepared.PreparedData.
    sources: names of the example sources that are trained on.
    fingerprint: of the encoder's weights, its pooling and the vocabulary.
    report: told what is being encoded.
    shard_rows: see shards.encode_shards.

  Returns:
    The vectors of the documents and of the queries of each source.

  Raises:
    UserError: a file is not as it was written.
  """
  texts = _texts(prepared, sources)
  paths = {name: directory / f'{name}.npy' for name in texts}
  inputs = {name: _inputs(prepared, name, fingerprint) for name in texts}

  def absent():
    return [n for n, p in paths.items() if not _is_there(p, inputs[n])]

  def start(stack):
    lock = directory.with_name(f'.{directory.name}.lock')
    doing = f'encoding texts into {directory}'
    stack.enter_context(locks.held(lock, doing, 'choose another CACHE_DIR'))
    directory.mkdir(parents=True, exist_ok=True)
    for name, path in paths.items():
      _start(path, inputs[name])
    return absent()

  if processes.first(absent):
    with contextlib.ExitStack() as stack:
      for name in processes.first(lambda: start(stack)):
        count = texts[name][1]
        report(f'encoding {count:,} texts of {name!r}, once for all runs here')
        _encode(paths[name], encode, texts[name], inputs[name], shard_rows)
  processes.first(lambda: check(paths.values()))
  tables = {
    name: np.load(path, mmap_mode='r', allow_pickle=False)
    for name, path in paths.items()
  }
  return FrozenVectors(
    documents=tables[DOCUMENTS],
    queries={name: tables[f'queries_{name}'] for name in sources},
  )


def share_vectors(
  directory: pathlib.Path, others: Sequence[pathlib.Path]
) -> None:
  """Takes vectors that lie in other folders, as hard links or copies.

  Which of them are of the right texts their marks say: the others are encoded.

  Args:
    directory: of `frozen_vectors`; what it has stays.
    others: folders of other preparations of the same collection.
  """
  for other in others:
    for theirs in sorted(other.glob('*.json')):
      mark, text = directory / theirs.name, theirs.read_text(encoding='utf-8')
      vectors = theirs.with_suffix('.npy')
      if mark.exists() or not vectors.exists() or not _checksum(theirs):
        continue
      directory.mkdir(parents=True, exist_ok=True)
      _link(vectors, mark.with_suffix('.npy'))
      # What the mark says by now may be of other vectors.
      write_whole(mark, text)


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
  """One file under two names, or two where the file system has no links."""
  partial = target.with_name(f'{target.name}.partial')
  partial.unlink(missing_ok=True)
  try:
    os.link(source, partial)
  except OSError:
    shutil.copyfile(source, partial)
  os.replace(partial, target)


def _encode(path: pathlib.Path, encode, texts, inputs: str, rows) -> None:
  """Encodes the texts of one file; several processes share them."""
  folder = path.with_suffix('.shards')
  shards = encode_shards(folder, encode, *texts, inputs, rows)

  def describe(whole):
    mark = _mark_text(inputs, crc32c_of(whole))
    write_whole(path.with_suffix('.json'), mark)

  processes.first(lambda: join(shards, texts[1], path, describe))


def damaged(path: pathlib.Path) -> str:
  """A line on vectors or negatives that are not as they were written, or ''.

  Args:
    path: the file, beside its mark.
  """
  mark, found = _mark_of(path), crc32c_of(path)
  expected = _checksum(mark)
  if found == expected:
    return ''
  return f'{path} is damaged: crc32c {found}, {mark} has {expected}'


def check(paths: Iterable[pathlib.Path]) -> None:
  """Refuses files that `damaged` finds.

  Raises:
    UserError: for the first.
  """
  for path in paths:
    if line := damaged(path):
      raise UserError(f'{line}: delete the file, and it is made anew')


def damaged_files(directory: pathlib.Path) -> tuple[dict, list[str]]:
  """Checks every byte of a folder of vectors.

  Args:
    directory: of `frozen_vectors`.

  Returns:
    {name: {'bytes'}} of its files, and a line on each that is not as it was
    written.
  """
  # A kill leaves files with two dots, half written, and files without a mark,
  # which are made anew.
  paths = sorted(
    path
    for path in directory.glob('*.npy')
    if '.' not in path.stem and _mark_of(path).is_file()
  )
  files = {path.name: {'bytes': path.stat().st_size} for path in paths}
  return files, [line for path in paths if (line := damaged(path))]


def checksum_file(path: pathlib.Path) -> pathlib.Path:
  """Where the checksum of hard negatives lies."""
  return path.with_suffix('.crc32c')


def _mark_of(path: pathlib.Path) -> pathlib.Path:
  """The file with the checksum of vectors or of negatives."""
  if path.name.startswith('negatives_'):
    return checksum_file(path)
  return path.with_suffix('.json')


def _checksum(mark: pathlib.Path) -> str | None:
  """What a mark says; None for one that is not there or of no file yet."""
  if not mark.is_file():
    return None
  if mark.suffix == '.crc32c':
    return mark.read_text(encoding='utf-8')
  return _read_mark(mark).get('crc32c')


def _texts(prepared, sources: Sequence[str]) -> dict[str, tuple]:
  """What reads the tokens of each file, how many texts, the longest one."""
  texts = {
    DOCUMENTS: (
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


def _inputs(prepared, name: str, fingerprint: str) -> str:
  """Checksum of what the vectors of a file are made from."""
  part = prepared.part_sha256(name.removeprefix('queries_'))
  return hashlib.sha256(f'{fingerprint} {part}'.encode()).hexdigest()


def _mark_text(inputs: str, crc32c: str | None) -> str:
  return json.dumps({'inputs': inputs, 'crc32c': crc32c}) + '\n'


def _read_mark(mark: pathlib.Path) -> dict:
  try:
    return json.loads(mark.read_bytes())
  except ValueError:
    return {}


def _is_there(path: pathlib.Path, inputs: str) -> bool:
  return path.exists() and _is_of(path, inputs)


def _is_of(path: pathlib.Path, inputs: str) -> bool:
  """Whether the vectors that a file has, or is to have, are of these inputs.

  Those without a checksum were encoded by a version that kept none.
  """
  mark = path.with_suffix('.json')
  if path.exists() and not _checksum(mark):
    return False
  return mark.is_file() and _read_mark(mark).get('inputs') == inputs


def _start(path: pathlib.Path, inputs: str) -> None:
  """Keeps vectors of the same inputs, removes those of others.

  Vectors without a mark are of nobody knows what: a kill here leaves such. What
  was found from vectors goes before they do.
  """
  if _is_of(path, inputs):
    return
  source = path.stem.removeprefix('queries_')
  found_from = '*' if path.stem == DOCUMENTS else source
  for negatives in path.parent.glob(f'negatives_{found_from}.npy'):
    negatives.unlink()
    checksum_file(negatives).unlink(missing_ok=True)
  path.unlink(missing_ok=True)
  write_whole(path.with_suffix('.json'), _mark_text(inputs, None))
