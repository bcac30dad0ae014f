"""Folders that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator


@contextlib.contextmanager
def new_folder(directory: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a folder to fill, which takes its place when the body is through.

  When the body raises, what is there already stays as it was, and neither the
  unfinished folder nor the parents that were made for it remain.

  Args:
    directory: the final place; an older folder there is replaced.

  Yields:
    The folder to fill, beside `directory`.
  """
  directory = pathlib.Path(directory).absolute()
  work = directory.with_name(f'.{directory.name}.partial')
  made = [parent for parent in work.parents if not parent.exists()]
  shutil.rmtree(work, ignore_errors=True)
  work.mkdir(parents=True)
  try:
    yield work
    replace_folder(work, directory)
  except BaseException:
    shutil.rmtree(work, ignore_errors=True)
    # Another process may have put something there meanwhile.
    with contextlib.suppress(OSError):
      for parent in made:
        parent.rmdir()
    raise


def replace_folder(new: pathlib.Path, directory: pathlib.Path) -> None:
  """Moves a finished folder into place, an older one out of the way first."""
  old = directory.with_name(f'.{directory.name}.old')
  shutil.rmtree(old, ignore_errors=True)
  if directory.exists():
    os.rename(directory, old)
  os.rename(new, directory)
  shutil.rmtree(old, ignore_errors=True)
