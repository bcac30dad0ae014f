"""A query that may be kept, and what gives and what keeps such queries."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from gr_jax.types import Document


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A query for a document.

  Attributes:
    text: of the query.
    source: the name of what gave it.
    log_probability: that its generator gave to the whole text, in nats; None
      where none is known.
  """

  text: str
  source: str
  log_probability: float | None = None


class Source(Protocol):
  """Gives queries for documents.

  Attributes:
    name: that candidates carry.
    provenance: what its queries depend on, besides documents and settings;
      JSON data.
  """

  name: str
  provenance: object

  def queries(
    self, documents: Sequence[Document], first: int
  ) -> list[list[Candidate]]:
    """Queries of some documents.

    What a document gets depends on nothing but the document itself.

    Args:
      documents: that follow each other in the corpus.
      first: the row of the first of them.

    Returns:
      The candidates of each document.
    """
    ...


class Filter(Protocol):
  """Keeps some of the queries of documents, in their order.

  Attributes:
    name: under which its yield is counted.
    provenance: what it depends on, besides settings and collection.
  """

  name: str
  provenance: object

  def keep(
    self,
    documents: Sequence[Document],
    candidates: Sequence[list[Candidate]],
    first: int,
  ) -> list[list[Candidate]]:
    """The candidates that are kept.

    Args:
      documents: that follow each other in the corpus.
      candidates: of each of them.
      first: the row of the first of them.

    Returns:
      What is left of each list.
    """
    ...


def flat(candidates: Sequence[list[Candidate]]) -> list[tuple[int, Candidate]]:
  """All candidates with the place of their document, in order."""
  return [
    (place, candidate)
    for place, of_document in enumerate(candidates)
    for candidate in of_document
  ]


def chosen(
  candidates: Sequence[list[Candidate]], keep: Sequence[bool]
) -> list[list[Candidate]]:
  """The candidates that are to be kept, by document.

  Args:
    candidates: of each document.
    keep: whether to keep each, in the order of `flat`.
  """
  answers = iter(keep)
  return [
    [candidate for candidate in of_document if next(answers)]
    for of_document in candidates
  ]
