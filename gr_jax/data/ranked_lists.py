"""Lists of documents that a teacher has ranked, drawn for each row of a batch.

DGR (arXiv 2402.10769) trains on two lists a query: a positive, and negatives
out of what the student finds, its first one and random others, in the teacher's
order but for the positive, which is first. Here negatives are of a ranking,
whatever found its documents, and the one in every list is the teacher's first:
rankings do not say what the student found. What is labelled as another answer
of the query is no negative.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from gr_jax.types import NO_DOC, UserError, check_range


@dataclasses.dataclass(frozen=True)
class ListSettings:
  """Which rankings of a teacher are trained on, and how lists are drawn.

  Attributes:
    path: rankings: what `python -m gr_jax.rank_with_teacher` writes, or a TREC
      run; empty for none.
    lists: P, drawn for each query of a batch.
    size: M, documents of a list, its positive included.
    top: negatives that the teacher likes best which every list holds; the
      others are drawn at random.
    least: negatives that a ranking has at least; queries with fewer have no
      lists (DGR keeps those with more than 15).
    depth: documents of a ranking that are read.
    refresh_every: steps between rankings of what the run itself finds by then,
      half of `depth` by its identifiers and half by its dense vectors, in the
      order of the dense scores. With a path, of the queries that are ranked
      there, in the order there; all that is ranked there for a query of which
      it has less than `least` of what was found. 0 for none.
    refresh_queries: how many of these queries, drawn at random, are ranked each
      time, the others staying as they are; 0 for all.
    refresh_beams: identifiers kept while decoding, at least as many as are
      taken: 0 for those alone.
  """

  path: str = ''
  lists: int = 2
  size: int = 5
  top: int = 1
  least: int = 16
  depth: int = 100
  refresh_every: int = 0
  refresh_queries: int = 0
  refresh_beams: int = 0

  @property
  def given(self) -> bool:
    """Whether there are lists at all."""
    return bool(self.path or self.refresh_every)

  def __post_init__(self):
    least = dict.fromkeys(('lists', 'least', 'depth'), (1, math.inf))
    refresh = ('refresh_every', 'refresh_queries', 'refresh_beams')
    check_range(self, dict.fromkeys(refresh, (0, math.inf)))
    check_range(self, least | {'size': (2, math.inf), 'top': (0, self.size)})
    if self.least > self.depth or self.size > self.depth + 1:
      raise UserError(
        f'ListSettings.depth is {self.depth}, which must hold `least` '
        f'({self.least}) and `size` - 1 ({self.size - 1}) documents'
      )
    if self.refresh_every and self.least >= self.depth // 2:
      raise UserError(
        f'ListSettings.depth is {self.depth}: with refresh_every half of it '
        f'must be more than `least` ({self.least}), since identifiers and '
        'vectors may find the same documents'
      )
    if self.refresh_queries and not self.refresh_every:
      raise UserError(
        'ListSettings.refresh_queries is of refresh_every, which is 0: set both'
      )


@dataclasses.dataclass(frozen=True)
class Rankings:
  """The rankings of all examples of a source.

  Attributes:
    documents_XC: int32 documents in the teacher's order, those that answer the
      example's query left out, NO_DOC past the last.
    scores_XC: float32 scores of the teacher.
    own_X: float32 score of the example's own document; where the teacher did
      not see it, that of the best.
  """

  documents_XC: np.ndarray
  scores_XC: np.ndarray
  own_X: np.ndarray


def join_rankings(prepared, rankings, settings: ListSettings, names):
  """The rankings of the queries that examples have.

  Args:
    prepared: data.prepared.PreparedData.
    rankings: {query id: ranking} with 'document_ids', their 'scores', in any
      order, and 'query', the text that they are of, '' where it was not kept.
    settings: how many are kept.
    names: sources that are trained on.

  Returns:
    {source: Rankings} of the sources with a ranked query, and how many of all
    their examples have lists.

  Raises:
    UserError: a ranking is of another text than the query of its id, or none
      is long enough.
  """
  rows = {name: row for row, name in enumerate(prepared.document_ids)}
  found, counts = {}, {}
  for name in names:
    source = prepared.sources[name]
    joined = _join(prepared, source, rankings, rows, settings)
    listed = int(np.sum(joined.documents_XC[:, settings.least - 1] != NO_DOC))
    if listed:
      found[name], counts[name] = joined, (listed, len(source))
  if not found:
    raise UserError(
      f'{settings.path or "what the run finds"}: no training query has '
      f'{settings.least} ranked '
      'documents beside its own: rank the queries of the train split to a '
      'greater depth (ListSettings.depth of what a run finds), or lower '
      'ListSettings.least'
    )
  return found, counts


def _join(prepared, source, rankings, rows, settings) -> Rankings:
  count, width = len(source), settings.depth
  documents_XC = np.full((count, width), NO_DOC, np.int32)
  scores_XC = np.zeros((count, width), np.float32)
  own_X = np.zeros(count, np.float32)
  for query_id, examples in _ranked_examples(
    prepared, source, rankings, settings.path
  ).items():
    ranking = rankings[query_id]
    ranked, scores = _ordered(ranking.document_ids, ranking.scores, rows)
    answers = [document for _, document in examples]
    # Another answer is no worse than the positive of a list.
    others = np.flatnonzero(~np.isin(ranked, answers))[:width]
    for place, document in examples:
      own = ranked == document
      own_X[place] = (scores[own] if own.any() else scores[:1])[0]
      if len(others) >= settings.least:
        documents_XC[place, : len(others)] = ranked[others]
        scores_XC[place, : len(others)] = scores[others]
  return Rankings(documents_XC, scores_XC, own_X)


def _ranked_examples(
  prepared, source, rankings, path
) -> dict[str, list[tuple[int, int]]]:
  """{query id: (number, document) of its examples} of the ranked queries."""
  found = {}
  with_texts = any(ranking.query for ranking in rankings.values())
  vocabulary = prepared.vocabulary() if with_texts else None
  for start in range(0, len(source), 4096):
    numbers = range(start, min(start + 4096, len(source)))
    for number, example in zip(numbers, source.examples(numbers), strict=True):
      ranking = rankings.get(example.query_id)
      if ranking is None:
        continue
      if ranking.query:
        length = prepared.query_length
        _check_text(path, ranking, example, vocabulary, length)
      pair = number, example.document_index
      found.setdefault(example.query_id, []).append(pair)
  return found


def _check_text(path, ranking, example, vocabulary, length) -> None:
  """Refuses the ranking of another query that has the same id."""
  tokens = example.query_tokens.tolist()
  if vocabulary.encode(ranking.query, length) != tokens:
    raise UserError(
      f'{path} ranks for {ranking.query[:60]!r} as {example.query_id!r}, '
      f'which is {vocabulary.decode(tokens)[:60]!r} among the prepared '
      'queries: rank again, with gr_jax.rank_with_teacher --run_dir of a run '
      'with these'
    )


def _ordered(names, scores, rows) -> tuple[np.ndarray, np.ndarray]:
  """Numbers of documents that the corpus has, and scores, the best first."""
  pairs = [
    (rows[name], score)
    for name, score in zip(names, scores, strict=True)
    if name in rows
  ]
  if not pairs:
    return np.full(1, NO_DOC, np.int32), np.zeros(1, np.float32)
  documents, scores = map(np.asarray, zip(*pairs, strict=True))
  order = np.argsort(-scores, kind='stable')
  return documents[order].astype(np.int32), scores[order].astype(np.float32)


def lists_of(
  kept: Rankings | None,
  example: int,
  own: int,
  random_PC: np.ndarray,
  settings: ListSettings,
) -> tuple[np.ndarray, np.ndarray]:
  """The lists of an example.

  Args:
    kept: rankings of its source, None for none.
    example: its number in the source.
    own: its document.
    random_PC: for each of P lists and each place of a ranking, from [0, 1).
    settings: how lists are drawn.

  Returns:
    int32 [P, M] documents: the own one first, the others in the teacher's
    order, NO_DOC past the last and where there is no ranking; and float32
    [P, M] scores.
  """
  shape = settings.lists, settings.size
  index_PM = np.full(shape, NO_DOC, np.int32)
  scores_PM = np.zeros(shape, np.float32)
  others_C = np.zeros(0) if kept is None else kept.documents_XC[example]
  count = int(np.sum(others_C != NO_DOC))
  for number in range(settings.lists if count else 0):
    chosen = _drawn(random_PC[number], count, settings)
    end = 1 + len(chosen)
    index_PM[number, :end] = [own, *others_C[chosen]]
    scores_PM[number, :end] = [
      kept.own_X[example],
      *kept.scores_XC[example][chosen],
    ]
  return index_PM, scores_PM


def _drawn(random_C, count: int, settings: ListSettings) -> np.ndarray:
  """Rising places in a ranking of `count` others that a list holds."""
  top = min(settings.top, count)
  wanted = min(settings.size - 1, count)
  drawn = top + np.argsort(random_C[top:count])[: wanted - top]
  return np.concatenate([np.arange(top), np.sort(drawn)])


class DrawnLists:
  """Adds P lists of M documents to each row of a batch.

  Negatives in every list (ListSettings.top) are those that the teacher likes
  best; in DGR it is the one that the student finds first.
  """

  def __init__(
    self,
    rankings: Mapping[str, Rankings],
    sources: list[str],
    settings: ListSettings,
    rows: np.ndarray,
    documents: np.ndarray | None = None,
  ):
    """Joins rankings with what is read of documents.

    Args:
      rankings: of the sources that have some.
      sources: sorted names of all sources, as batches number them.
      settings: how lists are drawn.
      rows: places in the whole batch of those that are read.
      documents: [N, E] vectors that dense scores are made from, None for none.
    """
    self._rankings = rankings
    self._names = sources
    self._settings = settings
    self._rows = np.asarray(rows)
    self._documents = documents

  def __call__(
    self, batch: dict[str, np.ndarray], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """The batch with lists.

    Args:
      batch: from the loader.
      rng: of the batch's place in the order.

    Returns:
      'list_index' int32 [B, P, M] (the example's own document first, the
      others in the teacher's order; NO_DOC in the lists of a row without a
      ranking) and 'list_scores' float32 [B, P, M] besides what there was, and
      'list_vectors' [B, P, M, E] with `documents`.
    """
    settings = self._settings
    shape = len(batch['source']), settings.lists, settings.size
    index_BPM = np.full(shape, NO_DOC, np.int32)
    scores_BPM = np.zeros(shape, np.float32)
    # Drawn for the whole batch: a row's lists are its place's.
    random_BPC = rng.random(
      (self._rows[-1] + 1, settings.lists, settings.depth)
    )
    for row, place in enumerate(self._rows):
      index_BPM[row], scores_BPM[row] = lists_of(
        self._rankings.get(self._names[batch['source'][row]]),
        batch['example'][row],
        batch['document_index'][row],
        random_BPC[place],
        settings,
      )
    lists = {'list_index': index_BPM, 'list_scores': scores_BPM}
    if self._documents is not None:
      read_BPM = np.where(index_BPM == NO_DOC, 0, index_BPM)
      lists['list_vectors'] = np.asarray(self._documents[read_BPM])
    return batch | lists
