"""What is said of a save that fails: one line, and nothing of orbax's own."""

import functools
import logging
import pathlib
import shutil
import sys

from gr_jax.types import UserError


class explained:
  """Turns what a failing disk raises into one line with the free bytes."""

  def __init__(self, folder: pathlib.Path):
    """Names the folder that is being written."""
    self._folder = folder

  def __enter__(self):
    return self

  def __exit__(self, kind, error, traceback):
    # tensorstore reports a full disk as ValueError, XLA as RuntimeError.
    if not isinstance(error, (OSError, ValueError, RuntimeError)):
      return
    place = next(p for p in self._folder.parents if p.exists())
    free = shutil.disk_usage(place).free
    reason = str(error).partition('\n')[0][:300]
    raise UserError(
      f'could not save {self._folder} ({free:,} bytes are free): {reason};'
      ' the steps saved before are whole, run again to go on from the last'
    ) from error


@functools.cache
def silence_orbax() -> None:
  """Drops the tracebacks that orbax logs of errors which it raises as well.

  And those of writes that end after it has given up: tensorstore tells of each
  from a thread of its own, on an event loop that is closed by then.
  """
  logging.getLogger('absl').addFilter(_is_of_others)
  before = sys.excepthook

  def hook(kind, error, traceback):
    if kind is not RuntimeError or str(error) != 'Event loop is closed':
      before(kind, error, traceback)

  sys.excepthook = hook


def _is_of_others(record: logging.LogRecord) -> bool:
  ours = 'orbax' not in pathlib.Path(record.pathname).parts
  # A warning is raised by nobody.
  return ours or record.levelno < logging.ERROR
