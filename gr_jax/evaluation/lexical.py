"""BM25, the baseline that knows words only (bm25s, stemmed English)."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from gr_jax.evaluation.rankings import Rankings
from gr_jax.types import NO_DOC, Document, UserError

try:
  import bm25s
  import Stemmer
except ModuleNotFoundError as error:
  raise UserError(
    f'BM25 needs {error.name}: pip install gr_jax[baselines]'
  ) from error

# bm25s sets its logger to DEBUG when it is imported.
logging.getLogger('bm25s').setLevel(logging.WARNING)


def _top_k(scores_N: np.ndarray, k: int) -> np.ndarray:
  """Rows of the k best positive scores, best first, lower rows first."""
  positive = np.flatnonzero(scores_N > 0)
  if len(positive) > k:
    kept = scores_N[positive]
    threshold = np.partition(kept, len(kept) - k)[len(kept) - k]
    above = positive[kept > threshold]
    level = positive[kept == threshold][: k - len(above)]
    positive = np.concatenate([above, level])
  return positive[np.lexsort((positive, -scores_N[positive]))]


class Lexical:
  """Exact BM25 over title and text.

  k1 .9 and b .4 are the values of Anserini's passage baselines, with which
  the published numbers of the collections were made.
  """

  def __init__(
    self, documents: Iterable[Document], k1: float = 0.9, b: float = 0.4
  ):
    """Indexes a corpus.

    Args:
      documents: the corpus, read once.
      k1: saturation of a term's count.
      b: how far a document's length counts.
    """
    self._stemmer = Stemmer.Stemmer('english')
    self.document_ids: list[str] = []
    texts = []
    for document in documents:
      self.document_ids.append(document.id)
      texts.append(f'{document.title} {document.text}')
    if not texts:
      raise UserError('BM25 needs at least one document, the corpus is empty')
    self._index = bm25s.BM25(k1=k1, b=b)
    tokens = bm25s.tokenize(
      texts, stopwords='en', stemmer=self._stemmer, show_progress=False
    )
    # A corpus of stopwords alone has no index; nothing in it can be found.
    self._empty = not any(tokens.ids)
    if not self._empty:
      self._index.index(tokens, show_progress=False)

  def search(self, texts: Sequence[str], k: int) -> Rankings:
    """Ranks the documents that share a term with each query.

    Args:
      texts: B queries.
      k: places of a ranking.

    Returns:
      Rankings; a document counts as scored when it shares a term.
    """
    rows_BC = np.full((len(texts), k), NO_DOC, np.int64)
    scores_BC = np.zeros((len(texts), k), np.float32)
    scored_B = np.zeros(len(texts), np.int64)
    for query, words in enumerate(self._words(texts)):
      if self._empty or not words:
        continue
      scores_N = self._index.get_scores(words)
      rows = _top_k(scores_N, k)
      rows_BC[query, : len(rows)] = rows
      scores_BC[query, : len(rows)] = scores_N[rows]
      scored_B[query] = np.count_nonzero(scores_N)
    return Rankings(rows_BC, scores_BC, scored_B, np.zeros_like(scored_B))

  def scores(
    self, texts: Sequence[str], rows: Sequence[np.ndarray]
  ) -> list[np.ndarray]:
    """Scores documents that somebody else has chosen.

    Args:
      texts: B queries.
      rows: of each the documents to be scored.

    Returns:
      float32 scores of each query's documents; 0 where no term is shared.
    """
    scored = []
    for words, chosen in zip(self._words(texts), rows, strict=True):
      if self._empty or not words:
        scored.append(np.zeros(len(chosen), np.float32))
      else:
        scored.append(self._index.get_scores(words)[chosen])
    return scored

  def _words(self, texts: Sequence[str]) -> list[list[str]]:
    """The stemmed terms of each query."""
    return bm25s.tokenize(
      list(texts),
      stopwords='en',
      stemmer=self._stemmer,
      show_progress=False,
      return_ids=False,
    )
