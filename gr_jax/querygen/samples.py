"""Random documents with their queries, for a person to look at."""

import pathlib
import random
from collections.abc import Iterator

from gr_jax.data.collection import Collection
from gr_jax.data.pseudo_queries import read_pseudo_queries
from gr_jax.types import document_text

_SHOWN = 300


def sample_lines(
  collection: Collection, queries: pathlib.Path, count: int, seed: int
) -> Iterator[str]:
  """Yields the lines that show random documents and all their queries.

  Args:
    collection: that the documents are of.
    queries: file or folder of pseudo-queries.
    count: documents at most.
    seed: of the draw.
  """
  of_document: dict[str, list[str]] = {}
  pairs = read_pseudo_queries(
    queries, collection.document_index(), collection.refuse
  )
  for document_id, query in pairs:
    of_document.setdefault(document_id, []).append(query)
  shown = min(count, len(of_document))
  names = {*random.Random(seed).sample(sorted(of_document), shown)}
  for document in collection.documents():
    if document.id in names:
      yield f'\n{document.id}: {document_text(document)[:_SHOWN]}'
      yield from (f'  - {query}' for query in of_document[document.id])
