"""Queries that are no queries: too long, too few letters, stuttering."""

import collections
import unicodedata
from collections.abc import Sequence

from gr_jax.querygen.candidates import Candidate
from gr_jax.querygen.query_settings import DOCUMENT, SanitySettings
from gr_jax.querygen.words import ngrams, words
from gr_jax.types import Document, document_text

# Beginnings of the Unicode names of letters: one text has all of these,
_EAST_ASIAN = (
  *('CJK', 'IDEOGRAPHIC', 'HIRAGANA', 'KATAKANA', 'HANGUL', 'BOPOMOFO'),
  *('FULLWIDTH', 'HALFWIDTH'),
)
# and these stand beside letters of any script.
_MARKS = ('COMBINING', 'MODIFIER')


def is_sane(
  text: str, settings: SanitySettings, scripts: Sequence[str] | None = None
) -> bool:
  """Whether a text looks like a query.

  Args:
    text: of it.
    settings: what does.
    scripts: beginnings of the names of its letters, from `document_scripts`;
      when None, that of the settings, which is not DOCUMENT then, and marks.
  """
  found = words(text)
  if not settings.words_min <= len(found) <= settings.words_max:
    return False
  letters = _letters(text)
  shown = sum(not character.isspace() for character in text)
  if len(letters) < settings.letters * shown:
    return False
  if settings.repeated:
    runs = ngrams(found, settings.repeated)
    if len(set(runs)) < len(runs):
      return False
  names = scripts or (settings.script, *_MARKS)
  own = sum(unicodedata.name(c, '').startswith(tuple(names)) for c in letters)
  return own >= settings.script_share * len(letters)


def document_scripts(text: str) -> tuple[str, ...]:
  """Beginnings of the names of letters that fit beside those of a text.

  Args:
    text: of a document.

  Returns:
    The script of most of its letters, with those that are written together
    with it, and marks; of a text without letters all.
  """
  counts: collections.Counter = collections.Counter()
  for character, count in collections.Counter(_letters(text)).items():
    name = unicodedata.name(character, '')
    if name and not name.startswith(_MARKS):
      script = _EAST_ASIAN if name.startswith(_EAST_ASIAN) else name.split()[:1]
      counts[tuple(script)] += count
  if not counts:
    return ('',)
  return (*max(counts, key=counts.__getitem__), *_MARKS)


def _letters(text: str) -> list[str]:
  # Combining marks are parts of letters.
  return [c for c in text if unicodedata.category(c)[0] in 'LM']


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
    kept = []
    for document, own in zip(documents, candidates, strict=True):
      scripts = None
      if self._settings.script == DOCUMENT:
        scripts = document_scripts(document_text(document))
      kept.append([c for c in own if is_sane(c.text, self._settings, scripts)])
    return kept
