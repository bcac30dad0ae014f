"""Opens an index with the changes since it was built, and follows it."""

import contextlib
import pathlib
from collections.abc import Iterator

from gr_jax.index import versions
from gr_jax.index.index import Index
from gr_jax.index.log import LogReader
from gr_jax.index.snapshot import Snapshot
from gr_jax.types import UserError


class IndexReader:
  """The current state of an index that another process may change.

  Attributes:
    path: the folder of all versions.
    snapshot: the documents as they were when last looked at.
    log: at the last change that `snapshot` has.
  """

  def __init__(self, path: pathlib.Path, verify: bool = False):
    """Opens the current version.

    Args:
      path: the folder of all versions.
      verify: check every byte first.
    """
    self.path = pathlib.Path(path)
    self._open(verify)

  def refresh(self) -> bool:
    """Looks again; whether anything has changed."""
    before = self.snapshot
    if versions.current_version(self.path)[0] != self.log.path.parent:
      self._open(verify=False)
    self._read()
    return self.snapshot is not before

  def _open(self, verify: bool) -> None:
    while True:
      version = versions.current_version(self.path)
      try:
        self.snapshot = Snapshot.of(Index.load(*version, verify))
        self.log = LogReader(*version)
        self._read()
        return
      except UserError:
        # Two versions later a writer removes one: the newest is meant then.
        if versions.current_version(self.path) == version:
          raise

  def _read(self) -> None:
    with _damage_is_named(self.log.path.parent):
      for change in self.log.new():
        self.snapshot = self.snapshot.apply(change)


def state_sha256(path: pathlib.Path) -> str:
  """Checksum of an index as it is now: its version and all changes since.

  Args:
    path: the folder of all versions.
  """
  return IndexReader(path).log.digest.hex()


def load_index(path: pathlib.Path, verify: bool = False) -> Index:
  """An index as it is now, built again in memory where it has changed.

  Args:
    path: the folder of all versions.
    verify: check every byte first.
  """
  reader = IndexReader(path, verify)
  with _damage_is_named(reader.log.path.parent):
    return reader.snapshot.folded()


@contextlib.contextmanager
def _damage_is_named(directory: pathlib.Path) -> Iterator[None]:
  """Refuses elements that no build has written, where they are looked at."""
  try:
    yield
  except (ValueError, IndexError) as error:
    raise UserError(
      f'{directory} has files that do not go together ({error}): build the '
      'index again'
    ) from error
