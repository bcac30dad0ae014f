"""Queries that a collection keeps to judge with: none may be trained on."""

import collections
from collections.abc import Iterable, Sequence

from gr_jax.data.collection import Collection
from gr_jax.querygen.candidates import Candidate
from gr_jax.querygen.query_settings import WORDS, LeakSettings
from gr_jax.querygen.similar_sets import SimilarSets
from gr_jax.querygen.words import ngrams, words
from gr_jax.types import Document, UserError, near_miss


def held_out_queries(
  collection: Collection, splits: Sequence[str]
) -> list[str]:
  """The queries that splits judge, whatever other splits judge them too.

  Args:
    collection: with the judgements.
    splits: those of the default that are not there are left out.

  Returns:
    Texts, in the order of the collection.

  Raises:
    UserError: for another split that is not there.
  """
  there = collection.splits()
  for split in splits:
    if split not in there and split not in LeakSettings.splits:
      raise UserError(
        f'LeakSettings.splits names {split!r}, {collection.directory} has '
        f'{there}{near_miss(split, [*there, *LeakSettings.splits])}'
      )
  wanted = {
    judgement.query_id
    for split in splits
    if split in there
    for judgement in collection.judgements(split)
  }
  return [query.text for query in collection.queries() if query.id in wanted]


class Leaks:
  """Leaves out queries that equal a held-out one, or nearly so.

  Equal are queries of the same words in the same order, without case and
  punctuation. Nearly equal are those whose n-grams have a Jaccard similarity
  of the threshold or more with those of one held-out query.

  Attributes:
    held_out: how many queries are held out.
    equal: candidates left out as equal, so far.
    near: candidates left out as nearly equal, so far.
  """

  name = 'leaks'
  provenance = None

  def __init__(self, held_out: Iterable[str], settings: LeakSettings):
    """Indexes the held-out queries.

    Args:
      held_out: their texts.
      settings: what is nearly equal.
    """
    self._settings = settings
    texts = list(held_out)
    self.held_out = len(texts)
    self.equal = self.near = 0
    self._texts = {tuple(words(text)) for text in texts}
    sets = [self._features(text) for text in texts]
    counts = collections.Counter(item for items in sets for item in items)
    self._alike = SimilarSets(settings.threshold, counts.__getitem__)
    for items in sets:
      self._alike.add(items)

  def kind(self, text: str) -> str:
    """'equal', 'near', or '' for a query that is no leak."""
    if tuple(words(text)) in self._texts:
      return 'equal'
    found = self._alike.find(self._features(text))
    return '' if found is None else 'near'

  def keep(
    self,
    documents: Sequence[Document],
    candidates: Sequence[list[Candidate]],
    first: int,
  ) -> list[list[Candidate]]:
    """See candidates.Filter."""
    kept = []
    for of_document in candidates:
      kinds = [self.kind(candidate.text) for candidate in of_document]
      self.equal += kinds.count('equal')
      self.near += kinds.count('near')
      kept.append(
        [c for c, kind in zip(of_document, kinds, strict=True) if not kind]
      )
    return kept

  def _features(self, text: str) -> frozenset:
    items = words(text)
    if self._settings.unit != WORDS:
      items = ' '.join(items)
    # A text with fewer units than an n-gram is one itself.
    size = min(self._settings.size, len(items))
    return frozenset(ngrams(items, size)) if size else frozenset()
