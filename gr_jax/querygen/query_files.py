"""Queries that others generated, in the layouts in which they are published.

docTTTTTquery publishes predicted_queries_topk_sampleSSS.txtCCC-STEP: one query
a line, a line for each passage of the chunk CCC in the order of the corpus, a
file for each sample SSS. Its README pastes them into one file with a
line a document; with tabs between the queries, as `paste` writes them without
an option, such a file is read too.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator, Sequence

from gr_jax.data.records import (
  BadRecordError,
  UnreadableFileError,
  line_text,
  read_lines,
)
from gr_jax.types import UserError

_SAMPLE = re.compile(r'.*?(\d+)\.txt(\d+)-\d+(\.gz)?')


class LineFile:
  """A query file with a line for each document, read forwards.

  Several files may follow each other, and several such rows stand beside each
  other, a query of each document in each.
  """

  def __init__(self, samples: Sequence[Sequence[pathlib.Path]]):
    """Takes the files.

    Args:
      samples: for each sample, the files that follow each other.
    """
    self._samples = samples
    self._readers: list[Iterator[str]] = []
    self._row = 0

  def count(self) -> int:
    """Lines of each sample.

    Raises:
      UserError: when samples differ in it.
    """
    counts = [sum(1 for _ in _texts(sample)) for sample in self._samples]
    for sample, count in zip(self._samples, counts, strict=True):
      if count != counts[0]:
        raise UserError(
          f'{sample[0]}: expected {counts[0]:,} lines (all files of the '
          f'sample), as in {self._samples[0][0]}, got {count:,}'
        )
    return counts[0]

  def rows(self, first: int, count: int) -> list[list[str]]:
    """The queries of the documents `first` to `first + count` - 1.

    Reading goes on where it ended; what lies before is read from the start.
    """
    if first < self._row or not self._readers:
      with contextlib.ExitStack() as stack:
        for reader in self._readers:
          stack.callback(reader.close)
      self._readers = [_texts(sample) for sample in self._samples]
      self._row = 0
    found = []
    for row in range(self._row, first + count):
      lines = [next(reader) for reader in self._readers]
      if row >= first:
        parts = [part for line in lines for part in line.split('\t')]
        found.append([part.strip() for part in parts if part.strip()])
    self._row = first + count
    return found


def open_line_file(path: pathlib.Path, documents: int) -> LineFile:
  """Opens a file or a folder of queries in the order of the corpus.

  Args:
    path: see the module.
    documents: of the corpus.

  Raises:
    UserError: when the lines are not as many as the documents.
  """
  found = LineFile(samples_of(path))
  lines = found.count()
  if lines != documents:
    raise UserError(
      f'{path}: expected a line for each of the {documents:,} documents of the '
      f'corpus, in its order; got {lines:,}'
    )
  return found


def samples_of(path: pathlib.Path) -> list[list[pathlib.Path]]:
  """The files of a path: for each sample, its chunks in order."""
  if path.is_file():
    return [[path]]
  samples: dict[int, dict[int, pathlib.Path]] = {}
  for file in sorted(path.iterdir()) if path.is_dir() else ():
    if match := _SAMPLE.fullmatch(file.name):
      sample, chunk = int(match[1]), int(match[2])
      samples.setdefault(sample, {})[chunk] = file
  if not samples:
    raise UserError(
      f'{path}: expected .jsonl, a text file with a line a document, or a '
      'folder of predicted_queries_topk_sampleNNN.txtNNN-STEP'
    )
  return [
    [samples[sample][chunk] for chunk in sorted(samples[sample])]
    for sample in sorted(samples)
  ]


def _texts(paths: Sequence[pathlib.Path]) -> Iterator[str]:
  for path in paths:
    try:
      for line in read_lines(path):
        try:
          yield line_text(line)
        except BadRecordError as error:
          raise UserError(f'{path}:{line.number}: {error}') from error
    except UnreadableFileError as error:
      raise UserError(f'{path}:{error.line}: {error}') from error
