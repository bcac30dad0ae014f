"""Searches an index while it is changed, by this process or by another."""

import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gr_jax.index.changes import Change, Delete, Hide, Show
from gr_jax.index.living import LivingIndex
from gr_jax.index.reader import IndexReader
from gr_jax.retrieval.insertion import Inserted, encoded, inserted
from gr_jax.retrieval.opening import opened, searcher_of
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher
from gr_jax.types import Document


class LivingSearcher:
  """Changes an index and searches it.

  A change is on the disk, and searches find it, when the call returns. Several
  threads may search; programs are compiled for the first queries only.

  Attributes:
    index: the documents, and what becomes of them on disk.
    searcher: searches them as they are now; its `select` gives filters.
  """

  def __init__(
    self,
    path: pathlib.Path,
    room: int | None = None,
    settings: SearchSettings | None = None,
    changes: Mapping[str, Any] | None = None,
    mesh: jax.sharding.Mesh | None = None,
  ):
    """Opens an index; other processes can search it, none can change it.

    Args:
      path: the folder of all versions.
      room: documents that may come before the index is folded, as LivingIndex
        has it.
      settings: how it is searched, instead of what was saved.
      changes: fields of SearchSettings that differ from those.
      mesh: devices that share the work, as Searcher has it.
    """
    self._following = threading.Lock()
    self.index = LivingIndex(path, room, self._follow)
    snapshot = self.index.snapshot
    self._opened = opened(snapshot.base)
    self.searcher: Searcher = searcher_of(
      self._opened, snapshot, settings, changes, self.index.room, mesh
    )

  def __enter__(self) -> 'LivingSearcher':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def insert(
    self, documents: Sequence[Document], replaces: bool = False
  ) -> Inserted:
    """Encodes documents and puts them into the index.

    Args:
      documents: what comes.
      replaces: whether documents of the same ids go; otherwise there may be
        none.

    Returns:
      What became of them.
    """
    before = self.index.snapshot
    change = encoded(self._opened, before, documents, replaces)
    return inserted(before, self.apply(change), change)

  def delete(self, document_ids: Sequence[str]) -> None:
    """Takes documents out of the index."""
    self.apply(Delete(list(document_ids)))

  def hide(self, document_ids: Sequence[str]) -> None:
    """Keeps documents from being found until they are shown again."""
    self.apply(Hide(list(document_ids)))

  def show(self, document_ids: Sequence[str]) -> None:
    """Lets hidden documents be found again."""
    self.apply(Show(list(document_ids)))

  def apply(self, change: Change):
    """Makes any change; arguments as of LivingIndex.apply."""
    after = self.index.apply(change)
    self._follow()
    return after

  def fold(self) -> pathlib.Path:
    """Writes a version that has all changes; the folder of it."""
    return self.index.fold()

  def close(self) -> None:
    """Waits for what goes on in the background and lets others write."""
    self.index.close()

  def _follow(self):
    """Searches what is there now; of a new version while the old one is."""
    # The newest is looked at under the lock: none is followed by an older one.
    with self._following:
      self.searcher.update(self.index.snapshot)


class FollowingSearcher:
  """Searches an index that another process changes.

  Attributes:
    searcher: searches the documents as they were at the last `refresh`.
  """

  def __init__(
    self,
    path: pathlib.Path,
    spare: int = 4096,
    settings: SearchSettings | None = None,
    changes: Mapping[str, Any] | None = None,
    mesh: jax.sharding.Mesh | None = None,
  ):
    """Opens an index.

    Args:
      path: the folder of all versions.
      spare: documents that may come with no program compiled anew.
      settings: how it is searched, instead of what was saved.
      changes: fields of SearchSettings that differ from those.
      mesh: devices that share the work, as Searcher has it.
    """
    self._reader = IndexReader(path)
    snapshot = self._reader.snapshot
    self.searcher: Searcher = searcher_of(
      opened(snapshot.base), snapshot, settings, changes, spare, mesh
    )

  def refresh(self) -> bool:
    """Takes over what has changed; whether anything has."""
    changed = self._reader.refresh()
    self.searcher.update(self._reader.snapshot)
    return changed
