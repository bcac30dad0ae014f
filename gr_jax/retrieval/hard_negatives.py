"""Hard negatives: the documents nearest to a query that do not answer it."""

import os
import pathlib
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from gr_jax import locks, processes
from gr_jax.checksums import crc32c_of
from gr_jax.retrieval.exact import exact_top_k
from gr_jax.retrieval.frozen_vectors import FrozenVectors, check, checksum_file
from gr_jax.retrieval.shards import write_whole
from gr_jax.types import NO_DOC

# Kept of each query, nearest first; the loader draws from them.
KEPT = 30
_BATCH = 512


def mined_negatives(
  directory: pathlib.Path,
  vectors: FrozenVectors,
  prepared,
  report: Callable[[str], None],
) -> dict[str, np.ndarray]:
  """Reads the hard negatives of all training queries, or finds them first.

  Args:
    directory: of the vectors: when they are of other inputs, what was found
      from them is removed with them.
    vectors: of documents and queries, of the encoder as it was before training.
    prepared: data.prepared.PreparedData.
    report: told what is being searched.

  Returns:
    {source: [examples, KEPT] int32 document numbers, NO_DOC past the last}.

  Raises:
    UserError: a file is not as it was written.
  """
  paths = {
    name: directory / f'negatives_{name}.npy' for name in vectors.queries
  }
  processes.first(lambda: _find(directory, paths, vectors, prepared, report))
  return {
    name: np.load(path, mmap_mode='r', allow_pickle=False)
    for name, path in paths.items()
  }


def _find(directory, paths, vectors, prepared, report) -> None:
  """Writes the files that are not there yet."""
  for name, path in paths.items():
    if path.exists() and checksum_file(path).is_file():
      continue
    queries_XE = vectors.queries[name]
    with locks.held(
      directory.with_name(f'.{directory.name}.lock'),
      f'searching hard negatives in {directory}',
      'choose another CACHE_DIR',
    ):
      report(f'searching hard negatives of {len(queries_XE):,} {name!r}')
      partial = path.with_suffix('.partial.npy')
      positives = positives_of(prepared.sources[name])
      np.save(partial, _nearest(queries_XE, vectors.documents, positives))
      write_whole(checksum_file(path), crc32c_of(partial))
      os.replace(partial, path)
  check(paths.values())


def positives_of(source) -> list[set[int]]:
  """The documents that are known to answer each example's query."""
  examples, by_query = [], defaultdict(set)
  for start in range(0, len(source), 4096):
    rows = range(start, min(start + 4096, len(source)))
    examples += [
      (example.query_id, example.document_index)
      for example in source.examples(rows)
    ]
  for query_id, document in examples:
    by_query[query_id].add(document)
  return [
    by_query[query_id] if query_id else {document}
    for query_id, document in examples
  ]


def _nearest(queries_XE, documents_NE, positives) -> np.ndarray:
  """[X, KEPT] the nearest documents that are no positives of their query."""
  negatives_XC = np.full((len(queries_XE), KEPT), NO_DOC, np.int32)
  documents_NE = _unit(documents_NE)
  most = KEPT + max(map(len, positives), default=0)
  batch = min(_BATCH, len(queries_XE))
  for start in range(0, len(queries_XE), batch):
    part_BE = _unit(queries_XE[start : start + batch])
    # Of one shape, which is compiled once.
    filled_BE = np.resize(part_BE, (batch, part_BE.shape[1]))
    rows_BC, _ = exact_top_k(filled_BE, documents_NE, most)
    for place in range(len(part_BE)):
      known = {*positives[start + place], NO_DOC}
      kept = [row for row in rows_BC[place].tolist() if row not in known]
      negatives_XC[start + place, : len(kept[:KEPT])] = kept[:KEPT]
  return negatives_XC


def _unit(vectors: np.ndarray) -> np.ndarray:
  vectors = np.asarray(vectors, np.float32)
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.maximum(lengths, 1e-6)
