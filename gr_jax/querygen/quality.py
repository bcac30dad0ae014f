"""How good pseudo-queries are: against human ones, and by themselves."""

import collections
import math
import random
from collections.abc import Iterable, Mapping, Sequence

from gr_jax.evaluation.lexical import Lexical
from gr_jax.querygen.words import contains, ngrams, words
from gr_jax.types import Document, document_text

_ORDERS = (1, 2, 3, 4)
_BATCH = 256
# Places of a ranking that are looked at.
_TOP = 10


def bleu(
  hypotheses: Sequence[Sequence[str]],
  references: Sequence[Sequence[Sequence[str]]],
) -> float:
  """BLEU-4 of a corpus (Papineni et al. 2002), without smoothing.

  Args:
    hypotheses: the words of each text.
    references: the texts that each may be like.

  Returns:
    From 0 to 1: the geometric mean of the clipped precisions of n-grams of one
    to four words, times the brevity penalty (closest reference lengths).
  """
  matched, total = collections.Counter(), collections.Counter()
  length = wanted = 0
  for text, others in zip(hypotheses, references, strict=True):
    length += len(text)
    closest = min(
      others, key=lambda other: (abs(len(other) - len(text)), len(other))
    )
    wanted += len(closest)
    for order in _ORDERS:
      found = collections.Counter(ngrams(list(text), order))
      most = collections.Counter()
      for other in others:
        most |= collections.Counter(ngrams(list(other), order))
      matched[order] += sum((found & most).values())
      total[order] += sum(found.values())
  if not all(matched[order] for order in _ORDERS):
    return 0.0
  precision = sum(math.log(matched[n] / total[n]) for n in _ORDERS)
  brevity = min(0.0, 1 - wanted / length)
  return math.exp(brevity + precision / len(_ORDERS))


def rouge_l(text: Sequence[str], other: Sequence[str]) -> float:
  """F1 of the longest common subsequence of words (Lin 2004); 0 for none."""
  previous = [0] * (len(other) + 1)
  for word in text:
    row = [0]
    for place, its in enumerate(other):
      longest = max(row[place], previous[place + 1])
      row.append(previous[place] + 1 if word == its else longest)
    previous = row
  return 2 * previous[-1] / max(len(text) + len(other), 1)


def distinct(texts: Iterable[Sequence[str]], order: int) -> float:
  """Different n-grams of all texts, as a share of all (Li et al. 2016)."""
  found = collections.Counter()
  for text in texts:
    found.update(ngrams(list(text), order))
  return len(found) / max(found.total(), 1)


def measure(
  documents: Sequence[Document],
  queries: Mapping[str, Sequence[str]],
  human: Mapping[str, Sequence[str]],
  sample: int,
  seed: int,
) -> dict[str, object]:
  """Measures pseudo-queries.

  Args:
    documents: the corpus.
    queries: pseudo-queries by document id.
    human: queries that people asked, by document id.
    sample: queries at most that search; 0 for all.
    seed: of the sample.

  Returns:
    JSON data: counts; 'bleu_4' and 'rouge_l' (the mean over queries, each
    against the human query that it is most like) of the queries of documents
    that have human ones; 'R@1' and 'R@10' of their documents by BM25; 'copies',
    the share of queries whose words stand in their document one after the
    other; 'distinct_1' and 'distinct_2'.
  """
  pairs = [(name, words(text)) for name, own in queries.items() for text in own]
  asked = {name: [words(text) for text in own] for name, own in human.items()}
  judged = [(text, asked[name]) for name, text in pairs if name in asked]
  own_words = {
    document.id: words(document_text(document))
    for document in documents
    if document.id in queries
  }
  copies = sum(contains(own_words[name], text) for name, text in pairs)
  rouges = [max(rouge_l(text, one) for one in all_) for text, all_ in judged]
  return {
    'documents': len(documents),
    'documents_with_queries': len(queries),
    'queries': len(pairs),
    'words_per_query': _mean([len(text) for _, text in pairs]),
    'copies': copies / max(len(pairs), 1),
    'distinct_1': distinct((text for _, text in pairs), 1),
    'distinct_2': distinct((text for _, text in pairs), 2),
    'queries_with_human_ones': len(judged),
    'bleu_4': bleu(*zip(*judged, strict=True)) if judged else None,
    'rouge_l': _mean(rouges) if judged else None,
    **_round_trip(documents, queries, sample, seed),
  }


def _mean(values: Sequence[float]) -> float:
  return sum(values) / max(len(values), 1)


def _round_trip(
  documents: Sequence[Document],
  queries: Mapping[str, Sequence[str]],
  sample: int,
  seed: int,
) -> dict[str, object]:
  """Whether queries find their documents."""
  row_of = {document.id: row for row, document in enumerate(documents)}
  pairs = [
    (row_of[name], text) for name, own in queries.items() for text in own
  ]
  if sample and sample < len(pairs):
    pairs = random.Random(seed).sample(pairs, sample)
  lexical = Lexical(documents)
  first = among = 0
  for start in range(0, len(pairs), _BATCH):
    part = pairs[start : start + _BATCH]
    rows_BC = lexical.search([text for _, text in part], _TOP).rows_BC
    for (row, _), found in zip(part, rows_BC.tolist(), strict=True):
      first += found[0] == row
      among += row in found
  return {
    'searched': len(pairs),
    'R@1': first / max(len(pairs), 1),
    f'R@{_TOP}': among / max(len(pairs), 1),
  }
