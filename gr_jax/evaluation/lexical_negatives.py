"""Hard negatives by BM25: what shares words with a query and is no answer.

DIRECTORY/
  inputs.txt            of which examples they are
  SOURCE.npy            [examples, KEPT] int32 document numbers
"""

import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from gr_jax import locks, processes
from gr_jax.data.collection import Collection
from gr_jax.evaluation.lexical import Lexical
from gr_jax.retrieval.hard_negatives import KEPT, positives_of
from gr_jax.retrieval.shards import write_whole
from gr_jax.types import NO_DOC, UserError

_INPUTS = 'inputs.txt'
_BATCH = 512


def lexical_negatives(
  directory: pathlib.Path,
  collection: Collection,
  prepared,
  sources: list[str],
  report: Callable[[str], None],
) -> dict[str, np.ndarray]:
  """Reads the hard negatives of all training queries, or finds them first.

  Args:
    directory: where they are kept; emptied when they are of other examples.
    collection: of the examples.
    prepared: data.prepared.PreparedData.
    sources: whose queries are searched.
    report: told what is being searched.

  Returns:
    {source: [examples, KEPT] int32 document numbers, the best first, NO_DOC
    past the last}, as retrieval.hard_negatives.mined_negatives has them.
  """
  paths = {name: directory / f'{name}.npy' for name in sources}
  processes.first(lambda: _find(directory, paths, collection, prepared, report))
  return {
    name: np.load(path, mmap_mode='r', allow_pickle=False)
    for name, path in paths.items()
  }


def _find(directory, paths, collection, prepared, report) -> None:
  """Writes the files that are not there yet."""
  inputs, file = prepared.manifest['inputs_sha256'], directory / _INPUTS
  if not file.is_file() or file.read_text() != inputs:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    write_whole(file, inputs)
  missing = {name: path for name, path in paths.items() if not path.exists()}
  if not missing:
    return
  with locks.held(
    directory.with_name(f'.{directory.name}.lock'),
    f'searching hard negatives in {directory}',
    'choose another CACHE_DIR',
  ):
    lexical = Lexical(collection.documents())
    if lexical.document_ids != prepared.document_ids:
      raise UserError(
        f'{collection.directory} has other documents than those prepared in '
        f'{prepared.directory}: bring back the former, or prepare again'
      )
    for name, path in missing.items():
      source = prepared.sources[name]
      report(f'searching words of {len(source):,} {name!r} queries')
      partial = path.with_suffix('.partial.npy')
      np.save(partial, _best(lexical, source, prepared.vocabulary()))
      os.replace(partial, path)


def _best(lexical: Lexical, source, vocabulary) -> np.ndarray:
  """[X, KEPT] the best documents that are no positives of their query."""
  negatives_XC = np.full((len(source), KEPT), NO_DOC, np.int32)
  positives = positives_of(source)
  most = KEPT + max(map(len, positives), default=0)
  for start in range(0, len(source), _BATCH):
    rows = range(start, min(start + _BATCH, len(source)))
    # Of all sources the tokens are there, of some of them no text besides.
    texts = [vocabulary.decode(tokens) for tokens in source.query_tokens(rows)]
    rows_BC = lexical.search(texts, most).rows_BC
    for row, found in zip(rows, rows_BC.tolist(), strict=True):
      known = {*positives[row], NO_DOC}
      kept = [number for number in found if number not in known][:KEPT]
      negatives_XC[row, : len(kept)] = kept
  return negatives_XC
