"""Many short texts in one file, read one at a time without loading it."""

import mmap
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np


class TextTable(Sequence[str]):
  """Texts in a UTF-8 file, one a line, found by their byte offsets.

  A text may hold line breaks of its own: the offsets count, the line breaks
  are for readers of the file.
  """

  def __init__(self, path: pathlib.Path, offsets: np.ndarray):
    """Opens the file that `write_texts` wrote.

    Args:
      path: the texts.
      offsets: [texts + 1] int64, where each text begins, and the end.
    """
    self._offsets = offsets
    self._bytes = b''
    if path.stat().st_size:
      with path.open('rb') as file:
        self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

  def __len__(self) -> int:
    return len(self._offsets) - 1

  def __getitem__(self, row: int) -> str:
    if not 0 <= row < len(self):
      raise IndexError(f'row {row} of {len(self)} texts')
    start, end = int(self._offsets[row]), int(self._offsets[row + 1])
    # A damaged byte must not keep the rest from being shown.
    return self._bytes[start : end - 1].decode('utf-8', errors='replace')


def write_texts(path: pathlib.Path, texts: Iterable[str]) -> np.ndarray:
  """Writes texts to a file and returns their offsets for `TextTable`."""
  offsets = [0]
  with path.open('wb') as file:
    for text in texts:
      data = text.encode('utf-8') + b'\n'
      file.write(data)
      offsets.append(offsets[-1] + len(data))
  return np.array(offsets, np.int64)
