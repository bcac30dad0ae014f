"""Teachers: each scores the candidate documents of queries.

A teacher has a `name`, the `sha256` of its weights ('' for none), and
`scores(queries, rows)`: float32 scores of each query's documents, which are
given by their rows in the corpus.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gr_jax.progress import Pace
from gr_jax.ranking.ranker import Ranker
from gr_jax.types import NO_DOC, Document, Query

# Cormack, Clarke and Buettcher 2009, who fixed it once for all collections.
_FUSION_CONSTANT = 60


class Teacher(Protocol):
  """What is asked of a teacher."""

  name: str
  sha256: str

  def scores(
    self, queries: Sequence[Query], rows: Sequence[np.ndarray]
  ) -> list[np.ndarray]:
    """Scores of each query's documents, higher ones for better documents."""
    ...


class CrossEncoderTeacher:
  """A cross-encoder reads each pair."""

  def __init__(self, name: str, ranker: Ranker, documents: Sequence[Document]):
    """Joins a ranker with the texts of the corpus."""
    self.name, self.sha256 = name, ranker.sha256
    self._ranker, self._documents = ranker, documents

  def scores(self, queries, rows):
    """Scores of each query's documents; shows how far it is."""
    texts = [
      query.text
      for query, chosen in zip(queries, rows, strict=True)
      for _ in chosen
    ]
    documents = [self._documents[row] for chosen in rows for row in chosen]
    ends = np.cumsum([len(chosen) for chosen in rows])
    # Those of one file of rankings take a CPU minutes.
    with Pace(len(texts), 'pair') as pace:
      scores = self._ranker.scores(texts, documents, pace.show)
    return np.split(scores, ends[:-1])


class LexicalTeacher:
  """BM25, as a teacher and as what finds candidates."""

  name, sha256 = 'bm25', ''

  def __init__(self, documents: Sequence[Document]):
    """Indexes the corpus."""
    # Other teachers do without its packages.
    from gr_jax.evaluation.lexical import Lexical

    self._lexical = Lexical(documents)

  def scores(self, queries, rows):
    """Scores of each query's documents, 0 where no word is shared."""
    return self._lexical.scores([query.text for query in queries], rows)

  def find(self, queries: Sequence[Query], depth: int) -> np.ndarray:
    """[B, depth] rows of the best documents, NO_DOC past the last."""
    return self._lexical.search([q.text for q in queries], depth).rows_BC


class RandomTeacher:
  """Knows nothing: an order for each query, drawn by a seed.

  What distillation gains from a teacher is what it gains above this one.
  """

  sha256 = ''

  def __init__(self, seed: int):
    """Draws with a seed."""
    self.name = f'random:{seed}'
    self._seed = seed

  def scores(self, queries, rows):
    """Scores that depend on seed, query and number of documents alone."""
    return [
      self._generator(query).random(len(chosen), np.float32)
      for query, chosen in zip(queries, rows, strict=True)
    ]

  def _generator(self, query: Query) -> np.random.Generator:
    digest = hashlib.sha256(query.id.encode()).digest()
    return np.random.default_rng([self._seed, *digest[:16]])


class FusedTeacher:
  """Several teachers: the sum of reciprocal ranks.

  score(d) = sum over teachers of 1 / (60 + rank of d), ranks from 1 among the
  candidates (Cormack, Clarke and Buettcher 2009, SIGIR). Documents to which a
  teacher gives one score share the best of their ranks, so that their order
  in the corpus says nothing.
  """

  def __init__(self, teachers: Sequence[Teacher]):
    """Joins teachers."""
    self.name = ' + '.join(teacher.name for teacher in teachers)
    self.sha256 = ' '.join(teacher.sha256 or '-' for teacher in teachers)
    self._teachers = teachers

  def scores(self, queries, rows):
    """Scores of each query's documents."""
    of_teachers = [teacher.scores(queries, rows) for teacher in self._teachers]
    return [
      np.sum([_reciprocal_ranks(scores) for scores in of_query], axis=0).astype(
        np.float32
      )
      for of_query in zip(*of_teachers, strict=True)
    ]


def _reciprocal_ranks(scores_C: np.ndarray) -> np.ndarray:
  """[C] float64 1 / (60 + rank)."""
  descending_C = np.sort(-scores_C)
  ranks_C = np.searchsorted(descending_C, -scores_C) + 1
  return 1 / (_FUSION_CONSTANT + ranks_C)


def ranked(
  scores_C: np.ndarray, rows_C: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Documents by falling score, equal ones in the order of the corpus.

  Args:
    scores_C: of the documents.
    rows_C: of the documents.

  Returns:
    The rows in order, and their scores.
  """
  order_C = np.lexsort((rows_C, -scores_C))
  return rows_C[order_C], scores_C[order_C]


def candidate_rows(
  positives: np.ndarray, found: Sequence[np.ndarray]
) -> np.ndarray:
  """What is to be ranked: the positives and what was found, in corpus order.

  Args:
    positives: rows of the relevant documents.
    found: rows that sources found, NO_DOC for none.
  """
  rows = np.unique(np.concatenate([positives, *found]))
  return rows[rows != NO_DOC].astype(np.int64)
