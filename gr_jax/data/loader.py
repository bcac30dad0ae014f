"""Batches of prepared examples, in random order, resumable; no TensorFlow."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import grain
import numpy as np

from gr_jax.data.loader_checks import check_size, check_vectors, used_rates
from gr_jax.data.negatives import HardNegatives
from gr_jax.data.prepared import PreparedData


@dataclasses.dataclass(frozen=True)
class LoaderSettings:
  """How examples become batches.

  Attributes:
    batch_size: examples of one step, over all processes.
    rates: how often each source is drawn from, relative to each other;
      sources that are not named are not used.
    seed: of the order; every epoch of a source has its own.
    prefetch: batches made ahead of the step.
    hard_negatives: H, documents beside each query's own that the bottleneck
      has to tell from it, drawn from the 30 nearest ones of the encoder before
      training; 0 for none but the other documents of the batch.
  """

  batch_size: int = 256
  rates: Mapping[str, float] = dataclasses.field(
    default_factory=lambda: {
      'labelled': 1.0,
      'spans': 1.0,
      'extractive': 1.0,
    }
  )
  seed: int = 0
  prefetch: int = 4
  hard_negatives: int = 0


class Vectors(Protocol):
  """Encoder outputs that stand in for tokens when the encoder is frozen."""

  documents: np.ndarray  # [N, E]
  queries: Mapping[str, np.ndarray]  # source: [examples, E]


class _Gather:
  """Turns the positions of a batch into its arrays."""

  def __init__(self, prepared: PreparedData, vectors: Vectors | None):
    self._prepared = prepared
    self._names = sorted(prepared.sources)
    self._vectors = vectors
    if vectors is not None:
      check_vectors(prepared, vectors)

  def __call__(self, positions_B2: np.ndarray) -> dict[str, np.ndarray]:
    source_B, example_B = positions_B2.astype(np.int32).T
    document_B = np.empty_like(example_B)
    queries: list = [None] * len(source_B)
    for number in np.unique(source_B):
      name = self._names[number]
      rows = np.flatnonzero(source_B == number)
      examples = example_B[rows]
      documents = self._prepared.sources[name].document_indices
      document_B[rows] = documents[examples]
      for row, query in zip(rows, self._queries(name, examples), strict=True):
        queries[row] = query
    texts = self._tokens if self._vectors is None else self._stand_ins
    batch = texts(queries, document_B)
    batch |= {'document_index': document_B, 'source': source_B}
    return batch | {'example': example_B}

  def _queries(self, name: str, examples: np.ndarray) -> Sequence[np.ndarray]:
    if self._vectors is None:
      return self._prepared.sources[name].query_tokens(examples)
    return self._vectors.queries[name][examples]

  def _tokens(self, queries, document_B) -> dict[str, np.ndarray]:
    prepared = self._prepared
    documents = prepared.document_tokens(document_B)
    return {
      'query_tokens': pad(queries, prepared.query_length),
      'document_tokens': pad(documents, prepared.document_length),
    }

  def _stand_ins(self, queries, document_B) -> dict[str, np.ndarray]:
    documents_BE = np.asarray(self._vectors.documents[document_B])
    return {
      'query_vectors': np.stack(queries),
      'document_vectors': documents_BE,
    }


def batches(
  prepared: PreparedData,
  settings: LoaderSettings,
  rows: Sequence[int] | None = None,
  vectors: Vectors | None = None,
  candidates: Mapping[str, np.ndarray] | None = None,
  lists: Callable[..., dict] | None = None,
) -> grain.DatasetIterator:
  """An endless iterator of batches, or of the same rows of each.

  What a row is depends on its place alone, not on which others are read:
  several processes that read parts read together what one would.

  Args:
    prepared: the examples.
    settings: batch size, rates and seed.
    rows: places in the batch that are read, in order; all when None.
    vectors: stands in for tokens when given.
    candidates: what hard negatives are drawn from, see HardNegatives.
    lists: adds what a teacher has ranked, see ranked_lists.DrawnLists.

  Returns:
    A grain iterator with `get_state` and `set_state`, both O(1). It yields
    'query_tokens' and 'document_tokens' (int32, padded with 0) or
    'query_vectors' and 'document_vectors', and always 'document_index',
    'source' (position in the sorted names of `prepared.sources`) and
    'example', int32 [rows].

  Raises:
    UserError: when the settings do not fit the examples.
  """
  size = check_size(settings.batch_size)
  rows = np.arange(size) if rows is None else np.asarray(rows)
  rates = used_rates(prepared, settings.rates)
  names = sorted(prepared.sources)
  sources = []
  for name in rates:
    number = names.index(name)
    positions = _positions(number, len(prepared.sources[name]))
    # A source's order must not depend on which others are mixed in.
    positions = positions.seed(_source_seed(settings.seed, name))
    sources.append(positions.shuffle().repeat(None))
  mixed = grain.MapDataset.mix(sources, weights=list(rates.values()))
  dataset = (
    grain.MapDataset.range(sys.maxsize // size)
    .map(lambda batch: np.asarray([mixed[batch * size + row] for row in rows]))
    .map(_Gather(prepared, vectors))
  )
  if settings.hard_negatives or lists:
    dataset = _with_drawn(
      dataset, prepared, settings, rows, vectors, candidates, lists
    )
  options = grain.ReadOptions(
    num_threads=1, prefetch_buffer_size=settings.prefetch
  )
  return iter(dataset.to_iter_dataset(options))


def _with_drawn(
  dataset, prepared, settings, rows, vectors, candidates, lists
) -> grain.MapDataset:
  """The batches with documents that were found for each query beforehand."""
  if settings.hard_negatives:
    documents = None if vectors is None else vectors.documents
    negatives = HardNegatives(
      prepared, candidates, documents, settings.hard_negatives, rows
    )
    seed = _source_seed(settings.seed, 'negatives 0')
    dataset = dataset.random_map(negatives, seed=seed)
  if lists:
    seed = _source_seed(settings.seed, 'lists 0')
    dataset = dataset.random_map(lists, seed=seed)
  return dataset


def _positions(number: int, size: int) -> grain.MapDataset:
  """The examples of one source as pairs of its number and their position."""
  return grain.MapDataset.range(size).map(lambda position: (number, position))


def pad(tokens: Sequence[np.ndarray], length: int) -> np.ndarray:
  """Rows of tokens as int32 [rows, length], padded with 0."""
  padded = np.zeros((len(tokens), length), np.int32)
  for row, ids in enumerate(tokens):
    padded[row, : len(ids)] = ids
  return padded


def _source_seed(seed: int, name: str) -> int:
  return (
    int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0])
    & 0x7FFFFFFF
  )
