"""Progress for whoever watches: a bar on a terminal, else a line at times."""

import math
import sys
import time
from typing import TextIO

from tqdm import tqdm


class Watcher:
  """Shows how far something is; a stream that is no terminal gets lines."""

  def __init__(
    self,
    total: int,
    unit: str,
    first: int = 0,
    stream: TextIO | None = None,
    line_every: float = 10.0,
    passing: bool = False,
  ):
    """Starts to watch.

    Args:
      total: how many there are.
      unit: what is counted, in the singular.
      first: how many were done before.
      stream: standard error unless given.
      line_every: seconds between lines where there is no bar.
      passing: shows nothing of what is short, and leaves no bar behind.
    """
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
      self._view = _Bar(stream, total, unit, first, passing)
    else:
      self._view = _Lines(stream, total, unit, line_every, passing)

  def show(self, done: int, text: str) -> None:
    """Shows how many are done, with a text of one line."""
    self._view.show(done, text)

  def close(self) -> None:
    """Gives the stream back; lines end with the last one."""
    self._view.close()


class Pace:
  """Watches work of many pieces: pieces a second, and what remains.

  with Pace(len(texts), 'text') as pace:
    pace.show(pieces_done, share_of_the_work)
  """

  def __init__(
    self,
    total: int,
    unit: str,
    stream: TextIO | None = None,
    line_every: float = 10.0,
  ):
    """Starts the clock; the arguments are those of `Watcher`."""
    self._watcher = Watcher(total, unit, 0, stream, line_every, passing=True)
    self._unit = unit
    self._start = time.monotonic()

  def show(self, done: int, share: float) -> None:
    """Shows the pace so far.

    Args:
      done: pieces.
      share: of all the work, from 0 to 1; pieces may differ in size.
    """
    seconds = max(time.monotonic() - self._start, 1e-9)
    left = tqdm.format_interval(seconds * (1 - share) / max(share, 1e-9))
    self._watcher.show(
      done, f'{done / seconds:,.0f} {self._unit}s/s, {left} left'
    )

  def __enter__(self):
    return self

  def __exit__(self, kind, error, traceback):
    self._watcher.close()


class _Bar:
  """A progress bar, for a person."""

  def __init__(self, stream, total, unit, first, passing):
    self._passing = passing
    # What passes says its pace itself, and for the first second nothing.
    layout = '{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}'
    self._bar = tqdm(
      total=total,
      initial=first,
      file=stream,
      unit=unit,
      dynamic_ncols=True,
      leave=not passing,
      delay=1.0 if passing else 0.0,
      bar_format=layout if passing else None,
    )

  def show(self, done: int, text: str) -> None:
    self._bar.set_postfix_str(text, refresh=False)
    self._bar.update(done - self._bar.n)
    if not self._passing:
      self._bar.refresh()

  def close(self) -> None:
    self._bar.close()


class _Lines:
  """A line every few seconds, for a log file."""

  def __init__(self, stream, total, unit, every, passing):
    self._stream, self._total, self._unit = stream, total, unit
    self._every, self._passing = every, passing
    self._shown = time.monotonic() if passing else -math.inf
    self._pending = ''

  def show(self, done: int, text: str) -> None:
    self._pending = f'{self._unit} {done}/{self._total} {text}\n'
    if time.monotonic() - self._shown >= self._every:
      self._flush()

  def close(self) -> None:
    # The last numbers of a training matter most.
    if not self._passing:
      self._flush()

  def _flush(self) -> None:
    self._stream.write(self._pending)
    self._stream.flush()
    self._pending = ''
    self._shown = time.monotonic()
