"""Key phrases of a document: runs of words that are rare in the corpus.

Our reconstruction of RAKE (Rose 2010) without a list of stop words: a word
that stands in more than a fifth of the documents says little, and phrases are
the runs between such words and punctuation. RAKE adds up word scores of degree
over frequency; here they are tf-idf.
"""

import collections
import re

from gr_jax.querygen.words import Frequencies, words

# What ends a phrase.
_BREAK = re.compile(r'[.,;:!?()\[\]{}"“”«»|\n\t]+|\s[-\u2013\u2014]\s')
_LONGEST = 4


def key_phrases(text: str, frequencies: Frequencies, count: int) -> list[str]:
  """The phrases with the largest sum of tf-idf.

  Args:
    text: of the document.
    frequencies: of the corpus.
    count: phrases at most.

  Returns:
    Phrases of up to four words, the best first; none shares more than half of
    its words with a better one.
  """
  counts = collections.Counter(words(text))
  found: dict[tuple[str, ...], float] = {}
  for part in _BREAK.split(text):
    for run in _runs(words(part), frequencies):
      score = sum(counts[word] * frequencies.idf(word) for word in set(run))
      found.setdefault(tuple(run), score)
  best = sorted(found, key=lambda phrase: (-found[phrase], phrase))
  taken: list[tuple[str, ...]] = []
  for phrase in best:
    if len(taken) == count:
      break
    shared = (len(set(phrase) & set(other)) for other in taken)
    if all(2 * each <= len(set(phrase)) for each in shared):
      taken.append(phrase)
  return [' '.join(phrase) for phrase in taken]


def _runs(part: list[str], frequencies: Frequencies) -> list[list[str]]:
  """Runs of words that say something, long ones in pieces."""
  runs: list[list[str]] = [[]]
  for word in part:
    if frequencies.says_little(word) or word.isdigit():
      runs.append([])
    elif len(runs[-1]) == _LONGEST:
      runs.append([word])
    else:
      runs[-1].append(word)
  return [run for run in runs if run]
