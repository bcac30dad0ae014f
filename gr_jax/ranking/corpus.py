"""The documents and queries that a teacher is asked about."""

import dataclasses
import pathlib
import tempfile
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from gr_jax.data.collection import Collection
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.data.text_examples import TextExamples, make_plan
from gr_jax.types import Document, Query


@dataclasses.dataclass(frozen=True)
class Asked:
  """Queries of a collection, in memory.

  Attributes:
    documents: the corpus, in its order.
    queries: those that are asked.
    positives: rows of the documents that are relevant to each query.
    made: whether queries are made by a run, so that an id alone does not say
      which text it is of.
  """

  documents: Sequence[Document]
  queries: Sequence[Query]
  positives: Sequence[np.ndarray]
  made: bool = False


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


def read_prepared(
  collection: Collection, preparation: PreparationSettings
) -> Asked:
  """Reads the queries of sources as training sees them, with the corpus.

  Args:
    collection: the folder.
    preparation: of a run, which reads that folder; `sources` are those that
      are asked.
  """
  relevant, texts = defaultdict(set), {}
  with tempfile.TemporaryDirectory() as directory:
    plan = make_plan(preparation, pathlib.Path(directory) / 'document_ids')
    reader = TextExamples(plan, collection)
    for source in preparation.sources:
      for shard in range(plan.shards(source)):
        for example in reader.examples(source, shard):
          texts[example.query_id] = example.query
          relevant[example.query_id].add(example.document_index)
  return Asked(
    list(collection.documents()),
    [Query(name, text) for name, text in texts.items()],
    [np.array(sorted(relevant[name]), np.int64) for name in texts],
    made=True,
  )


def draw_queries(asked: Asked, count: int, seed: int) -> Asked:
  """Asks some of the queries alone: a cross-encoder is slow.

  Args:
    asked: of a split or a run.
    count: how many are drawn, all alike, without replacement; all where there
      are no more.
    seed: of the draw.

  Returns:
    The same of those queries, in their order.
  """
  if count >= len(asked.queries):
    return asked
  rng = np.random.default_rng([seed, *b'queries'])
  places = sorted(rng.choice(len(asked.queries), count, replace=False))
  return dataclasses.replace(
    asked,
    queries=[asked.queries[place] for place in places],
    positives=[asked.positives[place] for place in places],
  )
