"""Documents that come after training: encoded, given codes, put in the index.

Nothing is trained: the model and the vocabulary inside the index serve.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gr_jax.decoding.trie import Trie
from gr_jax.index.changes import Insert
from gr_jax.index.fields import usable
from gr_jax.index.living import LivingIndex
from gr_jax.index.snapshot import Snapshot
from gr_jax.retrieval.encoding import assign_new_codes, document_vectors
from gr_jax.retrieval.opening import OpenedIndex, opened
from gr_jax.types import Document, UserError, document_text

# Identifiers that say how long they are: more hardly change the mean.
_SAMPLE = 8192


@dataclasses.dataclass(frozen=True)
class Inserted:
  """What became of new documents.

  Attributes:
    documents: inserted.
    total: in the index now.
    joined: of those inserted, how many share the identifier of a document
      that was there.
    buckets: identifiers that they share.
    identifiers: new ones that the others made.
  """

  documents: int
  total: int
  joined: int
  buckets: int
  identifiers: int

  def __str__(self):
    apart = self.documents - self.joined
    return (
      f'inserted {self.documents:,} documents, {self.total:,} are in the index '
      f'now: {self.joined:,} went to {self.buckets:,} identifiers that were '
      f'there, {apart:,} made {self.identifiers:,} new ones'
    )


def insert_documents(
  path: pathlib.Path, documents: Sequence[Document], replaces: bool = False
) -> Inserted:
  """Puts documents into an index that no other process is changing.

  Args:
    path: the folder of all versions.
    documents: what comes.
    replaces: whether documents of the same ids go; otherwise there may be
      none.

  Returns:
    What became of them.
  """
  with LivingIndex(path) as living:
    before = living.snapshot
    change = encoded(opened(before.base), before, documents, replaces)
    return inserted(before, living.apply(change), change)


def encoded(
  model: OpenedIndex,
  snapshot: Snapshot,
  documents: Sequence[Document],
  replaces: bool = False,
) -> Insert:
  """Documents with their vectors and identifiers, ready to be inserted.

  Args:
    model: what the index was made with.
    snapshot: its documents.
    documents: what comes.
    replaces: whether documents of the same ids go.

  Raises:
    UserError: when they cannot come, before anything is encoded.
  """
  index = snapshot.base
  length = _document_length(index.directory, model.saved)
  snapshot.check_new([document.id for document in documents], replaces)
  texts = [document_text(document) for document in documents]
  vectors_ND = document_vectors(
    model.model,
    model.params,
    lambda rows: model.vocabulary.encode_batch(
      [texts[row] for row in rows], length
    ),
    len(texts),
    length,
  )
  codes_NL = assign_new_codes(
    model.model,
    model.params,
    vectors_ND,
    index.codes_NL[_trained_with(index.directory, index.new_N)],
  )
  # As when a corpus is indexed: what is nothing to filter by is left out.
  kept, lines = usable(document.metadata for document in documents)
  for line in lines:
    logging.getLogger(__name__).warning('%s', line)
  documents = [
    dataclasses.replace(document, metadata=metadata)
    for document, metadata in zip(documents, kept, strict=True)
  ]
  return Insert.of(documents, codes_NL, vectors_ND, replaces)


def inserted(before: Snapshot, after: Snapshot, change: Insert) -> Inserted:
  """What became of documents.

  Args:
    before: the index without them.
    after: the index with them.
    change: their insertion.
  """
  there_N = contains(before.base.trie, change.codes_NL)
  if len(before.added):
    there_N |= contains(before.added.trie, change.codes_NL)
  return Inserted(
    len(change.document_ids),
    after.there,
    int(there_N.sum()),
    _distinct(change.codes_NL[there_N]),
    _distinct(change.codes_NL[~there_N]),
  )


def contains(trie: Trie, codes_XL: np.ndarray) -> np.ndarray:
  """[X] bool, which identifiers a trie has; a binary search over its rows."""
  codes_LX = np.asarray(codes_XL).T
  low_X = np.zeros(codes_LX.shape[1], np.int64)
  high_X = np.full(codes_LX.shape[1], len(trie))
  while (low_X < high_X).any():
    middle_X = (low_X + high_X) // 2
    below_X = _compared(trie, middle_X, codes_LX) < 0
    open_X = low_X < high_X
    low_X = np.where(open_X & below_X, middle_X + 1, low_X)
    high_X = np.where(open_X & ~below_X, middle_X, high_X)
  return (low_X < len(trie)) & (_compared(trie, low_X, codes_LX) == 0)


def _compared(trie, rows_X, codes_LX):
  """-1, 0 or 1: whether rows stand before identifiers, are them, or behind."""
  if not len(trie):
    return np.ones(len(rows_X), int)
  rows_X = np.minimum(rows_X, len(trie) - 1)
  order_X = np.zeros(len(rows_X), int)
  for column_N, codes_X in zip(trie.columns, codes_LX, strict=True):
    row_codes_X = column_N[rows_X].astype(np.int64)
    order_X = np.where(order_X == 0, np.sign(row_codes_X - codes_X), order_X)
  return order_X


def _distinct(codes_XL):
  return len(np.unique(codes_XL, axis=0))


def _trained_with(directory: pathlib.Path, new_N: np.ndarray) -> np.ndarray:
  """Rows of documents that training saw, evenly taken where there are many.

  Where none of them is left, rows of those that came later.
  """
  if not len(new_N):
    raise UserError(
      f'{directory} holds no document, by whose identifier new ones would be '
      'made: build the index again with python -m gr_jax.index_corpus'
    )
  rows_N = np.flatnonzero(~np.asarray(new_N))
  rows_N = rows_N if len(rows_N) else np.arange(len(new_N))
  return rows_N[:: -(-len(rows_N) // _SAMPLE)]


def _document_length(directory: pathlib.Path, saved: Mapping[str, Any]) -> int:
  """Tokens of a document, as the others were cut."""
  if 'document_length' not in saved:
    raise UserError(
      f'{directory} does not say how long its documents were cut, as indexes '
      'of today do: build it again with python -m gr_jax.index_corpus'
    )
  return saved['document_length']
