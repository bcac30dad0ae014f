"""Queries that are no queries: too long, too few letters, stuttering."""

import unicodedata
from collections.abc import Sequence

from gr_jax.querygen.candidates import Candidate
from gr_jax.querygen.query_settings import SanitySettings
from gr_jax.querygen.words import ngrams, words
from gr_jax.types import Document


def is_sane(text: str, settings: SanitySettings) -> bool:
  """Whether a text looks like a query."""
  found = words(text)
  if not settings.words_min <= len(found) <= settings.words_max:
    return False
  shown = [character for character in text if not character.isspace()]
  # Combining marks are parts of letters.
  letters = [c for c in shown if unicodedata.category(c)[0] in 'LM']
  if len(letters) < settings.letters * len(shown):
    return False
  if settings.repeated:
    runs = ngrams(found, settings.repeated)
    if len(set(runs)) < len(runs):
      return False
  if not settings.script:
    return True
  own = sum(
    unicodedata.name(c, '').startswith(settings.script) for c in letters
  )
  return own >= settings.script_share * len(letters)


class Sanity:
  """Keeps what looks like a query."""

  name = 'sanity'
  provenance = None

  def __init__(self, settings: SanitySettings):
    """Keeps the settings."""
    self._settings = settings

  def keep(
    self,
    documents: Sequence[Document],
    candidates: Sequence[list[Candidate]],
    first: int,
  ) -> list[list[Candidate]]:
    """See candidates.Filter."""
    return [
      [each for each in of_document if is_sane(each.text, self._settings)]
      for of_document in candidates
    ]
