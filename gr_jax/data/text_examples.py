"""Query and document texts by kind and shard: what the seqio Tasks read."""

import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Iterator

from gr_jax.data.collection import Collection
from gr_jax.data.documents import BadRecord, Position
from gr_jax.data.extractive import extractive_queries, random_spans
from gr_jax.data.preparation_settings import (
  TRAIN_SPLIT,
  PreparationSettings,
  inputs_hash,
)
from gr_jax.data.pseudo_queries import read_pseudo_queries
from gr_jax.types import Document, Query, document_text

# The kind that holds each document once, without a query.
CORPUS = 'corpus'


@dataclasses.dataclass(frozen=True)
class TextExample:
  """A query that leads to a document; the corpus kind has no query."""

  query_id: str
  query: str
  document_id: str
  document_index: int
  document: str = ''


@dataclasses.dataclass(frozen=True)
class Plan:
  """How the work divides into shards; small enough to send to workers.

  `gr_jax.data.plan_files` keeps one in a folder.

  Attributes:
    settings: what is asked.
    positions: where the documents of each shard start.
    document_ids_path: file with an id a line in corpus order.
    counts: examples of the kinds that do not follow the corpus.
    bad_records: what the validating pass left out.
    cut_ids: ids of the texts that it cut.
    inputs_sha256: of all that the examples depend on.
  """

  settings: PreparationSettings
  positions: tuple[Position, ...]
  document_ids_path: pathlib.Path
  counts: tuple[tuple[str, int], ...]
  bad_records: tuple[BadRecord, ...]
  cut_ids: tuple[str, ...]
  inputs_sha256: str

  def collection(self) -> Collection:
    """The collection without the bad records, which were listed already."""
    return Collection(
      self.settings.data_dir, self.settings.max_bad_records, self.bad_records
    )

  def document_texts(self) -> Iterator[str]:
    """What encoders read of each document, in corpus order."""
    return map(document_text, self.collection().documents())

  def shards(self, kind: str) -> int:
    """How many shards a kind has; an empty one has one."""
    count = dict(self.counts).get(kind)
    if count is None:
      return len(self.positions)
    return max(1, math.ceil(count / self.settings.documents_per_shard))


class TextExamples:
  """Reads the examples of one shard at a time."""

  def __init__(self, plan: Plan, collection: Collection | None = None):
    """Reads by a plan, from its collection unless another is given."""
    self.plan = plan
    self._collection = collection or plan.collection()
    # By kind: the place from which a reader goes on that was left there.
    self._readers: dict[str, tuple[int, Iterator[TextExample]]] = {}

  def examples(self, kind: str, shard: int) -> Iterator[TextExample]:
    """The examples of a shard, in the order of their documents or file."""
    if kind in ('labelled', 'pseudo'):
      return self._slice(kind, shard)
    return self._from_documents(kind, shard)

  def count(self, kind: str) -> int:
    """Examples of 'labelled' or 'pseudo', which follow their own files."""
    return sum(1 for _ in self._of_file(kind))

  def _of_file(self, kind: str) -> Iterator[TextExample]:
    return self._labelled() if kind == 'labelled' else self._pseudo()

  def _slice(self, kind: str, shard: int) -> Iterator[TextExample]:
    """A shard of a file, which is read on where the shard before it ended."""
    size = self.plan.settings.documents_per_shard
    start = shard * size
    place, examples = self._readers.pop(kind, (None, None))
    if place != start:
      examples = itertools.islice(self._of_file(kind), start, None)
    yield from itertools.islice(examples, size)
    self._readers[kind] = start + size, examples

  @functools.cached_property
  def _document_index(self) -> dict[str, int]:
    text = self.plan.document_ids_path.read_text('utf-8')
    return {name: index for index, name in enumerate(text.splitlines())}

  @functools.cached_property
  def _queries(self) -> dict[str, str]:
    field = self.plan.settings.control_field
    return {
      query.id: controlled(query, field) if field else query.text
      for query in self._collection.queries()
    }

  def _labelled(self) -> Iterator[TextExample]:
    split = self.plan.settings.train_split
    # A corpus alone is trained on from its own text; a split that somebody
    # named should be there.
    if split == TRAIN_SPLIT and split not in self._collection.splits():
      return
    for judgement in self._collection.judgements(split):
      if judgement.relevance > 0:
        yield TextExample(
          judgement.query_id,
          self._queries[judgement.query_id],
          judgement.document_id,
          self._document_index[judgement.document_id],
        )

  def _pseudo(self) -> Iterator[TextExample]:
    pairs = read_pseudo_queries(
      self.plan.settings.pseudo_queries,
      self._document_index,
      self._collection.refuse,
    )
    for number, (document_id, query) in enumerate(pairs):
      index = self._document_index[document_id]
      name = f'{document_id}:pseudo:{number}'
      yield TextExample(name, query, document_id, index)

  def _from_documents(self, kind: str, shard: int) -> Iterator[TextExample]:
    settings = self.plan.settings
    size = settings.documents_per_shard
    documents = self._collection.documents(self.plan.positions[shard], size)
    for index, document in enumerate(documents, start=shard * size):
      if kind == CORPUS:
        text = document_text(document)
        yield TextExample('', '', document.id, index, text)
        continue
      for number, query in enumerate(_queries_of(document, kind, settings)):
        name = f'{document.id}:{kind}:{number}'
        yield TextExample(name, query, document.id, index)


def control_prefix(value: object) -> str:
  """What a query begins with whose control field has a value."""
  return f'{value}:'


def controlled(query: Query, field: str) -> str:
  """A query's text after the value of a field, where it has the field."""
  value = query.metadata.get(field)
  if value is None:
    return query.text
  return f'{control_prefix(value)} {query.text}'


def _queries_of(
  document: Document, kind: str, settings: PreparationSettings
) -> list[str]:
  if kind == 'document':
    return [document_text(document)]
  if kind == 'spans':
    return random_spans(
      document,
      settings.spans_per_document,
      settings.span_words_min,
      settings.span_words_max,
      settings.seed,
    )
  assert kind == 'extractive', kind
  return extractive_queries(
    document, settings.extractive_per_document, settings.seed
  )


def make_plan(
  settings: PreparationSettings, document_ids_path: pathlib.Path
) -> Plan:
  """Validates every input once, writes the ids and divides the work.

  Args:
    settings: with `data_dir` an existing folder.
    document_ids_path: where the ids are written, one a line.

  Returns:
    The plan.

  Raises:
    UserError: for a bad record past those that are allowed.
  """
  # Taken before the work: a file that changes meanwhile makes it stale.
  inputs = inputs_hash(settings)
  collection = Collection(settings.data_dir, settings.max_bad_records)
  positions = collection.positions(settings.documents_per_shard)
  ids = ''.join(f'{name}\n' for name in collection.document_index())
  document_ids_path.write_text(ids, 'utf-8')
  plan = Plan(settings, tuple(positions), document_ids_path, (), (), (), inputs)
  reader = TextExamples(plan, collection)
  counts = tuple(
    (kind, reader.count(kind))
    for kind in ('labelled', 'pseudo')
    if kind in settings.sources
  )
  # Splits that are only evaluated are validated too: their faults are cheaper
  # to hear of now than after training.
  for split in collection.splits():
    collection.judgements(split)
  return dataclasses.replace(
    plan,
    counts=counts,
    bad_records=tuple(collection.bad_records),
    cut_ids=tuple(collection.cut_ids),
  )
