"""What changes of an index cost while it is searched, and whether any is lost.

python benchmarks/living.py --documents=1000000 --changes=1000000 \
  --output=living.json

Half of the changes are insertions, half deletions, so many at once
(--at_once); after each pair a batch of queries is searched. The index is on
disk: every change is synced. There is no network: queries are vectors of the
corpus, and codes are scored by residuals of theirs. At the end the documents
are counted one by one, in memory and in the index that is opened again.
"""

import argparse
import dataclasses
import json
import pathlib
import shlex
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from balance import hardware

from gr_jax import entry
from gr_jax.index.changes import Delete, Insert
from gr_jax.index.index import Index
from gr_jax.index.living import LivingIndex
from gr_jax.index.reader import load_index
from gr_jax.retrieval import program
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher

_QUERIES = 8
_K = 10


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoding:
  """Queries as vectors."""

  vectors_BD: jax.Array


class Residuals:
  """A model without a network: a query is the number of a row of vectors."""

  def apply(self, variables, *args, method):
    """As flax modules do."""
    return getattr(self, method)(variables['params'], *args)

  def encode(self, params, tokens_BS):
    """Rows of a table."""
    return Encoding(params['queries'][tokens_BS[:, 0]])

  def start(self, params, encoding, width):
    """What is left of a query, for each beam."""
    del params
    vectors_BD = encoding.vectors_BD
    shape = (vectors_BD.shape[0], width, vectors_BD.shape[1])
    return jnp.broadcast_to(vectors_BD[:, None, :], shape)

  def decode(self, params, left_BWD, codes_BW, level):
    """Products with codewords, and what is left behind the last one."""
    before_KD = params['codebooks'][jnp.maximum(level - 1, 0)]
    taken_BWD = jnp.where(level > 0, before_KD[codes_BW], 0.0)
    left_BWD = left_BWD - taken_BWD
    codebook_KD = params['codebooks'][level]
    return jnp.einsum('BWD,KD->BWK', left_BWD, codebook_KD), left_BWD


class Numbers:
  """Queries as the numbers that they are."""

  pad_id = 0
  sha256 = '0' * 64

  def encode_batch(self, texts, length):
    """One token each."""
    del length
    return [[int(text)] for text in texts]

  def save(self, directory):
    """There is nothing to keep."""
    (directory / 'numbers.txt').write_text('numbers\n', encoding='utf-8')


class Documents:
  """Makes documents; their identifiers are uniform."""

  def __init__(self, codes: int, length: int, width: int):
    """Fixes the space.

    Args:
      codes: of each position.
      length: positions.
      width: of a vector.
    """
    self._rng = np.random.default_rng(0)
    self.sizes = (codes,) * length
    self._width = width
    self.made = 0

  def new(self, count: int) -> Insert:
    """So many documents."""
    names = [f'd{self.made + number}' for number in range(count)]
    self.made += count
    vectors_ND = self._rng.normal(size=(count, self._width))
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return Insert(
      names,
      [''] * count,
      ['a text'] * count,
      [{'part': number % 16} for number in range(count)],
      self._rng.integers(self.sizes, size=(count, len(self.sizes))),
      vectors_ND.astype(np.float16),
    )


def _saved(path: pathlib.Path, insert: Insert, sizes: Sequence[int]) -> None:
  """An index of the first documents."""
  index = Index.build(
    insert.codes_NL,
    sizes,
    insert.vectors_ND,
    insert.document_ids,
    insert.titles,
    insert.snippets,
    insert.metadata,
  )
  index.save(path, {'none': np.zeros(1, np.float32)}, {}, Numbers(), {})


def _searcher(
  living: LivingIndex, documents: Documents, beams: int
) -> Searcher:
  """Queries are the first vectors."""
  rng = np.random.default_rng(1)
  width = living.snapshot.base.vectors_ND.shape[1]
  shape = (len(documents.sizes), documents.sizes[0], width)
  params = {
    'queries': np.asarray(living.snapshot.base.vectors_ND[:4096], np.float32),
    'codebooks': rng.normal(size=shape).astype(np.float32) / width,
  }
  settings = SearchSettings(
    beams=beams, documents_scored=beams, batch_sizes=(_QUERIES,)
  )
  return Searcher(
    living.snapshot, Residuals(), params, Numbers(), 1, settings, living.room
  )


class Run:
  """An index that is changed and searched, and what that takes.

  Attributes:
    living: the index.
    there: ids that should be in it.
    times: milliseconds of every insertion, deletion and search.
    folds: versions that were written.
    found: documents that searches found.
    foreign: of these, deleted ones.
  """

  def __init__(self, path: pathlib.Path, made: Documents, beams: int):
    """Opens the index.

    Args:
      path: its folder.
      made: makes documents; the first of them are in it.
      beams: W.
    """
    self.living = LivingIndex(path, when_folded=self._folded)
    self.there = [f'd{number}' for number in range(made.made)]
    self.times: dict[str, list[float]] = {
      'insert': [],
      'delete': [],
      'search': [],
    }
    self.folds = self.found = self.foreign = 0
    self._made, self._rng = made, np.random.default_rng(2)
    self._following = threading.Lock()
    self._searcher = _searcher(self.living, made, beams)
    self._search(set())
    self.times['search'].clear()

  def turn(self, at_once: int) -> None:
    """Inserts and deletes so many documents, and searches."""
    insert = self._made.new(at_once)
    self._timed('insert', lambda: self._apply(insert))
    self.there += insert.document_ids
    gone = []
    places = self._rng.integers(len(self.there) - at_once, size=at_once)
    for place in places.tolist():
      gone.append(self.there[place])
      # The last takes its place: all are as likely to be next.
      self.there[place] = self.there[-1]
      self.there.pop()
    self._timed('delete', lambda: self._apply(Delete(gone)))
    self._search(set(gone))

  def _search(self, gone):
    queries = self._rng.integers(4096, size=_QUERIES).astype(str).tolist()
    hits = self._timed('search', lambda: self._searcher.search(queries, _K))
    names = [hit.document_id for found in hits for hit in found]
    self.found += len(names)
    self.foreign += len(gone & set(names))

  def _timed(self, name, call):
    begin = time.perf_counter()
    result = call()
    self.times[name].append(1e3 * (time.perf_counter() - begin))
    return result

  def _apply(self, change):
    self.living.apply(change)
    self._follow()

  def _follow(self):
    with self._following:
      self._searcher.update(self.living.snapshot)

  def _folded(self):
    self._follow()
    self.folds += 1


def measure(
  documents: int,
  changes: int,
  at_once: int,
  codes: int,
  length: int,
  width: int,
  beams: int,
  folder: pathlib.Path,
) -> dict[str, Any]:
  """Changes and searches; returns what they took and what was lost."""
  made = Documents(codes, length, width)
  path = folder / 'index'
  start = time.perf_counter()
  _saved(path, made.new(documents), made.sizes)
  row: dict[str, Any] = {'build_seconds': time.perf_counter() - start}
  run = Run(path, made, beams)
  with run.living as living:
    compiled = program.search_program._cache_size()
    start = time.perf_counter()
    for _ in range(changes // (2 * at_once)):
      run.turn(at_once)
    row['seconds'] = time.perf_counter() - start
    living.wait()
    row['programs_compiled'] = program.search_program._cache_size() - compiled
    row |= {
      'room': living.room,
      'folds': run.folds,
      'changes': 2 * at_once * len(run.times['insert']),
      'documents_found': run.found,
      'deleted_documents_found': run.foreign,
      'documents': len(run.there),
    }
  expected = set(run.there)
  for name, index in (
    ('lost_in_memory', living.snapshot.visible()),
    ('lost_on_disk', load_index(path)),
  ):
    row[name] = len(expected ^ set(index.document_ids))
  for name, each in run.times.items():
    row[f'{name}_milliseconds'] = statistics.median(each)
    row[f'{name}_milliseconds_p99'] = float(np.percentile(each, 99))
  return row


def main(arguments: Sequence[str]) -> int:
  """Flags to a file and a line."""
  parser = argparse.ArgumentParser(
    prog='python benchmarks/living.py',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  numbers = {
    'documents': 1_000_000, 'changes': 1_000_000, 'at_once': 1000,
    'codes': 2048, 'length': 8, 'width': 64, 'beams': 70,
  }  # fmt: skip
  for name, value in numbers.items():
    parser.add_argument(f'--{name}', type=int, default=value, metavar='N')
  parser.add_argument('--output', required=True, metavar='FILE')
  flags = vars(parser.parse_args(arguments))
  with tempfile.TemporaryDirectory() as folder:
    row = measure(
      **{name: flags[name] for name in numbers}, folder=pathlib.Path(folder)
    )
  contents = {
    'command': 'python benchmarks/living.py ' + shlex.join(arguments),
    'hardware': hardware(),
    'setting': {name: flags[name] for name in numbers},
    **row,
  }
  print(json.dumps(row))
  path = pathlib.Path(flags['output'])
  path.write_text(json.dumps(contents, indent=1) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
