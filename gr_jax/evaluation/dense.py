"""Exact dense search: every document is scored, a block at a time."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from gr_jax.evaluation.rankings import Rankings
from gr_jax.retrieval.exact import exact_top_k
from gr_jax.types import UserError


class ExactDense:
  """Encodes queries and ranks all documents by inner product."""

  def __init__(
    self,
    encode: Callable[[Sequence[str]], np.ndarray],
    documents_ND: np.ndarray,
    document_ids: Sequence[str],
    block: int = 65_536,
  ):
    """Joins an encoder and its document vectors.

    Args:
      encode: texts to vectors [B, D].
      documents_ND: document vectors of the same encoder, or a memmap.
      document_ids: the id of each row.
      block: documents in memory at once.
    """
    if len(documents_ND) != len(document_ids):
      raise UserError(
        f'{len(document_ids)} document ids and {len(documents_ND)} vectors: '
        'the index is incomplete'
      )
    self._encode = encode
    self._documents_ND = documents_ND
    # Up to one block stays on the device; reading it for every batch of
    # queries would time the copy, not the search.
    if len(documents_ND) <= block:
      self._documents_ND = jnp.asarray(documents_ND)
    self._block = block
    self.document_ids = document_ids

  def search(self, texts: Sequence[str], k: int) -> Rankings:
    """Ranks all documents for each of B texts, keeping k."""
    rows_BC, scores_BC = exact_top_k(
      self._encode(texts), self._documents_ND, k, self._block
    )
    scored_B = np.full(len(texts), len(self.document_ids), np.int64)
    return Rankings(rows_BC, scores_BC, scored_B, np.zeros_like(scored_B))
