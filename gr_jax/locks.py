"""What one process at a time may write, and what is said of a full disk."""

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import TextIO

from gr_jax.types import UserError


@contextlib.contextmanager
def held(path: pathlib.Path, doing: str, instead: str) -> Iterator[None]:
  """Holds a lock; the system frees it when the process dies.

  The file, and folders that were made for it and stayed empty, go at the end.

  Args:
    path: the lock file.
    doing: what others are told, as 'training runs/a'.
    instead: what others may do, as 'choose another RUN_DIR'.

  Raises:
    UserError: when another process holds it, with what that one is doing; or
      the disk is full.
  """
  path = path.absolute()
  made = [folder for folder in path.parents if not folder.exists()]
  path.parent.mkdir(parents=True, exist_ok=True)
  with _acquired(path, instead) as file:
    try:
      file.write(doing)
      file.flush()
      with full_disk_named(path.parent, doing, instead):
        yield
    finally:
      path.unlink(missing_ok=True)
      with contextlib.suppress(OSError):
        for folder in made:
          folder.rmdir()


@contextlib.contextmanager
def full_disk_named(
  folder: pathlib.Path, doing: str, instead: str
) -> Iterator[None]:
  """Says what was being done: the system's own error often names no file.

  Args:
    folder: where it was being done.
    doing: as `held`.
    instead: as `held`.

  Raises:
    UserError: the disk is full.
  """
  try:
    yield
  except OSError as error:
    # What numpy says of it has no number.
    numbers = (errno.ENOSPC, errno.EDQUOT)
    numpy_says = error.errno is None and ' requested and ' in str(error)
    if error.errno not in numbers and not numpy_says:
      raise
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(place).free
    raise UserError(
      f'{error.filename or folder}: no space is left ({free:,} bytes are free) '
      f'for {doing}: free some, or {instead}; the same command goes on'
    ) from error


def _acquired(path: pathlib.Path, instead: str) -> TextIO:
  """The locked file, empty."""
  while True:
    file = path.open('a+', encoding='utf-8')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      holder = file.read() or f'at work in {path.parent}'
      file.close()
      raise UserError(
        f'another process is {holder}: wait for it, or {instead}'
      ) from error
    # Who held it before may have removed the file since it was opened here.
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(file.fileno()), path.stat()):
        file.truncate(0)
        return file
    file.close()
