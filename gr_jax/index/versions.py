"""A folder of versions, one of which is current; readers never see a half.

index/CURRENT     'v000002 <sha256 of its manifest>', replaced atomically
index/v000001/    the version before, for readers that still hold it
index/v000002/    with the changes since, if any (log.py)
index/.building/  only while a build runs, or after one was killed
"""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

from gr_jax import locks
from gr_jax.checksums import file_sha256
from gr_jax.index import manifest
from gr_jax.types import UserError

_CURRENT = 'CURRENT'
_BUILDING = '.building'
_LOCK = '.lock'
_VERSION = re.compile(r'v(\d{6})')
_POINTER = re.compile(r'(v\d{6}) ([0-9a-f]{64})\n')


def current_version(path: pathlib.Path) -> tuple[pathlib.Path, str]:
  """The folder of the current version and its manifest's checksum."""
  hint = 'build it with python -m gr_jax.index_corpus --run_dir=RUN'
  if not path.is_dir():
    raise UserError(f'there is no index folder {path}: {hint}')
  pointer = path / _CURRENT
  if not pointer.is_file():
    raise UserError(f'{path} holds no finished index (no {_CURRENT}): {hint}')
  match = _POINTER.fullmatch(pointer.read_bytes().decode('ascii', 'replace'))
  if not match:
    raise UserError(f'{pointer} names no version of an index: {hint}')
  directory = path / match[1]
  if not directory.is_dir():
    raise UserError(f'{pointer} names {match[1]}, which is missing: {hint}')
  return directory, match[2]


@contextlib.contextmanager
def writing(path: pathlib.Path, doing: str) -> Iterator[None]:
  """Keeps other processes from writing an index; readers go on.

  Args:
    path: the index, made when missing.
    doing: what others are told, as 'building runs/a/index'.

  Raises:
    UserError: when another process writes.
  """
  _refuse_foreign(path)
  with locks.held(path / _LOCK, doing, 'name another folder'):
    yield


@contextlib.contextmanager
def new_version(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a folder to fill; it becomes the current version at the end.

  Args:
    path: the index, made when missing.

  Yields:
    The folder to fill, as `next_version` does.

  Raises:
    UserError: when another process writes.
  """
  with writing(path, f'building {path}'), next_version(path) as building:
    yield building


@contextlib.contextmanager
def next_version(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """The same for who holds `writing`.

  The folder must hold a manifest by then. When the body raises or the process
  dies, the current version stays what it was; the next build removes what is
  left over.

  Args:
    path: the index.

  Yields:
    The folder to fill.
  """
  number = _remove_leftovers(path)
  building = path / _BUILDING
  building.mkdir()
  try:
    yield building
  except BaseException:
    shutil.rmtree(building)
    raise
  sync_tree(building)
  name = f'v{number + 1:06d}'
  checksum = file_sha256(building / manifest.NAME)
  building.rename(path / name)
  sync(path)
  _point_to(path, f'{name} {checksum}\n')
  for old in _versions(path):
    if int(old.name[1:]) < number:
      shutil.rmtree(old)


def _point_to(path: pathlib.Path, text: str) -> None:
  """Replaces the pointer in one step that survives a power cut."""
  partial = path / f'{_CURRENT}.tmp'
  with partial.open('w', encoding='ascii') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path / _CURRENT)
  sync(path)


def _versions(path: pathlib.Path) -> list[pathlib.Path]:
  return [entry for entry in path.iterdir() if _VERSION.fullmatch(entry.name)]


def _refuse_foreign(path: pathlib.Path) -> None:
  """Leftovers are deleted, so the folder must be an index and nothing else."""
  if path.exists() and not path.is_dir():
    raise UserError(f'{path} should be a folder for the index, it is a file')
  own = {_CURRENT, f'{_CURRENT}.tmp', _BUILDING, _LOCK}
  for entry in path.iterdir() if path.is_dir() else ():
    if entry.name not in own and not _VERSION.fullmatch(entry.name):
      raise UserError(
        f'{path} should be an index or empty, it holds {entry.name}: name'
        ' another folder'
      )


def _remove_leftovers(path: pathlib.Path) -> int:
  """Removes what killed builds left; returns the current number, or 0."""
  number = 0
  pointer = path / _CURRENT
  if pointer.is_file():
    match = _VERSION.match(pointer.read_bytes().decode('ascii', 'replace'))
    # A damaged pointer hides the versions it may have named: keep them all.
    number = (
      int(match[1])
      if match
      else max((int(old.name[1:]) for old in _versions(path)), default=0)
    )
  for left in _versions(path):
    if int(left.name[1:]) > number:
      shutil.rmtree(left)
  (path / f'{_CURRENT}.tmp').unlink(missing_ok=True)
  if (path / _BUILDING).exists():
    shutil.rmtree(path / _BUILDING)
  return number


def sync_tree(directory: pathlib.Path) -> None:
  """Brings a folder with all that is in it to the disk."""
  for entry in directory.rglob('*'):
    sync(entry)
  sync(directory)


def sync(path: pathlib.Path) -> None:
  """Brings a file, or the names in a folder, to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
