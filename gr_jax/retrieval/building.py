"""From document vectors to an index, for the door and for the training loop."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gr_jax.index.index import Index
from gr_jax.retrieval.encoding import assign_codes, moved_vectors


def build_index(
  model: Any,
  params: Mapping[str, Any],
  vectors_ND: np.ndarray,
  vector_type: str,
  document_ids: Sequence[str],
  titles: Sequence[str],
  texts: Sequence[str],
) -> Index:
  """Gives each document its identifier and makes the index in memory.

  Args:
    model: Retriever.
    params: of the model.
    vectors_ND: [N, D] unit vectors of the documents, float32; the index keeps
      them moved to the documents' training queries (Retriever.moved).
    vector_type: what the index keeps them in (SearchSettings.vector_type).
    document_ids: one a document.
    titles: one a document.
    texts: one a document.
  """
  return Index.build(
    assign_codes(model, params, vectors_ND),
    model.config.code_sizes,
    moved_vectors(model, params, vectors_ND).astype(vector_type),
    document_ids,
    titles,
    texts,
  )
