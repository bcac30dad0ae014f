"""The few queries of a document that cover it best.

Queries are taken one by one, each time the one with the largest

  gain(q | S) + likelihood * p(q) - redundancy * max_{s in S} J(q, s)

where gain is the share of the document's words that q is the first of S to
hold, each word weighing its inverse document frequency; p(q) is the mean
log-probability of a word of q, scaled to 0 for the least and 1 for the most
probable candidate of the document (0 where none is known); and J the Jaccard
similarity of word sets. Greedy coverage is within 1 - 1/e of the best one (Lin
and Bilmes 2011, as in summarisation); the last term is that of maximal marginal
relevance (Carbonell and Goldstein 1998). The sum is our reconstruction.
"""

from collections.abc import Sequence

from gr_jax.querygen.candidates import Candidate
from gr_jax.querygen.query_settings import DiversitySettings
from gr_jax.querygen.words import Frequencies, overlap, words
from gr_jax.types import Document, document_text


class Diversity:
  """Keeps the queries of each document that cover it best."""

  name = 'diversity'
  provenance = None

  def __init__(self, settings: DiversitySettings, frequencies: Frequencies):
    """Takes weights, and the frequencies of words in the corpus."""
    self._settings = settings
    self._frequencies = frequencies

  def keep(
    self,
    documents: Sequence[Document],
    candidates: Sequence[list[Candidate]],
    first: int,
  ) -> list[list[Candidate]]:
    """See candidates.Filter."""
    return [
      self._covering(document, of_document)
      for document, of_document in zip(documents, candidates, strict=True)
    ]

  def _covering(
    self, document: Document, candidates: list[Candidate]
  ) -> list[Candidate]:
    settings = self._settings
    if len(candidates) <= settings.queries:
      return candidates
    weights = {
      word: self._frequencies.idf(word)
      for word in sorted(set(words(document_text(document))))
    }
    total = max(sum(weights.values()), 1e-9)
    sets = [frozenset(words(candidate.text)) for candidate in candidates]
    likely = likelihoods(candidates)
    left, taken, covered = list(range(len(candidates))), [], set()
    while left and len(taken) < settings.queries:

      def score(place, taken=taken, covered=covered):
        new = sorted(sets[place] - covered)
        gain = sum(weights.get(word, 0.0) for word in new) / total
        near = max((overlap(sets[place], sets[t]) for t in taken), default=0.0)
        return (
          gain
          + settings.likelihood * likely[place]
          - settings.redundancy * near
        )

      # The first of equal ones.
      best = max(left, key=score)
      left.remove(best)
      taken.append(best)
      covered |= sets[best]
    return [candidates[place] for place in sorted(taken)]


def likelihoods(candidates: Sequence[Candidate]) -> list[float]:
  """Mean log-probabilities of words, from 0 to 1 among the candidates.

  Args:
    candidates: of a document.

  Returns:
    A number for each; 0 where no probability is known.
  """
  known = {
    place: each.log_probability / max(len(words(each.text)), 1)
    for place, each in enumerate(candidates)
    if each.log_probability is not None
  }
  least, most = min(known.values(), default=0), max(known.values(), default=0)
  width = most - least
  return [
    (known[place] - least) / width if place in known and width else 0.0
    for place in range(len(candidates))
  ]
