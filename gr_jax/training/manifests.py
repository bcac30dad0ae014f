"""Lists of files with checksums, themselves under a checksum."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping

import google_crc32c

from gr_jax.checksums import crc32c_of


class FileDamaged(Exception):
  """A file differs from what its manifest says; the message names it."""


def describe_files(folder: pathlib.Path) -> dict[str, dict]:
  """{relative path: {'bytes', 'crc32c'}} of every file under a folder."""
  return {
    path.relative_to(folder).as_posix(): {
      'bytes': path.stat().st_size,
      'crc32c': crc32c_of(path),
    }
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def damaged_files(
  folder: pathlib.Path, files: Mapping[str, dict]
) -> Iterator[str]:
  """Compares every listed file; files beside the list are not read.

  Args:
    folder: what the paths are relative to.
    files: from `describe_files`.

  Yields:
    A line on each that is missing, cut or changed.
  """
  for name, expected in files.items():
    path = folder / name
    if not path.is_file():
      yield f'{path} is missing'
      continue
    size = path.stat().st_size
    if size != expected['bytes']:
      yield f'{path} has {size:,} bytes, expected {expected["bytes"]:,}'
      continue
    found = crc32c_of(path)
    if found != expected['crc32c']:
      yield f'{path} is damaged: crc32c {found}, expected {expected["crc32c"]}'


def check_files(folder: pathlib.Path, files: Mapping[str, dict]) -> None:
  """Refuses a folder with a file that `damaged_files` finds.

  Raises:
    FileDamaged: for the first.
  """
  for line in damaged_files(folder, files):
    raise FileDamaged(line)


def write_manifest(path: pathlib.Path, content: Mapping) -> None:
  """Writes a manifest in one step: it is whole or absent, also after a crash.

  Args:
    path: the file.
    content: JSON data.
  """
  # Through JSON once: what is rendered is what a reader will render again.
  text = _render(json.loads(json.dumps(content)))
  partial = path.with_name(path.name + '.partial')
  with partial.open('w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path)
  directory = os.open(path.parent, os.O_RDONLY)
  try:
    os.fsync(directory)
  finally:
    os.close(directory)


def read_manifest(path: pathlib.Path) -> dict:
  """Reads a manifest.

  Args:
    path: the file.

  Returns:
    The content given to `write_manifest`.

  Raises:
    FileDamaged: a byte differs from what was written.
  """
  try:
    text = path.read_bytes().decode('utf-8')
    content = json.loads(text)['content']
    same = _render(content) == text
  except (ValueError, KeyError, TypeError) as error:
    raise FileDamaged(f'{path} is damaged: {error}') from error
  if not same:
    raise FileDamaged(f'{path} is damaged: its checksum differs')
  return content


def _render(content: dict) -> str:
  body = json.dumps(content, sort_keys=True)
  checksum = google_crc32c.Checksum(body.encode()).digest().hex()
  return json.dumps(
    {'crc32c': checksum, 'content': content}, indent=1, sort_keys=True
  )
