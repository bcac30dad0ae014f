"""Checks every byte of checkpoints, indexes, and what runs are prepared from.

python -m gr_jax.verify runs/NAME [PATH ...]
python -m gr_jax.verify runs/NAME --drop_damaged

One line for each, and one for each damaged file; status 1 when there is one.
No device is touched, and nothing but the folders themselves is read.
"""

import argparse
import dataclasses
import pathlib
import re
import shutil
from collections.abc import Iterator, Sequence

from gr_jax import entry, locks
from gr_jax.types import UserError, near_miss

_STEP = re.compile(r'step_\d{8,}')
_VERSION = re.compile(r'v\d{6}')
_MANIFEST = 'manifest.json'
_VECTORS = 'npy', 'json'
# RUN/controls/NAME/checkpoints/STEP lies deepest.
_DEPTH = 5


@dataclasses.dataclass(frozen=True)
class Checked:
  """What was found of a folder.

  Attributes:
    kind: as 'checkpoint'.
    path: the folder.
    files: sizes by name, as its manifest has them.
    damaged: a line on each file that is not as it was written.
  """

  kind: str
  path: pathlib.Path
  files: dict[str, int]
  damaged: Sequence[str]

  def __str__(self):
    state = f'{len(self.damaged):,} DAMAGED' if self.damaged else 'ok'
    size = sum(self.files.values())
    return (
      f'{self.kind} {self.path}: {len(self.files):,} files, {size:,} bytes, '
      f'{state}'
    )


def check(path: pathlib.Path) -> Iterator[Checked]:
  """Checks all that lies at a path.

  Args:
    path: a run or a folder of runs, checkpoints, an index, prepared examples,
      vectors of a frozen encoder, rankings of a teacher or pseudo-queries.

  Raises:
    UserError: there is none of these.
  """
  found = list(_parts(path, _DEPTH))
  if not found:
    there = path.parent.iterdir() if path.parent.is_dir() else ()
    what = 'it is a file' if path.is_file() else 'there is none'
    what = 'it holds none of them' if path.is_dir() else what
    raise UserError(
      f'{path}: expected a run, checkpoints, an index, prepared examples, '
      f'vectors, rankings or pseudo-queries; {what}'
      f'{near_miss(path.name, [p.name for p in there])}'
    )
  for checker, folder in found:
    yield checker(folder)


def _parts(path: pathlib.Path, depth: int):
  """(function, folder) of all that can be checked, down to a depth."""
  if _STEP.fullmatch(path.name) and path.is_dir():
    yield _checkpoint, path
  elif (path / 'CURRENT').is_file():
    yield _index, path
  elif _VERSION.fullmatch(path.name) and path.is_dir():
    # What a version should be is known beside it.
    yield _index, path.parent
  elif any(path.glob('documents-*.array_record')):
    yield _prepared, path
  elif all((path / f'documents.{kind}').is_file() for kind in _VECTORS):
    yield _vectors, path
  elif (path / _MANIFEST).is_file() and any(path.glob('*.done.json')):
    yield _rankings, path
  elif any(path.glob('queries-*.jsonl.gz')):
    yield _pseudo_queries, path
  elif path.is_dir() and depth:
    for inner in sorted(path.iterdir()):
      # What has a dot in front is being made, or a lock.
      if inner.is_dir() and not inner.name.startswith('.'):
        yield from _parts(inner, depth - 1)


def _sizes(files) -> dict[str, int]:
  return {name: described['bytes'] for name, described in files.items()}


def _checkpoint(folder: pathlib.Path) -> Checked:
  from gr_jax.training import manifests

  path = folder / _MANIFEST
  if not path.exists():
    # A kill left it; no restart looks at it, and the next save removes it.
    return Checked('unfinished save, which does not count,', folder, {}, ())
  try:
    files = manifests.read_manifest(path)['files']
  except manifests.FileDamaged as error:
    return Checked('checkpoint', folder, {}, [str(error)])
  sizes = _sizes(files)
  damaged = list(manifests.damaged_files(folder, files))
  return Checked('checkpoint', folder, sizes, damaged)


def _index(folder: pathlib.Path) -> Checked:
  from gr_jax.index import manifest, versions

  try:
    version, sha256 = versions.current_version(folder)
    facts = manifest.read_facts(version, sha256)
  except UserError as error:
    return Checked('index', folder, {}, [str(error)])
  damaged = list(manifest.damaged_files(version, facts))
  sizes = _sizes(facts['files'])
  log = version / 'changes.log'
  if log.is_file():
    from gr_jax.index.log import LogReader

    sizes[log.name] = log.stat().st_size
    try:
      for _ in LogReader(version, sha256).new():
        pass
    except UserError as error:
      damaged.append(str(error))
  return Checked('index', version, sizes, damaged)


def _prepared(folder: pathlib.Path) -> Checked:
  from gr_jax.data.prepared import damaged_files

  files, damaged = damaged_files(folder)
  sizes = _sizes(files)
  return Checked('prepared examples', folder, sizes, damaged)


def _vectors(folder: pathlib.Path) -> Checked:
  from gr_jax.retrieval.frozen_vectors import damaged_files

  files, damaged = damaged_files(folder)
  return Checked('vectors', folder, _sizes(files), damaged)


def _rankings(folder: pathlib.Path) -> Checked:
  from gr_jax.ranking.teacher_files import damaged_files

  files, damaged = damaged_files(folder)
  return Checked('rankings', folder, _sizes(files), damaged)


def _pseudo_queries(folder: pathlib.Path) -> Checked:
  from gr_jax.data.pseudo_query_folder import damaged_files

  files, damaged = damaged_files(folder)
  return Checked('pseudo-queries', folder, _sizes(files), damaged)


def drop_damaged(found: Sequence[Checked]) -> list[str]:
  """Deletes the damaged checkpoints of what was checked.

  Args:
    found: from `check`.

  Returns:
    A line on each; training goes on from the last that is whole.

  Raises:
    UserError: none would be left, or a process is training.
  """
  lines = []
  steps = [each for each in found if each.kind == 'checkpoint']
  for each in steps:
    if not each.damaged:
      continue
    folder = each.path.parent
    whole = [s for s in steps if s.path.parent == folder and not s.damaged]
    if not whole:
      raise UserError(
        f'{folder}: no checkpoint is whole, none was deleted: delete the '
        'folder to start again'
      )
    lock = folder.parent / '.lock'
    with locks.held(lock, f'deleting in {folder}', 'end it first'):
      shutil.rmtree(each.path)
    last = max(whole, key=lambda step: step.path.name)
    lines.append(f'deleted {each.path}: the last whole one is {last.path.name}')
  return lines


def main(arguments: list[str]) -> int:
  """The door: flags to calls."""
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.verify',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument('paths', nargs='+', metavar='PATH')
  parser.add_argument(
    '--drop_damaged',
    action='store_true',
    help='delete damaged checkpoints where an earlier one is whole, so that '
    'training goes on from that',
  )
  flags = parser.parse_args(arguments)
  found = []
  for path in flags.paths:
    for each in check(pathlib.Path(path)):
      print(each, *each.damaged, sep='\n  ', flush=True)
      found.append(each)
  if flags.drop_damaged:
    print(*drop_damaged(found), sep='\n')
  return int(any(each.damaged for each in found))


if __name__ == '__main__':
  entry.run_main(main)
