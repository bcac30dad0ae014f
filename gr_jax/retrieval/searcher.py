"""Searches an index with texts: documents with scores and code paths."""

import dataclasses
import functools
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.decoding.top_k import FLOOR
from gr_jax.decoding.trie import capacity
from gr_jax.index.filters import Condition
from gr_jax.index.index import Index
from gr_jax.index.snapshot import Snapshot
from gr_jax.retrieval import sharded
from gr_jax.retrieval.found import Hit, SearchBatch
from gr_jax.retrieval.placed import Both, ByField, ById, Placed, Selection
from gr_jax.retrieval.placed_shards import PlacedShards
from gr_jax.retrieval.program import encode_program, search_program
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.types import NO_DOC, UserError

# Documents that are searched alone: for all queries, or of each.
Among = Selection | None | Sequence[Selection | None]


class Tokenizer(Protocol):
  """What a searcher asks of a vocabulary."""

  pad_id: int

  def encode_batch(
    self, texts: Sequence[str], length: int
  ) -> Sequence[Sequence[int]]:
    """Token ids of each text, at most `length`."""
    ...


class Searcher:
  """An index, a model and a vocabulary, ready to answer."""

  def __init__(
    self,
    index: Index | Snapshot,
    model: Any,
    params: Mapping[str, Any],
    vocabulary: Tokenizer,
    query_length: int,
    settings: SearchSettings,
    spare: int = 0,
    mesh: jax.sharding.Mesh | None = None,
  ):
    """Brings the index and the parameters to the device.

    Args:
      index: what is searched.
      model: the Retriever that the identifiers were made for.
      params: of the model.
      vocabulary: turns texts into tokens.
      query_length: tokens of a query; longer queries are cut.
      settings: beams, budget, weights.
      spare: documents that may come with no program compiled anew. 0 is for an
        index that does not change: it is searched a little faster.
      mesh: devices with the axes 'data', along which the queries of a batch
        are split, and 'model', along which the documents are; one device when
        None. Batch sizes are raised to multiples of 'data'.
    """
    self.settings = settings
    self._model = model
    self._place, self._batch_sizes = Placed, settings.batch_sizes
    self._program = functools.partial(
      search_program, planning=settings.planning
    )
    self._queries = jnp.asarray
    copies = jax.device_put
    if mesh is not None:
      mesh = sharded.checked_mesh(mesh)
      if settings.planning:
        raise UserError('planning_weight should be 0 on several devices')
      self._place = functools.partial(PlacedShards, mesh)
      self._batch_sizes = sharded.divided_sizes(settings.batch_sizes, mesh)
      self._program = functools.partial(sharded.sharded_program, mesh=mesh)
      self._queries = functools.partial(sharded.split_queries, mesh)
      copies = functools.partial(sharded.copied, mesh)
    self._params = copies(dict(params))
    self._vocabulary = vocabulary
    self._query_length = query_length
    snapshot = Snapshot.of(index) if isinstance(index, Index) else index
    self._placed = self._place(snapshot, spare)
    self._updating = threading.Lock()
    # What was asked for, to be compiled before new shapes are searched.
    self._asked: set[tuple[int, int, int]] = set()

  def update(self, snapshot: Snapshot) -> None:
    """Searches the documents as they are now; searches under way go on.

    Args:
      snapshot: of the index, or of a later version of it.
    """
    with self._updating:
      if snapshot is self._placed.snapshot:
        return
      placed = self._place(snapshot, before=self._placed)
      if placed.shapes != self._placed.shapes:
        self._compile(placed)
      self._placed = placed

  def _compile(self, placed):
    """Runs what was asked for so far on tables of other shapes."""
    for batch, k, selections in sorted(self._asked):
      some = [ById(()) for _ in range(selections)]
      among = [some[row % selections] for row in range(batch)]
      tokens_BS = np.ones((batch, self._query_length), np.int32)
      self._run(placed, tokens_BS, batch, k, among)

  @property
  def snapshot(self) -> Snapshot:
    """The documents that are searched."""
    return self._placed.snapshot

  @property
  def documents(self) -> int:
    """Documents that a search may find."""
    return self.snapshot.count

  @property
  def document_ids(self) -> Sequence[str]:
    """The id of each document number."""
    snapshot = self.snapshot
    if not len(snapshot.added):
      return snapshot.base.document_ids
    return [*snapshot.base.document_ids, *snapshot.added.document_ids]

  def select(
    self,
    documents: Collection[str] | None = None,
    where: Mapping[str, Condition] | None = None,
  ) -> Selection:
    """Documents to search among, as often as wanted.

    Beams keep to them: what is found is what an index of these documents alone
    would find, with as many beams and as many documents scored. In an index
    that changes the selection goes with it.

    Args:
      documents: their ids; any when None.
      where: conditions on fields of their metadata, which all must hold: a
        value, several of which one must be, or `Between`.

    Raises:
      UserError: when a document or a field is not there.
    """
    chosen: list[Selection] = []
    if documents is not None:
      asked = list(dict.fromkeys(documents))
      missing = np.flatnonzero(self.snapshot.rows_of(asked) == NO_DOC)
      if len(missing):
        raise UserError(
          f'{len(missing)} of {len(asked)} documents to search among are not '
          f'in the index, as {asked[missing[0]]!r}'
        )
      chosen.append(ById(asked))
    if where is not None:
      chosen.append(ByField(dict(where)))
      # An impossible condition is refused now.
      chosen[-1].chosen_N(self.snapshot)
    if not chosen:
      raise ValueError('expected documents or conditions on them')
    return chosen[0] if len(chosen) == 1 else Both(chosen)

  def search(
    self, texts: Sequence[str], k: int, among: Among = None
  ) -> list[list[Hit]]:
    """The k best documents of each text, or fewer; arguments as below."""
    placed = self._placed
    found = self._search(placed, texts, k, among)
    return [_hits(placed.snapshot, found, row) for row in range(len(texts))]

  def search_batch(
    self, texts: Sequence[str], k: int, among: Among = None
  ) -> SearchBatch:
    """The k best documents of each text, as arrays.

    Args:
      texts: the queries.
      k: places of a ranking; those past the budget stay empty.
      among: documents that are searched, of all queries or of each; all when
        None.
    """
    return self._search(self._placed, texts, k, among)

  def _search(self, placed, texts, k, among):
    """The same of what is on the device."""
    if k < 1:
      raise UserError(f'k should be 1 or more, got {k}')
    if not isinstance(among, Sequence):
      among = [among] * len(texts)
    if len(among) != len(texts):
      raise ValueError(f'{len(among)} selections for {len(texts)} queries')
    parts, first = [], 0
    for tokens_BS, count in self._batches(texts):
      asked = among[first : first + count] or [None]
      # As its query, the last selection fills the batch.
      asked = [*asked, *asked[-1:] * (len(tokens_BS) - len(asked))]
      parts.append(self._run(placed, tokens_BS, count, k, asked))
      first += count
    return SearchBatch(
      *(
        np.concatenate([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(SearchBatch)
      )
    )

  def encode(self, texts: Sequence[str]) -> np.ndarray:
    """[B, D] unit vectors of texts as queries, for exact dense search."""
    parts = []
    for tokens_BS, count in self._batches(texts):
      vectors_BD = encode_program(
        self._model, self._params, self._queries(tokens_BS)
      )
      parts.append(np.asarray(vectors_BD)[:count])
    return np.concatenate(parts)

  def _batches(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, int]]:
    """Token ids [B, S] of a program's batch, and how many are of the texts.

    No text makes one batch of padding: the answer keeps its shape.
    """
    sizes = self._batch_sizes
    for start in range(0, max(len(texts), 1), sizes[-1]):
      chunk = list(texts[start : start + sizes[-1]])
      count = len(chunk)
      size = next(size for size in sizes if count <= size)
      # The rest repeats a real text: one of padding only has no meaning.
      chunk += (chunk[-1:] or ['a']) * (size - count)
      tokens_BS = np.full(
        (size, self._query_length), self._vocabulary.pad_id, np.int32
      )
      encoded = self._vocabulary.encode_batch(chunk, self._query_length)
      for row, ids in enumerate(encoded):
        tokens_BS[row, : len(ids)] = ids
      yield tokens_BS, count

  def _run(
    self,
    placed: Placed,
    tokens_BS: np.ndarray,
    count: int,
    k: int,
    among: Sequence[Selection | None],
  ) -> SearchBatch:
    """Searches one program's batch, of which `count` rows are asked for."""
    settings = self.settings
    self._asked.add((len(tokens_BS), k, len(set(among))))
    code_sizes = placed.snapshot.base.trie.code_sizes
    # Sizes of a program are those of the tables, not of what is in them now.
    most = placed.rows if placed.changing else placed.snapshot.count
    room = min(capacity(settings.budget(most)), placed.rows)
    width = min(settings.beams, placed.rows)
    ranked, scored_B = self._program(
      self._model,
      self._params,
      placed.tables,
      placed.vectors,
      self._queries(tokens_BS),
      jnp.int32(settings.budget(placed.snapshot.count)),
      jax.tree.map(jnp.float32, settings.weights),
      placed.visible(among),
      fusion=settings.fusion,
      renormalised=settings.renormalised,
      length=len(code_sizes),
      width=width,
      candidates=room,
      # In steps as well: 5 documents or 10 are one program.
      k=min(capacity(k), room),
    )
    # All codes of the widest level are scored at every position, the first
    # for the root alone.
    code_scores = (1 + width * (len(code_sizes) - 1)) * max(code_sizes)
    places = ((0, 0), (0, max(k - room, 0)))

    def host(rows, missing):
      rows = np.asarray(rows)[:count, :k]
      return np.pad(rows, places, constant_values=missing)

    floor = np.float32(FLOOR)
    return SearchBatch(
      documents_BC=host(ranked.documents_BC, NO_DOC),
      scores_BC=host(ranked.scores_BC, floor),
      generative_BC=host(ranked.generative_BC, floor),
      dense_BC=host(ranked.dense_BC, floor),
      ranks_BC=host(ranked.ranks_BC, NO_DOC),
      documents_scored_B=np.asarray(scored_B)[:count],
      code_scores_B=np.full(count, code_scores, np.int64),
    )


def _hits(snapshot: Snapshot, found: SearchBatch, row: int) -> list[Hit]:
  """One query's documents with what a reader wants to know."""
  hits = []
  for place, document in enumerate(found.documents_BC[row].tolist()):
    if document == NO_DOC:
      break
    document_id, title, snippet, codes = snapshot.shown(document)
    hits.append(
      Hit(
        document=document,
        document_id=document_id,
        title=title,
        snippet=snippet,
        score=float(found.scores_BC[row, place]),
        generative_score=float(found.generative_BC[row, place]),
        dense_score=float(found.dense_BC[row, place]),
        codes=codes,
      )
    )
  return hits
