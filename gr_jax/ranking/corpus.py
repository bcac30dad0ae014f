"""The documents and queries that a teacher is asked about."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from gr_jax.data.collection import Collection
from gr_jax.types import Document, Query


@dataclasses.dataclass(frozen=True)
class Asked:
  """A split of a collection, in memory.

  Attributes:
    documents: the corpus, in its order.
    queries: those that the split judges, in the order of their file.
    positives: rows of the documents that are relevant to each query.
  """

  documents: Sequence[Document]
  queries: Sequence[Query]
  positives: Sequence[np.ndarray]


def read_asked(collection: Collection, split: str) -> Asked:
  """Reads a split with the corpus.

  Args:
    collection: the folder.
    split: of the judgements.
  """
  relevant = defaultdict(set)
  row_of = collection.document_index()
  for judgement in collection.judgements(split):
    rows = relevant[judgement.query_id]
    if judgement.relevance > 0:
      rows.add(row_of[judgement.document_id])
  queries = [query for query in collection.queries() if query.id in relevant]
  return Asked(
    list(collection.documents()),
    queries,
    [np.array(sorted(relevant[query.id]), np.int64) for query in queries],
  )
