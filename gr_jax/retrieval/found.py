"""What a search has found."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Hit:
  """A document that a query found.

  Attributes:
    document: its number in the index.
    document_id: its id in the collection.
    title: may be empty.
    snippet: the beginning of its text.
    score: what it is ranked by.
    generative_score: of its identifier.
    dense_score: dot product of the query's and its vector.
    codes: its identifier.
  """

  document: int
  document_id: str
  title: str
  snippet: str
  score: float
  generative_score: float
  dense_score: float
  codes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class SearchBatch:
  """Ranked documents of many queries, as arrays.

  Attributes:
    documents_BC: document numbers, best first, NO_DOC behind the last.
    scores_BC: what they are ranked by, FLOOR where there is no document.
    generative_BC: scores of their identifiers.
    dense_BC: dot products with the queries' vectors.
    ranks_BC: places of their identifiers in generative order, from 0; NO_DOC
      where there is no document.
    documents_scored_B: distinct documents that received a final score.
    code_scores_B: scores of a code for a beam: K for the root, then W x K for
      each of the L - 1 codes that follow.
  """

  documents_BC: np.ndarray
  scores_BC: np.ndarray
  generative_BC: np.ndarray
  dense_BC: np.ndarray
  ranks_BC: np.ndarray
  documents_scored_B: np.ndarray
  code_scores_B: np.ndarray
