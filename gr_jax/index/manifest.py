"""What an index version consists of: a size and a checksum of every file."""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gr_jax.checksums import file_sha256
from gr_jax.types import UserError

# 3 says which documents came after training, 4 has the trie as sorted rows, 5
# says which documents are hidden, and has the fields to filter by.
FORMAT = 5
_READ = (2, 3, 4, 5)
NAME = 'manifest.json'
# Files up to this size are hashed at every load: some milliseconds in all.
SMALL_FILE = 1 << 22
# What readers take from a manifest, by type.
_FACTS = {
  'documents': int,
  'code_sizes': list,
  'model_sha256': str,
  'vocabulary_sha256': str,
  'id_table_sha256': str,
  'inputs_sha256': dict,
  'files': dict,
}


def arrays_sha256(arrays: Mapping[str, np.ndarray]) -> str:
  """Hex digest of named arrays, whatever file holds them.

  Args:
    arrays: for instance the parameters of a model by flat name.
  """
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    digest.update(f'{name} {array.dtype.str} {array.shape}\n'.encode())
    digest.update(array.reshape(-1).view(np.uint8))
  return digest.hexdigest()


def write_manifest(
  directory: pathlib.Path, facts: Mapping[str, Any]
) -> dict[str, Any]:
  """Lists all files of a directory in its manifest.

  Args:
    directory: a finished version, not yet published.
    facts: what else the manifest says of the index.

  Returns:
    The manifest.
  """
  files = {}
  for path in sorted(directory.rglob('*')):
    if path.is_file():
      name = path.relative_to(directory).as_posix()
      files[name] = {
        'bytes': path.stat().st_size,
        'sha256': file_sha256(path),
      }
  manifest = {'format': FORMAT, **facts, 'files': files}
  text = json.dumps(manifest, indent=1, sort_keys=True) + '\n'
  (directory / NAME).write_text(text, encoding='utf-8')
  return manifest


def read_manifest(
  directory: pathlib.Path, sha256: str, verify: bool
) -> dict[str, Any]:
  """Reads a manifest and checks the files against it.

  Args:
    directory: a published version.
    sha256: the manifest's own checksum, kept outside of it.
    verify: hash every file, not only the small ones.

  Returns:
    The manifest.
  """
  manifest = read_facts(directory, sha256)
  for name, entry in manifest['files'].items():
    _check_file(directory / name, entry, verify)
  return manifest


def read_facts(directory: pathlib.Path, sha256: str) -> dict[str, Any]:
  """Reads a manifest alone.

  Args:
    directory: a published version.
    sha256: the manifest's own checksum, kept outside of it.
  """
  path = directory / NAME
  if not path.is_file():
    raise UserError(f'{path} is missing: build the index again')
  if file_sha256(path) != sha256:
    raise UserError(f'{path} is damaged or changed: build the index again')
  manifest = read_object(path)
  found = manifest.get('format')
  if found not in _READ:
    raise UserError(
      f'{path} has format {found}, this program reads {_READ}: build the index'
      ' again'
    )
  _check_facts(path, manifest)
  return manifest


def damaged_files(
  directory: pathlib.Path, manifest: Mapping[str, Any]
) -> Iterator[str]:
  """Checks every byte of a version.

  Args:
    directory: the version.
    manifest: of it.

  Yields:
    A line on each file that is not as the manifest says.
  """
  for name, entry in manifest['files'].items():
    try:
      _check_file(directory / name, entry, verify=True)
    except UserError as error:
      yield str(error)


def verify_files(directory: pathlib.Path, manifest: Mapping[str, Any]) -> None:
  """Checks every byte of a version that was opened already.

  Args:
    directory: the version.
    manifest: of it.
  """
  for name, entry in manifest['files'].items():
    _check_file(directory / name, entry, verify=True)


def read_object(path: pathlib.Path) -> dict[str, Any]:
  """The JSON object in a file."""
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, RecursionError) as error:
    raise UserError(
      f'{path} is no JSON ({error}): build the index again'
    ) from error
  if not isinstance(value, dict):
    raise UserError(
      f'{path} should hold a JSON object, it holds a {type(value).__name__}:'
      ' build the index again'
    )
  return value


def _check_facts(path: pathlib.Path, manifest: Mapping[str, Any]) -> None:
  """Refuses a manifest that no version of this program has written."""
  for name, kind in _FACTS.items():
    if not isinstance(manifest.get(name), kind):
      raise UserError(
        f'{path} should have {name} as {kind.__name__}, it has'
        f' {manifest.get(name)!r}: build the index again'
      )
  sizes = manifest['code_sizes']
  if not all(isinstance(size, int) and size > 0 for size in sizes):
    raise UserError(
      f'{path} should have code_sizes above 0, it has {sizes}: build the index'
      ' again'
    )
  for name, entry in manifest['files'].items():
    if not isinstance(entry, dict) or not {'bytes', 'sha256'} <= entry.keys():
      raise UserError(
        f'{path} should have bytes and sha256 of {name}, it has {entry!r}:'
        ' build the index again'
      )


def _check_file(
  path: pathlib.Path, entry: Mapping[str, Any], verify: bool
) -> None:
  """Refuses a file that is not as the manifest says."""
  if not path.is_file():
    raise UserError(f'{path} is missing: build the index again')
  size = path.stat().st_size
  if size != entry['bytes']:
    raise UserError(
      f'{path} should have {entry["bytes"]} bytes, it has {size}: build the'
      ' index again'
    )
  if (verify or size <= SMALL_FILE) and file_sha256(path) != entry['sha256']:
    raise UserError(
      f'{path} is damaged or changed (its checksum differs): build the index'
      ' again'
    )
