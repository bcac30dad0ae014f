"""Documents that come after training: encoded, given codes, put in the index.

Nothing is trained: the model and the vocabulary inside the index serve.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gr_jax.retrieval.encoding import assign_new_codes, document_vectors
from gr_jax.retrieval.opening import open_index
from gr_jax.types import Document, UserError

# Identifiers that say how long they are: more hardly change the mean.
_SAMPLE = 8192


@dataclasses.dataclass(frozen=True)
class Inserted:
  """What became of new documents.

  Attributes:
    version: the folder of the index with them.
    documents: inserted.
    total: in the index now.
    joined: of those inserted, how many share the identifier of a document
      that was there.
    buckets: identifiers that they share.
    identifiers: new ones that the others made.
  """

  version: pathlib.Path
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
  path: pathlib.Path, documents: Sequence[Document], texts: Sequence[str]
) -> Inserted:
  """Writes a version of an index that holds more documents.

  Args:
    path: the folder of all versions.
    documents: whose ids are not in the index.
    texts: what the encoder reads of each.

  Returns:
    What became of them.
  """
  opened = open_index(path)
  index = opened.index
  length = _document_length(index.directory, opened.saved)
  _check_ids(path, index.document_ids, documents)
  vectors_ND = document_vectors(
    opened.model,
    opened.params,
    lambda rows: opened.vocabulary.encode_batch(
      [texts[row] for row in rows], length
    ),
    len(texts),
    length,
  )
  codes_NL = assign_new_codes(
    opened.model,
    opened.params,
    vectors_ND,
    index.codes_NL[_trained_with(index.new_N)],
  )
  grown = index.extended(
    codes_NL,
    vectors_ND,
    [document.id for document in documents],
    [document.title for document in documents],
    [document.text for document in documents],
  )
  version = grown.save(
    path,
    opened.params,
    opened.saved,
    opened.vocabulary,
    index.manifest['inputs_sha256'],
    after=index.directory,
  )
  return Inserted(
    version, len(texts), len(grown), *_shares(index.codes_NL, codes_NL)
  )


def _trained_with(new_N: np.ndarray) -> np.ndarray:
  """Rows of documents that training saw, evenly taken where there are many."""
  rows_N = np.flatnonzero(~np.asarray(new_N))
  return rows_N[:: -(-len(rows_N) // _SAMPLE)]


def _document_length(directory: pathlib.Path, saved: Mapping[str, Any]) -> int:
  """Tokens of a document, as the others were cut."""
  if 'document_length' not in saved:
    raise UserError(
      f'{directory} does not say how long its documents were cut, as indexes '
      'of today do: build it again with python -m gr_jax.index_corpus'
    )
  return saved['document_length']


def _check_ids(
  path: pathlib.Path, there: Sequence[str], documents: Sequence[Document]
) -> None:
  """Refuses documents that the index holds."""
  known = set(there)
  twice = [document.id for document in documents if document.id in known]
  if twice:
    others = f' and {len(twice) - 1:,} more' if len(twice) > 1 else ''
    raise UserError(
      f'{path} should get new documents, it holds {twice[0]!r}{others} '
      'already: leave them out; to change their texts build the index of the '
      'changed corpus again'
    )


def _shares(old_NL: np.ndarray, new_NL: np.ndarray) -> tuple[int, int, int]:
  """Documents that join identifiers, how many those are, how many are new."""
  _, numbers_N = np.unique(
    np.concatenate([old_NL, new_NL]), axis=0, return_inverse=True
  )
  numbers_N = numbers_N.reshape(-1)
  new_N = numbers_N[len(old_NL) :]
  joins_N = np.isin(new_N, numbers_N[: len(old_NL)])
  return (
    int(joins_N.sum()),
    len(np.unique(new_N[joins_N])),
    len(np.unique(new_N[~joins_N])),
  )
