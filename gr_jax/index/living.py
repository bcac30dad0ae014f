"""An index that is changed while it is searched, by one process at a time.

Every change is in the log of the current version before it is acknowledged. Now
and then the changes are folded into a new version, in the background: searches
and changes go on, and what changed in the meantime is in the new version's log
before it becomes the current one.
"""

import contextlib
import logging
import pathlib
import shutil
import threading
from collections.abc import Callable

from gr_jax.checksums import file_sha256
from gr_jax.index import manifest, versions
from gr_jax.index.changes import Change, Insert
from gr_jax.index.index import Index
from gr_jax.index.log import LogReader, LogWriter
from gr_jax.index.reader import IndexReader
from gr_jax.index.snapshot import Snapshot
from gr_jax.types import UserError


class LivingIndex:
  """The writer of an index.

  Attributes:
    path: the folder of all versions.
    room: documents that may have come since a version was built. Before more
      of them come, it is folded; when half as many have come, or an eighth of
      those that were there have gone, that begins in the background.
  """

  def __init__(
    self,
    path: pathlib.Path,
    room: int | None = None,
    when_folded: Callable[[], None] = lambda: None,
  ):
    """Opens an index; other processes can search it, none can change it.

    Args:
      path: the folder of all versions.
      room: as the attribute; a sixteenth of the documents when None, but from
        1,024 to 65,536.
      when_folded: called with every new version, in the thread that wrote it.

    Raises:
      UserError: when another process writes it.
    """
    self.path = pathlib.Path(path)
    # A folder that is no index must not be made one.
    versions.current_version(self.path)
    self._when_folded = when_folded
    self._changing = threading.RLock()
    self._folding = threading.Lock()
    self._background: threading.Thread | None = None
    self._failure: Exception | None = None
    with contextlib.ExitStack() as stack:
      stack.enter_context(versions.writing(self.path, f'changing {self.path}'))
      self._open()
      share = len(self._snapshot.base) // 16
      self.room = min(max(share, 1024), 65536) if room is None else room
      self._held = stack.pop_all()

  def __enter__(self) -> 'LivingIndex':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  @property
  def snapshot(self) -> Snapshot:
    """The documents as they are now."""
    return self._snapshot

  def apply(self, change: Change) -> Snapshot:
    """Makes a change; it is on the disk when this returns.

    Args:
      change: what happens; all of it or, in case of an error, nothing.

    Returns:
      The documents after it.

    Raises:
      UserError: when it is impossible, or the disk does not take it.
    """
    if isinstance(change, Insert):
      self._make_room(len(change.document_ids))
    with self._changing:
      after = self._snapshot.apply(change)
      self._log.append(change)
      self._since.append(change)
      self._snapshot = after
    most_gone = max(len(after.base) // 8, self.room // 2)
    if 2 * len(after.added) >= self.room or after.gone >= most_gone:
      self.fold_in_background()
    return after

  def fold(self) -> pathlib.Path:
    """Writes a version that has all changes; the folder of it.

    Searches and changes go on meanwhile.
    """
    with self._folding, contextlib.ExitStack() as held:
      with self._changing:
        before, done = self._snapshot, len(self._since)
      # Damage must not get checksums that fit it.
      manifest.verify_files(before.base.directory, before.base.manifest)
      index = before.folded()
      with versions.next_version(self.path) as building:
        _write(index, building)
        # What takes long is on the disk before changes have to wait.
        versions.sync_tree(building)
        held.enter_context(self._changing)
        self._carry_over(building, done)
      self._log.close()
      self._open()
      directory = self._directory
    self._when_folded()
    return directory

  def fold_in_background(self) -> None:
    """The same in a thread, unless one is at it."""
    with self._changing:
      if self._background is None or not self._background.is_alive():
        self._background = threading.Thread(
          target=self._fold_apart, name='folding an index'
        )
        self._background.start()

  def wait(self) -> None:
    """Waits for what goes on in the background.

    Raises:
      UserError: what made it fail.
    """
    if self._background is not None:
      self._background.join()
    failure, self._failure = self._failure, None
    if failure is not None:
      raise failure

  def close(self) -> None:
    """Waits for what goes on and lets other processes write."""
    with self._held:
      try:
        self.wait()
      finally:
        self._log.close()

  def _fold_apart(self):
    try:
      self.fold()
    except (UserError, OSError) as error:
      logging.getLogger(__name__).warning(
        'the changes of %s stay in its log: %s', self.path, error
      )
      self._failure = error

  def _make_room(self, documents):
    """Folds first where the documents that came would not fit."""
    if len(self._snapshot.added) + documents <= self.room:
      return
    self.wait()
    if len(self._snapshot.added) + documents > self.room:
      self.fold()

  def _open(self):
    """The current version with its changes, ready for more."""
    reader = IndexReader(self.path)
    self._snapshot = reader.snapshot
    self._log = LogWriter(reader.log)
    self._directory = reader.log.path.parent
    self._since: list[Change] = []

  def _carry_over(self, building, done):
    """Writes what came while a version was written into its log."""
    checksum = file_sha256(building / manifest.NAME)
    log = LogWriter(LogReader(building, checksum))
    for change in self._since[done:]:
      log.append(change)
    log.close()


class _SavedVocabulary:
  """The vocabulary inside a version, as its files."""

  def __init__(self, index: Index):
    self.sha256 = index.manifest['vocabulary_sha256']
    self._directory = index.vocabulary_directory

  def save(self, directory: pathlib.Path) -> None:
    """Copies the files."""
    shutil.copytree(self._directory, directory, dirs_exist_ok=True)


def _write(index: Index, directory: pathlib.Path) -> None:
  """Fills a version with an index that was made from another."""
  index.write(
    directory,
    index.params(),
    index.settings(),
    _SavedVocabulary(index),
    index.manifest['inputs_sha256'],
  )
