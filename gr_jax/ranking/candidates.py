"""What finds the candidate documents that a teacher ranks.

A source has a `name`, a `sha256` of what it goes by ('' for none), and
`find(queries, depth)`: [B, depth] rows of documents, NO_DOC past the last.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from gr_jax import processes
from gr_jax.checksums import file_sha256
from gr_jax.evaluation.run_files import read_run
from gr_jax.retrieval.opening import open_searcher
from gr_jax.types import NO_DOC, Query, UserError


class Source(Protocol):
  """What is asked of a source of candidates."""

  name: str
  sha256: str

  def find(self, queries: Sequence[Query], depth: int) -> np.ndarray:
    """[B, depth] rows of documents, the best first."""
    ...


class RunFile:
  """A TREC run as a source of candidates."""

  def __init__(
    self,
    path: pathlib.Path,
    row_of: Mapping[str, int],
    queries: Sequence[Query],
  ):
    """Reads the run.

    Args:
      path: of the file.
      row_of: row of each document id of the corpus.
      queries: that it should answer.
    """
    self.name, self.sha256 = f'run file {path}', file_sha256(path)
    self._path, self._row_of = path, row_of
    self._run = read_run(path)
    without = sum(query.id not in self._run for query in queries)
    if without == len(queries):
      raise UserError(
        f'{path} answers none of the {len(queries):,} queries: give the run '
        'of this split'
      )
    if without:
      processes.say(f'{path} answers no query of {without:,}')

  def find(self, queries: Sequence[Query], depth: int) -> np.ndarray:
    """[B, depth] rows of the documents that it ranks first."""
    rows_BC = np.full((len(queries), depth), NO_DOC, np.int64)
    for number, query in enumerate(queries):
      scores = self._run.get(query.id, {})
      best = sorted(scores, reverse=True)
      best.sort(key=lambda name: -scores[name])
      rows = [self._row(name) for name in best[:depth]]
      rows_BC[number, : len(rows)] = rows
    return rows_BC

  def _row(self, name: str) -> int:
    if name not in self._row_of:
      raise UserError(
        f'{self._path} ranks the document {name[:60]!r}, which is not in the '
        'corpus: give the run of this collection'
      )
    return self._row_of[name]


class IndexSource:
  """A student: what its index answers."""

  def __init__(
    self,
    path: pathlib.Path,
    row_of: Mapping[str, int],
    changes: Mapping[str, Any] | None = None,
  ):
    """Opens the index.

    Args:
      path: of the index.
      row_of: row of each document id of the corpus.
      changes: fields of SearchSettings that differ from what it was saved with;
        no part of its hash.
    """
    self.name = f'index {path}'
    self._searcher = open_searcher(path, changes=changes)
    names = list(self._searcher.document_ids)
    self.sha256 = _index_sha256(self._searcher.snapshot, names)
    if missing := [name for name in names if name not in row_of]:
      raise UserError(
        f'{path} holds the document {missing[0][:60]!r}, which is not in the '
        'corpus: give the index of this collection'
      )
    # One more, for NO_DOC.
    rows = [*(row_of[name] for name in names), NO_DOC]
    self._rows_N = np.array(rows, np.int64)

  def find(self, queries: Sequence[Query], depth: int) -> np.ndarray:
    """[B, depth] rows of the documents that it ranks first."""
    texts = [query.text for query in queries]
    found_BC = self._searcher.search_batch(texts, depth).documents_BC
    return self._rows_N[found_BC]


def _index_sha256(snapshot, names: Sequence[str]) -> str:
  """Of all that an index finds: its model, its settings, what is in it now."""
  manifest = json.dumps(snapshot.base.manifest, sort_keys=True)
  digest = hashlib.sha256('\n'.join([manifest, *names]).encode())
  digest.update(snapshot.states_N.tobytes())
  return digest.hexdigest()
