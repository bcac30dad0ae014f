"""Folders that appear whole or not at all."""

import os
import pathlib
import shutil


def replace_folder(new: pathlib.Path, directory: pathlib.Path) -> None:
  """Moves a finished folder into place, an older one out of the way first.

  Args:
    new: the finished folder, beside `directory`.
    directory: its final name.
  """
  old = directory.with_name(f'.{directory.name}.old')
  shutil.rmtree(old, ignore_errors=True)
  if directory.exists():
    os.rename(directory, old)
  os.rename(new, directory)
  shutil.rmtree(old, ignore_errors=True)
