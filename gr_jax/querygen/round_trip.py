"""Queries must find their document, or they would teach what is not so.

The consistency filter of Alberti et al. 2019 (arXiv 1906.05416) and InPars
(arXiv 2202.05144), by BM25 or by a sentence encoder.
"""

from collections.abc import Callable, Sequence

import numpy as np

from gr_jax.querygen.candidates import Candidate, chosen, flat
from gr_jax.types import Document

# Queries searched at once.
_BATCH = 256


class RoundTrip:
  """Keeps the queries that find their document.

  Attributes:
    provenance: what the search depends on.
  """

  name = 'round_trip'

  def __init__(
    self,
    find: Callable[[Sequence[str], int], np.ndarray],
    top: int,
    provenance: object,
  ):
    """Takes a search.

    Args:
      find: B texts and k -> [B, k] rows of documents in the corpus, best
        first, negative where there are no more.
      top: places among which the document must be.
      provenance: what the search depends on.
    """
    self._find, self._top = find, top
    self.provenance = provenance

  def keep(
    self,
    documents: Sequence[Document],
    candidates: Sequence[list[Candidate]],
    first: int,
  ) -> list[list[Candidate]]:
    """See candidates.Filter."""
    asked = flat(candidates)
    found: list[bool] = []
    for start in range(0, len(asked), _BATCH):
      part = asked[start : start + _BATCH]
      rows_BC = self._find([each.text for _, each in part], self._top)
      own_B = np.array([first + place for place, _ in part])
      found += (rows_BC == own_B[:, None]).any(axis=1).tolist()
    return chosen(candidates, found)
