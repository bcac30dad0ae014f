"""What can happen to the documents of an index, and its bytes."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from gr_jax.index.index import SNIPPET_LENGTH
from gr_jax.types import Document

_CHANGE = 'change'


@dataclasses.dataclass(frozen=True)
class Insert:
  """Documents that come.

  Attributes:
    document_ids: distinct ids.
    titles: one a document.
    snippets: the beginning of each text.
    metadata: one mapping a document.
    codes_NL: identifiers.
    vectors_ND: unit vectors.
    replaces: whether documents of these ids that are there go; otherwise
      there may be none.
  """

  document_ids: Sequence[str]
  titles: Sequence[str]
  snippets: Sequence[str]
  metadata: Sequence[Mapping[str, object]]
  codes_NL: np.ndarray
  vectors_ND: np.ndarray
  replaces: bool = False

  @classmethod
  def of(
    cls,
    documents: Sequence[Document],
    codes_NL: np.ndarray,
    vectors_ND: np.ndarray,
    replaces: bool = False,
  ) -> 'Insert':
    """The insertion of documents with their identifiers and vectors."""
    return cls(
      [document.id for document in documents],
      [document.title for document in documents],
      [document.text[:SNIPPET_LENGTH] for document in documents],
      [dict(document.metadata) for document in documents],
      np.asarray(codes_NL),
      np.asarray(vectors_ND),
      replaces,
    )


@dataclasses.dataclass(frozen=True)
class Delete:
  """Documents that go.

  Attributes:
    document_ids: distinct ids of documents that are there.
  """

  document_ids: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Hide:
  """Documents that no search finds until they are shown again.

  Attributes:
    document_ids: ids of documents that are there.
  """

  document_ids: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Show:
  """Hidden documents that are found again.

  Attributes:
    document_ids: ids of documents that are there.
  """

  document_ids: Sequence[str]


Change = Insert | Delete | Hide | Show
_KINDS = {kind.__name__: kind for kind in (Insert, Delete, Hide, Show)}


def to_bytes(change: Change) -> bytes:
  """A change as safetensors, its texts as JSON in them."""
  # Not dataclasses.asdict, which would copy the arrays.
  values = {
    field.name: getattr(change, field.name)
    for field in dataclasses.fields(change)
  }
  arrays = {
    name: np.require(value, requirements='C')
    for name, value in values.items()
    if isinstance(value, np.ndarray)
  }
  texts = {name: value for name, value in values.items() if name not in arrays}
  arrays['texts'] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
  return safetensors.numpy.save(
    arrays, metadata={_CHANGE: type(change).__name__}
  )


def from_bytes(data: bytes) -> Change:
  """The inverse of `to_bytes`.

  Raises:
    ValueError: when they are of no change.
  """
  try:
    arrays = safetensors.numpy.load(data)
    length = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8 : 8 + length])
    kind = _KINDS[header['__metadata__'][_CHANGE]]
    texts: dict[str, Any] = json.loads(arrays.pop('texts').tobytes())
    return kind(**texts, **arrays)
  except (safetensors.SafetensorError, KeyError, TypeError) as error:
    raise ValueError(f'no change of an index: {error}') from error
