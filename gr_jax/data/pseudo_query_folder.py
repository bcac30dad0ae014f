"""A folder of generated queries: files in order, and their checksums.

FOLDER/
queries-00000.jsonl.gz   {"_id": document, "queries": [text, ...]} a line
manifest.json            files with checksums, and where they come from
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator

from gr_jax.checksums import file_sha256
from gr_jax.types import UserError

MANIFEST = 'manifest.json'
# Names of the files, for pathlib's glob.
PATTERN = 'queries-*.jsonl.gz'
_CHECKSUM = 'manifest_sha256'
_REMEDY = 'delete the folder and run python -m gr_jax.generate_queries again'


def file_name(number: int) -> str:
  """The name of a file of queries."""
  return f'queries-{number:05d}.jsonl.gz'


def write_manifest(directory: pathlib.Path, contents: dict) -> None:
  """Writes the manifest of a folder with the checksums of its files.

  Args:
    directory: that holds all files of queries.
    contents: JSON data of where they come from.
  """
  files = {
    path.name: {'bytes': path.stat().st_size, 'sha256': file_sha256(path)}
    for path in sorted(directory.glob(PATTERN))
  }
  manifest = {**contents, 'files': files}
  whole = {**manifest, _CHECKSUM: _sha256(manifest)}
  text = json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False)
  (directory / MANIFEST).write_text(text + '\n', 'utf-8')


def read_manifest(directory: pathlib.Path) -> dict:
  """The manifest of a folder.

  Raises:
    UserError: when there is none, or it is damaged.
  """
  place = directory / MANIFEST
  try:
    manifest = json.loads(place.read_bytes().decode('utf-8'))
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UserError(
      f'{directory}: expected a folder that gr_jax.generate_queries wrote; it '
      f'has no {MANIFEST}'
    ) from error
  except ValueError as error:
    raise UserError(f'{place}: damaged: {error}; {_REMEDY}') from error
  checksum = (
    manifest.pop(_CHECKSUM, None) if isinstance(manifest, dict) else None
  )
  if checksum is None or checksum != _sha256(manifest):
    raise UserError(f'{place}: damaged: its checksum differs; {_REMEDY}')
  return manifest


def damaged_files(directory: pathlib.Path) -> tuple[dict, list[str]]:
  """Checks every byte of a folder.

  Args:
    directory: of the queries.

  Returns:
    {name: {'bytes', 'sha256'}} of its files, none where the list of them is
    damaged, and a line on each that is not as it was written.
  """
  try:
    files = read_manifest(directory)['files']
  except UserError as error:
    return {}, [str(error)]
  lines = [_damage(directory / name, files[name]) for name in sorted(files)]
  return files, [line for line in lines if line]


def whole_files(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the files of a folder in order, each checked before.

  Raises:
    UserError: for one that is not as it was written.
  """
  files = read_manifest(directory)['files']
  for name in sorted(files):
    if line := _damage(directory / name, files[name]):
      raise UserError(line)
    yield directory / name


def _damage(path: pathlib.Path, entry: dict) -> str:
  """A line on a file that is not as it was written, else ''."""
  if not path.is_file():
    return f'{path}: missing; {_REMEDY}'
  if path.stat().st_size != entry['bytes']:
    return (
      f'{path}: damaged: {path.stat().st_size:,} bytes, the manifest says '
      f'{entry["bytes"]:,}; {_REMEDY}'
    )
  found = file_sha256(path)
  if found != entry['sha256']:
    return (
      f'{path}: damaged: SHA-256 {found[:12]}, the manifest says '
      f'{entry["sha256"][:12]}; {_REMEDY}'
    )
  return ''


def _sha256(manifest: dict) -> str:
  text = json.dumps(manifest, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
