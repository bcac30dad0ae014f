"""Searches an index with texts: documents with scores and code paths."""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.decoding.top_k import FLOOR
from gr_jax.decoding.trie import capacity
from gr_jax.decoding.visibility import Visible, visible
from gr_jax.index.index import Index
from gr_jax.retrieval import fusion as fusions
from gr_jax.retrieval.program import encode_program, search_program
from gr_jax.types import NO_DOC, UserError, near_miss


@dataclasses.dataclass(frozen=True)
class SearchSettings:
  """How an index is searched.

  Attributes:
    beams: W, identifiers kept while decoding. More of them than documents are
      scored are of use: prefixes are kept or lost before their last codes have
      spoken, which then choose the documents.
    fraction: documents scored for a query, as a share of the corpus.
    documents_scored: the same as a number, instead of the share.
    fusion: how the parts of the final score are joined: 'log_linear'
      (dense_weight * dense + generative_weight * generative) or 'reciprocal'
      (dense_weight * dense + reciprocal_weight / (reciprocal_decay * place of
      the identifier + 1)).
    generative_weight: of the identifier's score, for 'log_linear'.
    dense_weight: of the dot product of query and document vectors.
    reciprocal_weight: of the identifier's place, for 'reciprocal'.
    reciprocal_decay: how fast a place loses its worth, for 'reciprocal'.
    fit_on: split on which indexing chooses fusion and weights, instead of
      those above; '' to keep them. Collections without 'dev' keep them too.
    fit_measures: whose mean they are chosen for, of fusion.FIT_MEASURES.
    batch_sizes: queries of a compiled program; smaller batches are padded to
      the next of them, larger ones are cut. Two CPU cores answer 1.4 times as
      many queries a second in eights as in thirty-twos; an accelerator wants
      more at once, as (1, 256).
    vector_type: 'float16' or 'float32', what the index keeps vectors in.
  """

  beams: int = 100
  fraction: float = 0.05
  documents_scored: int | None = None
  fusion: str = 'log_linear'
  generative_weight: float = 0.005
  dense_weight: float = 1.0
  reciprocal_weight: float = 0.6
  reciprocal_decay: float = 0.03
  fit_on: str = 'dev'
  fit_measures: tuple[str, ...] = ('MRR@10', 'R@10')
  batch_sizes: tuple[int, ...] = (1, 8)
  vector_type: str = 'float16'

  def __post_init__(self):
    _require(self.beams >= 1, 'beams', '1 or more', self.beams)
    _require(0 < self.fraction <= 1, 'fraction', 'in (0, 1]', self.fraction)
    budget = self.documents_scored
    _require(
      budget is None or budget >= 1, 'documents_scored', '1 or more', budget
    )
    for name in ('generative_weight', 'dense_weight', 'reciprocal_weight'):
      weight = getattr(self, name)
      _require(math.isfinite(weight), name, 'finite', weight)
    decay = self.reciprocal_decay
    _require(
      0 <= decay < math.inf, 'reciprocal_decay', 'finite, 0 or more', decay
    )
    _require(
      self.fusion in fusions.KINDS,
      'fusion',
      ' or '.join(map(repr, fusions.KINDS)),
      f'{self.fusion!r}{near_miss(self.fusion, fusions.KINDS)}',
    )
    _require(
      self.fit_on != 'test', 'fit_on', "no test split, as 'dev'", "'test'"
    )
    known = fusions.FIT_MEASURES
    _require(
      bool(self.fit_measures) and set(self.fit_measures) <= set(known),
      'fit_measures',
      f'of {known}',
      self.fit_measures,
    )
    sizes = self.batch_sizes
    _require(
      bool(sizes) and min(sizes) >= 1 and list(sizes) == sorted(sizes),
      'batch_sizes',
      'rising numbers',
      sizes,
    )
    _require(
      self.vector_type in ('float16', 'float32'),
      'vector_type',
      "'float16' or 'float32'",
      repr(self.vector_type),
    )

  @property
  def weights(self) -> fusions.Weights:
    """The weights of both ways to join the parts."""
    return fusions.Weights(
      dense=self.dense_weight,
      generative=self.generative_weight,
      reciprocal=self.reciprocal_weight,
      decay=self.reciprocal_decay,
    )

  def budget(self, documents: int) -> int:
    """Documents scored for a query in a corpus of `documents`."""
    wanted = self.documents_scored
    if wanted is None:
      wanted = max(int(self.fraction * documents), 1)
    return min(wanted, documents)


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


@dataclasses.dataclass(frozen=True)
class Selection:
  """Documents that are searched alone, from `Searcher.select`.

  Attributes:
    documents: how many.
    visible: the same for the program, of one query.
  """

  documents: int
  visible: Visible


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
    index: Index,
    model: Any,
    params: Mapping[str, Any],
    vocabulary: Tokenizer,
    query_length: int,
    settings: SearchSettings,
  ):
    """Brings the index and the parameters to the device.

    Args:
      index: what is searched.
      model: the Retriever that the identifiers were made for.
      params: of the model.
      vocabulary: turns texts into tokens.
      query_length: tokens of a query; longer queries are cut.
      settings: beams, budget, weights.
    """
    self.index = index
    self.settings = settings
    self._model = model
    self._params = jax.device_put(dict(params))
    self._vocabulary = vocabulary
    self._query_length = query_length
    self._tables = index.trie.tables()
    # Padded like the trie, so that a small change does not recompile.
    rows = np.zeros(
      (capacity(len(index)), index.vectors_ND.shape[1]), index.vectors_ND.dtype
    )
    rows[: len(index)] = index.vectors_ND
    self._vectors_ND = jnp.asarray(rows)
    self._budget = settings.budget(len(index))
    self._room = min(capacity(self._budget), len(rows))
    self._width = min(settings.beams, len(rows))

  @property
  def document_ids(self) -> Sequence[str]:
    """The id of each document number."""
    return self.index.document_ids

  def select(self, documents: Collection[str]) -> Selection:
    """Documents to search among, as often as wanted.

    Beams keep to them: what is found is what an index of these documents alone
    would find, with as many beams and as many documents scored.

    Args:
      documents: their ids.
    """
    asked = set(documents)
    chosen_N = np.fromiter(
      (name in asked for name in self.document_ids), bool, len(self.index)
    )
    if chosen_N.sum() < len(asked):
      missing = sorted(asked.difference(self.document_ids))
      raise UserError(
        f'{len(missing)} of {len(asked)} documents to search among are not in '
        f'the index, as {missing[0]!r}'
      )
    bits = visible(self.index.trie, self._tables, chosen_N[None], np.zeros(1))
    return Selection(len(asked), bits)

  def search(
    self, texts: Sequence[str], k: int, among: Selection | None = None
  ) -> list[list[Hit]]:
    """The k best documents of each text, or fewer."""
    found = self.search_batch(texts, k, among)
    return [self._hits(found, row) for row in range(len(texts))]

  def search_batch(
    self, texts: Sequence[str], k: int, among: Selection | None = None
  ) -> SearchBatch:
    """The k best documents of each text, as arrays.

    Args:
      texts: the queries.
      k: places of a ranking; those past the budget stay empty.
      among: documents that are searched; all when None.
    """
    _require(k >= 1, 'k', '1 or more', k)
    parts = [self._run(*batch, k, among) for batch in self._batches(texts)]
    return SearchBatch(
      *(
        np.concatenate([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(SearchBatch)
      )
    )

  def encode(self, texts: Sequence[str]) -> np.ndarray:
    """[B, D] unit vectors of texts as queries, for exact dense search."""
    parts = [
      np.asarray(encode_program(self._model, self._params, tokens_BS))[:count]
      for tokens_BS, count in self._batches(texts)
    ]
    return np.concatenate(parts)

  def _batches(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, int]]:
    """Token ids [B, S] of a program's batch, and how many are of the texts.

    No text makes one batch of padding: the answer keeps its shape.
    """
    sizes = self.settings.batch_sizes
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
    tokens_BS: np.ndarray,
    count: int,
    k: int,
    among: Selection | None,
  ) -> SearchBatch:
    """Searches one program's batch, of which `count` rows are asked for."""
    bits = among and dataclasses.replace(
      among.visible, chosen_B=jnp.zeros(len(tokens_BS), jnp.int32)
    )
    length = len(self.index.trie.code_sizes)
    ranked, scored_B = search_program(
      self._model,
      self._params,
      self._tables,
      (self._vectors_ND,),
      jnp.asarray(tokens_BS),
      jnp.int32(self._budget),
      jax.tree.map(jnp.float32, self.settings.weights),
      bits,
      fusion=self.settings.fusion,
      length=length,
      width=self._width,
      candidates=self._room,
      # In steps as well: 5 documents or 10 are one program.
      k=min(capacity(k), self._room),
    )
    # All codes of the widest level are scored at every position, the first
    # for the root alone.
    prefixes = 1 + self._width * (length - 1)
    code_scores = prefixes * max(self.index.trie.code_sizes)
    places = ((0, 0), (0, max(k - self._room, 0)))

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

  def _hits(self, found: SearchBatch, row: int) -> list[Hit]:
    """One query's documents with what a reader wants to know."""
    index = self.index
    hits = []
    for place, document in enumerate(found.documents_BC[row].tolist()):
      if document == NO_DOC:
        break
      hits.append(
        Hit(
          document=document,
          document_id=index.document_ids[document],
          title=index.titles[document],
          snippet=index.snippets[document],
          score=float(found.scores_BC[row, place]),
          generative_score=float(found.generative_BC[row, place]),
          dense_score=float(found.dense_BC[row, place]),
          codes=tuple(index.codes_NL[document].tolist()),
        )
      )
    return hits


def _require(holds: bool, name: str, expected: str, got: object) -> None:
  """Refuses a value of the user's."""
  if not holds:
    raise UserError(f'{name} should be {expected}, got {got}')
