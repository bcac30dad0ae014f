"""From document vectors to an index, for the door and for the training loop."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gr_jax.index.index import Index
from gr_jax.retrieval.encoding import assign_codes, moved_vectors


def identified(
  model: Any, params: Mapping[str, Any], vectors_ND: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """What an index keeps of documents, each by itself.

  Args:
    model: Retriever.
    params: of the model; its tables have a row for each of these documents.
    vectors_ND: [N, D] unit vectors of the documents, float32.

  Returns:
    [N, L] their identifiers and [N, D] what they are ranked by.
  """
  codes_NL = assign_codes(model, params, vectors_ND)
  if model.config.ranks_moved:
    vectors_ND = moved_vectors(model, params, vectors_ND)
  return codes_NL, vectors_ND


def build_index(
  model: Any,
  params: Mapping[str, Any],
  vectors_ND: np.ndarray,
  vector_type: str,
  document_ids: Sequence[str],
  titles: Sequence[str],
  texts: Sequence[str],
  metadata: Sequence[Mapping[str, object]] | None = None,
) -> Index:
  """Gives each document its identifier and makes the index in memory.

  Args:
    model: Retriever.
    params: of the model.
    vectors_ND: [N, D] unit vectors of the documents, float32; the index keeps
      what Retriever.moved makes of them where RetrieverConfig.ranks_moved.
    vector_type: what the index keeps them in (SearchSettings.vector_type).
    document_ids: one a document.
    titles: one a document.
    texts: one a document.
    metadata: one mapping a document; none has any when None.
  """
  codes_NL, vectors_ND = identified(model, params, vectors_ND)
  return Index.build(
    codes_NL,
    model.config.code_sizes,
    vectors_ND.astype(vector_type),
    document_ids,
    titles,
    texts,
    metadata,
  )
