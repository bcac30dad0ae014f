"""Judges trained runs: what they share is read and encoded once."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from gr_jax.data.collection import Collection
from gr_jax.evaluation import (
  comparison_plot,
  comparison_results,
  comparison_rows,
  comparison_scores,
  comparison_search,
  comparison_table,
  judging,
)
from gr_jax.evaluation.comparison_settings import ComparisonSettings
from gr_jax.evaluation.identifiers import identifier_statistics
from gr_jax.evaluation.lexical import Lexical
from gr_jax.index.index import Index
from gr_jax.retrieval.encoding import encode_texts
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained run with its index in memory.

  Attributes:
    data: name of its data set.
    index: of the corpus.
    model: Retriever.
    params: of the model.
    prepared: data.prepared.PreparedData, for its vocabulary.
    search: how the index is searched otherwise.
    pooled_NE: what the frozen encoder made of the documents; None when the
      encoder trains.
    encoder_key: of all that the vectors of a frozen encoder depend on.
  """

  data: str
  index: Index
  model: Any
  params: Mapping[str, Any]
  prepared: Any
  search: SearchSettings
  pooled_NE: np.ndarray | None
  encoder_key: str


class Bench:
  """What runs are judged on."""

  def __init__(self, settings: ComparisonSettings):
    """Starts with nothing read.

    Args:
      settings: of the comparison.
    """
    self._settings = settings
    self._collections: dict[str, Collection] = {}
    self._splits: dict[str, list[comparison_scores.Judged]] = {}
    self._queries: dict[str, np.ndarray] = {}

  def judge(
    self, run: Trained, collection: Callable[[], Collection]
  ) -> dict[str, Any]:
    """Searches the queries of all splits.

    Args:
      run: what is judged.
      collection: opens its data set, when that is not open yet.

    Returns:
      'weights' of each share, 'scores' by score_key, and 'identifiers'.
    """
    splits = self._judged(run, collection)
    search = comparison_search.widest(
      self._settings, run.search, len(run.index)
    )
    if run.pooled_NE is not None:
      searcher = comparison_search.pooled_searcher(
        run.index, run.model, run.params, self._pooled(run), search
      )
      asked, first = {}, 0
      for split in splits:
        end = first + len(split.texts)
        asked[split.split] = [str(number) for number in range(first, end)]
        first = end
    else:
      searcher = Searcher(
        run.index,
        run.model,
        run.params,
        run.prepared.vocabulary(),
        run.prepared.query_length,
        search,
      )
      asked = {split.split: split.texts for split in splits}
    weights, scores = comparison_search.scores_of(
      self._settings, searcher, splits, asked
    )
    return {
      'weights': weights,
      'scores': scores,
      'identifiers': _identifiers(run.index),
    }

  def references(self, run: Trained) -> dict[str, np.ndarray]:
    """Scores by score_key of systems that no variant changes.

    BM25, and exact search with the frozen encoder before any training.

    Args:
      run: that was judged before.
    """
    splits = self._splits[run.data]
    lexical = Lexical(self._collections[run.data].documents())
    scores = comparison_search.lexical_scores(lexical, splits)
    if run.pooled_NE is not None:
      scores |= comparison_search.untrained_scores(
        run.pooled_NE, self._pooled(run), splits
      )
    return scores

  def _judged(self, run, collection) -> list[comparison_scores.Judged]:
    if run.data not in self._splits:
      opened = collection()
      self._splits[run.data] = [
        comparison_scores.judged(
          judging.questions(opened, split), run.index.document_ids
        )
        for split in comparison_rows.splits(self._settings)
      ]
      self._collections[run.data] = opened
    return self._splits[run.data]

  def _pooled(self, run: Trained) -> np.ndarray:
    """[Q, E] what the frozen encoder makes of the queries of all splits."""
    if run.encoder_key not in self._queries:
      texts = [t for split in self._splits[run.data] for t in split.texts]
      length = run.prepared.query_length
      tokens = run.prepared.vocabulary().encode_batch(texts, length)

      @jax.jit
      def pool(encoder, tokens_BS):
        params = {'encoder': encoder}
        return run.model.apply(
          {'params': params}, tokens_BS, method='backbone'
        ).pooled_BE

      self._queries[run.encoder_key] = encode_texts(
        lambda tokens_BS: pool(run.params['encoder'], tokens_BS),
        lambda rows: [np.asarray(tokens[row], np.int32) for row in rows],
        len(texts),
        length,
      )
    return self._queries[run.encoder_key]


def _identifiers(index: Index) -> dict[str, float]:
  """The health of a run's identifiers, by comparison_rows.IDENTIFIERS."""
  space = identifier_statistics(index.codes_NL, index.trie.code_sizes)
  return {
    'uniqueness': space.uniqueness,
    'sequence entropy': space.sequence_entropy,
    **{
      f'documents per ID, {name}': float(space.documents_per_id[name])
      for name in ('mean', 'p99', 'max')
    },
  }


def write_tables(
  settings: ComparisonSettings,
  results: comparison_rows.Results,
  failures: comparison_table.Failures,
  references: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
  """Writes table.md, table.csv and plot.svg, each in one step.

  Args:
    settings: of the comparison.
    results: of the runs that are finished.
    failures: of the runs that came to nothing.
    references: data set -> scores of systems that no variant changes.
  """
  folder = pathlib.Path(settings.folder)
  rows = comparison_rows.rows(settings, results, references)
  text = comparison_table.csv_text(rows)
  comparison_results.write_atomically(folder / 'table.csv', text)
  text = comparison_table.markdown(settings, rows, results, failures)
  comparison_results.write_atomically(folder / 'table.md', text)
  comparison_plot.write(folder / 'plot.svg', settings, rows)
