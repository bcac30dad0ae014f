"""Texts as words that can be compared, and how rare words are."""

import collections
import functools
import math
import re
import unicodedata
from collections.abc import Iterable

# Scripts that put no space between words, each character of which stands for
# one: kana, Chinese characters; Thai, Lao, Burmese, Khmer.
_UNSPACED = (
  '\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff'
  '\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff'
)
# Vowel signs and accents, which belong to the letter before them; those of
# planes 2 and up are variants of shapes.
_MARKS = ''.join(
  mark
  for mark in map(chr, range(0x20000))
  if unicodedata.category(mark).startswith('M')
)
_LETTERS = rf'[^\W_{_UNSPACED}]'
_WORD = re.compile(
  rf'(?=\w)[{_UNSPACED}][{_MARKS}]*|{_LETTERS}+(?:[{_MARKS}]+{_LETTERS}*)*'
)


def words(text: str) -> list[str]:
  """The words of a text, without case, punctuation and Unicode variants.

  Args:
    text: any; characters of scripts without spaces, as Chinese and Thai, are
      words of their own.

  Returns:
    The words in order.
  """
  return _WORD.findall(unicodedata.normalize('NFKC', text).casefold())


def ngrams(items: list[str] | str, size: int) -> list[tuple[str, ...]]:
  """The runs of `size` items, in order; none when there are too few."""
  return [
    tuple(items[start : start + size]) for start in range(len(items) - size + 1)
  ]


def contains(outer: list[str], inner: list[str]) -> bool:
  """Whether the words of one text stand in another one after the other."""
  return f' {" ".join(inner)} ' in f' {" ".join(outer)} '


def overlap(one: frozenset, other: frozenset) -> float:
  """The Jaccard similarity of two sets: shared items of all; 0 of nothing."""
  shared = len(one & other)
  return shared / max(len(one) + len(other) - shared, 1)


class Frequencies:
  """In how many texts each word stands.

  Attributes:
    texts: how many there are.
  """

  def __init__(self, texts: Iterable[str]):
    """Counts the words of texts, which are read once."""
    self._counts: collections.Counter[str] = collections.Counter()
    self.texts = 0
    for text in texts:
      self._counts.update(set(words(text)))
      self.texts += 1

  def count(self, word: str) -> int:
    """In how many texts a word stands."""
    return self._counts[word]

  def idf(self, word: str) -> float:
    """Its inverse document frequency, ln(1 + N / (1 + df)); never 0."""
    return math.log(1 + self.texts / (1 + self._counts[word]))

  @functools.cached_property
  def _frequent(self) -> int:
    # A small corpus has no word that is frequent for another reason.
    return max(self.texts // 5, 10)

  def says_little(self, word: str) -> bool:
    """Whether a word stands in more than a fifth of the texts."""
    return self._counts[word] > self._frequent
