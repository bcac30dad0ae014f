"""Prepared examples in a bucket: written there, and copied to each host.

A folder on gs://, s3:// or any other file system of fsspec holds the files of
`gr_jax.data.prepare` and their manifest, which is written last. Training reads
records in random order, which ArrayRecord does on local files alone (and gs://):
each host copies the folder once and compares every file with its checksum.
"""

import errno
import fcntl
import hashlib
import os
import pathlib
from collections.abc import Callable

from gr_jax.checksums import file_sha256
from gr_jax.data.folders import replace_folder
from gr_jax.data.prepared import MANIFEST, PreparedData, parse_manifest
from gr_jax.types import UserError

_CHUNK = 8 << 20
_PACKAGES = "pip install 'gr_jax[cloud]'"


def upload(
  directory: str | pathlib.Path, url: str, report: Callable[[str], None]
) -> None:
  """Copies prepared examples to a folder of a bucket, file by file.

  Files that are there already with the right size and checksum of the manifest
  there are not written again.

  Args:
    directory: of the prepared examples, checked before a byte leaves.
    url: of the folder; other files in it stay.
    report: called with a line a file.

  Raises:
    UserError: when the folder is damaged or the URL cannot be written.
  """
  prepared = PreparedData(directory)
  prepared.verify()
  system, root = _open(url)
  try:
    before = _remote_files(system, root)
    # Whoever reads meanwhile finds no manifest rather than a mixture.
    if system.exists(f'{root}/{MANIFEST}'):
      system.rm_file(f'{root}/{MANIFEST}')
    for name, entry in prepared.manifest['files'].items():
      target = f'{root}/{name}'
      if before.get(name) == entry and _size(system, target) == entry['bytes']:
        continue
      report(f'{url}/{name}')
      system.makedirs(target.rpartition('/')[0], exist_ok=True)
      system.put_file(str(prepared.directory / name), target)
    manifest = (prepared.directory / MANIFEST).read_bytes()
    system.pipe_file(f'{root}/{MANIFEST}', manifest)
  except OSError as error:
    raise UserError(f'{url}: cannot be written: {error}') from error


def fetch(
  url: str, directory: str | pathlib.Path, report: Callable[[str], None]
) -> None:
  """Copies prepared examples from a bucket, where they are not the same yet.

  Several processes may ask for the same folder: one copies, the others wait. A
  copy that was interrupted goes on with the files that are whole. What was in
  the folder is replaced once the new one is.

  Args:
    url: that `upload` wrote.
    directory: where.
    report: called with a line a file.

  Raises:
    UserError: when there are no prepared examples, or a file is not what the
      manifest says.
    OSError: the disk is full.
  """
  directory = pathlib.Path(directory).absolute()
  directory.parent.mkdir(parents=True, exist_ok=True)
  system, root = _open(url)
  lock = directory.with_name(f'.{directory.name}.copying.lock')
  with lock.open('a') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    manifest, files = _read_manifest(system, root, url)
    own = directory / MANIFEST
    if own.is_file() and own.read_bytes() == manifest:
      return
    work = directory.with_name(f'.{directory.name}.copying')
    work.mkdir(exist_ok=True)
    try:
      for name, entry in files.items():
        _fetch_file(system, f'{root}/{name}', work / name, entry, report)
    except OSError as error:
      # The disk's, not the bucket's.
      if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise
      raise UserError(f'{url}: cannot be copied: {error}') from error
    # Of an earlier copy of other examples.
    for path in [p for p in work.rglob('*') if p.is_file()]:
      if path.relative_to(work).as_posix() not in files:
        path.unlink()
    (work / MANIFEST).write_bytes(manifest)
    replace_folder(work, directory)


def _fetch_file(system, source, target: pathlib.Path, entry, report) -> None:
  """Copies one file, unless it is there, and compares it with its checksum."""
  if target.is_file() and file_sha256(target) == entry['sha256']:
    return
  report(source)
  target.parent.mkdir(parents=True, exist_ok=True)
  partial = target.with_name(f'{target.name}.part')
  digest = hashlib.sha256()
  with system.open(source, 'rb') as remote, partial.open('wb') as local:
    while chunk := remote.read(_CHUNK):
      digest.update(chunk)
      local.write(chunk)
  if digest.hexdigest() != entry['sha256']:
    partial.unlink()
    raise UserError(
      f'{source}: damaged: SHA-256 {digest.hexdigest()[:12]}, the manifest '
      f'says {entry["sha256"][:12]}; upload it again'
    )
  os.replace(partial, target)


def _read_manifest(system, root: str, url: str) -> tuple[bytes, dict]:
  """The bytes of a manifest, and the files that it lists."""
  try:
    content = system.cat_file(f'{root}/{MANIFEST}')
  except FileNotFoundError as error:
    raise UserError(
      f'{url}: no prepared examples ({MANIFEST} is missing); write them with '
      'python -m gr_jax.prepare --upload=URL'
    ) from error
  except OSError as error:
    raise UserError(f'{url}: cannot be read: {error}') from error
  return content, _files_of(content, url)


def _files_of(content: bytes, url: str) -> dict:
  """The files that a manifest lists."""
  files = parse_manifest(content, f'{url}/{MANIFEST}')['files']
  # It comes from elsewhere: no name may lead out of the folder.
  for name in map(pathlib.PurePosixPath, files):
    if name.is_absolute() or '..' in name.parts:
      raise UserError(
        f'{url}/{MANIFEST}: damaged: {str(name)!r} leads out of the folder; '
        'upload it again'
      )
  return files


def _remote_files(system, root: str) -> dict:
  """The files of an earlier upload, none when it was not finished."""
  try:
    return _files_of(system.cat_file(f'{root}/{MANIFEST}'), root)
  except (FileNotFoundError, UserError):
    return {}


def _size(system, path: str) -> int | None:
  return system.size(path) if system.exists(path) else None


def _open(url: str):
  """The file system of a URL, and the path in it."""
  try:
    import fsspec

    system, root = fsspec.url_to_fs(url)
  except ImportError as error:
    raise UserError(f'{url}: {error}: {_PACKAGES}') from error
  except ValueError as error:
    raise UserError(
      f'{url}: expected gs://BUCKET/FOLDER or s3://BUCKET/FOLDER: {error}'
    ) from error
  return system, root.rstrip('/')
