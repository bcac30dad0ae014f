"""Vectors of a frozen encoder, computed once and kept on disk."""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from gr_jax.retrieval.encoding import encode_texts

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
) -> FrozenVectors:
  """Reads the vectors of prepared examples, and encodes those not there yet.

  Each file appears whole, so that an interrupted run goes on with the next.

  Args:
    directory: for the files; emptied when they are of other inputs.
    encode: [B, S] token ids (0 pads) -> [B, E] vectors; jitted.
    prepared: data.prepared.PreparedData.
    sources: names of the example sources that are trained on.
    fingerprint: of the encoder's weights, pooling and the prepared examples.
    report: told what is being encoded.

  Returns:
    The vectors of the documents and of the queries of each source.
  """
  _start_folder(directory, fingerprint)

  def table(name, read_tokens, count, longest):
    path = directory / f'{name}.npy'
    if not path.exists():
      report(f'encoding {count:,} texts of {name!r}, once for all runs here')
      vectors = encode_texts(encode, read_tokens, count, longest)
      partial = path.with_suffix('.partial.npy')
      np.save(partial, vectors)
      os.replace(partial, path)
    return np.load(path, mmap_mode='r', allow_pickle=False)

  return FrozenVectors(
    documents=table(
      'documents',
      prepared.document_tokens,
      len(prepared.document_ids),
      prepared.document_length,
    ),
    queries={
      name: table(
        f'queries_{name}',
        prepared.sources[name].query_tokens,
        len(prepared.sources[name]),
        prepared.query_length,
      )
      for name in sources
    },
  )


def _start_folder(directory: pathlib.Path, fingerprint: str) -> None:
  """Keeps the folder of the same inputs, replaces one of others."""
  mark = directory / _MARK
  if mark.is_file():
    if json.loads(mark.read_text())['fingerprint'] == fingerprint:
      return
    shutil.rmtree(directory)
  directory.mkdir(parents=True, exist_ok=True)
  mark.write_text(json.dumps({'fingerprint': fingerprint}) + '\n')
