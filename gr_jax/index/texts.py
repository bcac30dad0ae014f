"""Many short texts in one file, read one at a time without loading it."""

import mmap
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

# Of the hash of a text: odd, without pattern.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_BYTES_AT_ONCE = 1 << 24


class TextTable(Sequence[str]):
  """Texts as UTF-8 bytes, one a line, found by their byte offsets.

  A text may hold line breaks of its own: the offsets count, the line breaks
  are for readers of the file.
  """

  def __init__(self, data: bytes | mmap.mmap, offsets: np.ndarray):
    """Takes what `write` wrote.

    Args:
      data: the texts.
      offsets: [texts + 1] int64, where each text begins, and the end.
    """
    self.offsets = offsets
    self._bytes = data

  @classmethod
  def of(cls, texts: Iterable[str]) -> 'TextTable':
    """Texts in memory."""
    if isinstance(texts, TextTable):
      return texts
    lines = [text.encode('utf-8') + b'\n' for text in texts]
    lengths = np.fromiter(map(len, lines), np.int64, len(lines))
    return cls(b''.join(lines), np.concatenate([[0], np.cumsum(lengths)]))

  @classmethod
  def open(cls, path: pathlib.Path, offsets: np.ndarray) -> 'TextTable':
    """Opens the file that `write` wrote; the texts stay on disk.

    Args:
      path: the texts.
      offsets: [texts + 1] int64.
    """
    if not path.stat().st_size:
      return cls(b'', offsets)
    with path.open('rb') as file:
      return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), offsets)

  @classmethod
  def joined(
    cls, parts: Sequence[tuple['TextTable', np.ndarray]]
  ) -> 'TextTable':
    """Texts of several tables behind each other.

    Args:
      parts: tables, and the rising rows that are taken of each.
    """
    pieces, lengths = [], [np.zeros(1, np.int64)]
    for table, rows in parts:
      lengths.append(table.offsets[rows + 1] - table.offsets[rows])
      # Rows that follow each other are one piece.
      firsts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
      lasts = np.append(firsts[1:], len(rows))[: len(firsts)] - 1
      starts = table.offsets[rows[firsts]].tolist()
      ends = table.offsets[rows[lasts] + 1].tolist()
      pieces += [
        table._bytes[start:end] for start, end in zip(starts, ends, strict=True)
      ]
    return cls(b''.join(pieces), np.cumsum(np.concatenate(lengths)))

  def write(self, path: pathlib.Path) -> None:
    """Writes the texts; the offsets are the caller's to keep."""
    start, end = int(self.offsets[0]), int(self.offsets[-1])
    with path.open('wb') as file:
      for place in range(start, end, _BYTES_AT_ONCE):
        file.write(self._bytes[place : min(place + _BYTES_AT_ONCE, end)])

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def __getitem__(self, row: int) -> str:
    if not 0 <= row < len(self):
      raise IndexError(f'row {row} of {len(self)} texts')
    start, end = int(self.offsets[row]), int(self.offsets[row + 1])
    # A damaged byte must not keep the rest from being shown.
    return self._bytes[start : end - 1].decode('utf-8', errors='replace')

  def hashes(self) -> np.ndarray:
    """[texts] uint64; equal texts have equal ones, others hardly ever."""
    data = np.frombuffer(self._bytes, np.uint8)
    hashes = np.zeros(len(self), np.uint64)
    row = 0
    while row < len(self):
      # Some texts at a time: the products take eight times their bytes.
      limit = int(self.offsets[row]) + _BYTES_AT_ONCE
      behind = int(np.searchsorted(self.offsets, limit, side='right')) - 1
      behind = min(max(behind, row + 1), len(self))
      offsets = np.asarray(self.offsets[row : behind + 1])
      lengths = np.diff(offsets)
      places = np.arange(offsets[0], offsets[-1]) - np.repeat(
        offsets[:-1], lengths
      )
      powers = _powers(int(lengths.max()))
      products = powers[places] * (
        data[offsets[0] : offsets[-1]].astype(np.uint64) + np.uint64(1)
      )
      hashes[row:behind] = np.add.reduceat(products, offsets[:-1] - offsets[0])
      row = behind
    return hashes


class RowsOfTexts:
  """Finds the rows of distinct texts by their hashes; the texts stay there."""

  def __init__(self, texts: TextTable):
    """Sorts the hashes: 12 bytes a text, .2 s for a million."""
    self._texts = texts
    hashes = texts.hashes()
    order = np.argsort(hashes)
    self._hashes, self._rows = hashes[order], order.astype(np.int32)

  def find(self, texts: Sequence[str]) -> np.ndarray:
    """[texts] int64 row of each, -1 where it is not there."""
    found = np.full(len(texts), -1, np.int64)
    hashes = TextTable.of(texts).hashes()
    starts = np.searchsorted(self._hashes, hashes, side='left')
    ends = np.searchsorted(self._hashes, hashes, side='right')
    for number, (start, end) in enumerate(
      zip(starts.tolist(), ends.tolist(), strict=True)
    ):
      for row in self._rows[start:end].tolist():
        if self._texts[row] == texts[number]:
          found[number] = row
    return found


def _powers(count: int) -> np.ndarray:
  """Powers of the factor, modulo 2^64."""
  factors = np.full(count, _FACTOR)
  factors[0] = 1
  return np.multiply.accumulate(factors)
