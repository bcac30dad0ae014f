"""Opens what the generation of queries works with, as its settings ask."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from gr_jax.data.collection import Collection
from gr_jax.querygen.candidates import Filter, Source
from gr_jax.querygen.diversity import Diversity
from gr_jax.querygen.duplicates import Duplicates
from gr_jax.querygen.instruction import Instructed
from gr_jax.querygen.leaks import Leaks, held_out_queries
from gr_jax.querygen.query_settings import (
  BM25,
  ExtractiveSource,
  FileSource,
  GeneratorSource,
  InstructionSource,
  QueryGenerationSettings,
  RoundTripSettings,
)
from gr_jax.querygen.relevance import Relevance
from gr_jax.querygen.round_trip import RoundTrip
from gr_jax.querygen.sanity import Sanity
from gr_jax.querygen.sources import Extracts, Generated, open_file
from gr_jax.querygen.words import Frequencies
from gr_jax.training.mesh import make_mesh
from gr_jax.types import Query, UserError, document_text

# Documents that go through sources and filters together, at least; and batches
# of a generator, which cuts them by their lengths.
_TOGETHER, _BATCHES = 256, 16


class Corpus:
  """A collection, and what is counted of it when somebody asks.

  Attributes:
    collection: the collection.
  """

  def __init__(self, settings: QueryGenerationSettings):
    """Opens the collection of the settings."""
    self.collection = Collection(settings.data_dir, settings.max_bad_records)

  @functools.cached_property
  def frequencies(self) -> Frequencies:
    """Of the words of the documents."""
    return Frequencies(map(document_text, self.collection.documents()))


@dataclasses.dataclass(frozen=True)
class Opened:
  """Sources and filters, in order.

  Attributes:
    corpus: the documents.
    sources: of queries.
    filters: of the queries of single documents.
    leaks: the leak check among the filters, None where none was asked for.
    together: documents that go through sources and filters at once.
    begin: called once before the first queries, by all processes together:
      what takes long and is not needed where all queries are there.
  """

  corpus: Corpus
  sources: Sequence[Source]
  filters: Sequence[Filter]
  leaks: Leaks | None
  together: int
  begin: Callable[[], None]

  def provenance(self) -> dict[str, object]:
    """What the queries depend on, besides settings and collection."""
    parts = [*self.sources, *self.filters]
    return {
      f'{number}:{part.name}': part.provenance
      for number, part in enumerate(parts)
      if part.provenance is not None
    }


def open_all(settings: QueryGenerationSettings, work: pathlib.Path) -> Opened:
  """Opens sources and filters.

  Args:
    settings: of the generation.
    work: folder of vectors, which may be kept to go on with.

  Raises:
    UserError: for whatever is missing; or there is no source.
  """
  corpus = Corpus(settings)
  sources = [
    source
    for asked in settings.sources
    if (source := _source(asked, settings, corpus)) is not None
  ]
  if not sources:
    raise UserError(
      'no source of queries: name a GENERATOR, the path of a FileSource, the '
      'folder of an InstructionSource, or add an ExtractiveSource to '
      'QueryGenerationSettings.sources'
    )
  filters: list[Filter] = [Sanity(settings.sanity)]
  if settings.duplicates.threshold <= 1:
    filters.append(Duplicates(settings.duplicates.threshold))
  leaks = None
  if settings.leaks.splits:
    held_out = held_out_queries(corpus.collection, settings.leaks.splits)
    leaks = Leaks(held_out, settings.leaks)
    filters.append(leaks)
  begin = _nothing
  if settings.round_trip.top:
    trip, begin = _round_trip(settings.round_trip, corpus, work)
    filters.append(trip)
  if settings.relevance.ranker:
    filters.append(_relevance(settings))
  if settings.diversity.queries:
    filters.append(Diversity(settings.diversity, corpus.frequencies))
  batches = [s.batch_size for s in sources if isinstance(s, Generated)]
  together = max([_TOGETHER, *(_BATCHES * size for size in batches)])
  return Opened(corpus, sources, filters, leaks, together, begin)


def _nothing() -> None:
  pass


def _source(
  asked, settings: QueryGenerationSettings, corpus: Corpus
) -> Source | None:
  """A source, None for one that names nothing to read."""
  if isinstance(asked, GeneratorSource):
    if not asked.run:
      return None
    from gr_jax.querygen.generator import load_generator

    # Each of several processes has shards of its own.
    mesh = make_mesh(settings.mesh, jax.local_devices())
    generator = load_generator(asked.run, mesh, asked.query_language)
    return Generated(generator, asked, settings.seed)
  if isinstance(asked, ExtractiveSource):
    frequencies = corpus.frequencies if asked.phrases else None
    return Extracts(asked, settings.seed, frequencies)
  if isinstance(asked, FileSource):
    return open_file(asked, corpus.collection) if asked.path else None
  assert isinstance(asked, InstructionSource), asked
  return Instructed(asked, settings.seed) if asked.folder else None


def _round_trip(
  settings: RoundTripSettings, corpus: Corpus, work: pathlib.Path
) -> tuple[RoundTrip, Callable[[], None]]:
  """The filter, and what has to be called before it is used."""
  if settings.by == BM25:
    from gr_jax.evaluation.lexical import Lexical

    lexical = Lexical(corpus.collection.documents())

    def find(texts: Sequence[str], k: int) -> np.ndarray:
      return lexical.search(texts, k).rows_BC

    return RoundTrip(find, settings.top, None), _nothing
  from gr_jax.ranking.dense import DenseSearch, open_encoder

  encoder = open_encoder(settings.encoder)
  documents = list(corpus.collection.documents())
  search = DenseSearch(f'dense:{settings.encoder}', encoder, documents)
  inputs = f'{encoder.sha256} {corpus.collection.corpus_sha256()}'

  def find_near(texts: Sequence[str], k: int) -> np.ndarray:
    return search.find([Query('', text) for text in texts], k)

  trip = RoundTrip(find_near, settings.top, encoder.sha256)
  return trip, functools.partial(search.encode, work, inputs)


def _relevance(settings: QueryGenerationSettings) -> Relevance:
  from gr_jax.ranking.opening import load_ranker

  return Relevance(load_ranker(settings.relevance.ranker), settings.relevance)
