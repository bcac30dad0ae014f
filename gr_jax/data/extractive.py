"""Cheap pseudo-queries cut out of a document: title, sentences, spans.

Training on query-like text matters more for generative retrieval than any
other ingredient (arXiv 2305.11841); what a generator writes joins later as
another source. Each document draws from its own generator, seeded by its id,
so that any document can be redone alone.
"""

import hashlib
import random
import re

from gr_jax.types import Document, document_text

_SENTENCE_END = re.compile(r'(?<=[.!?])\s+|\s*\n\s*')
_MIN_SENTENCE_WORDS = 3
# Words past this say little new and cost time to split.
_MAX_CHARACTERS = 20_000


def random_spans(
  document: Document, count: int, shortest: int, longest: int, seed: int
) -> list[str]:
  """Random runs of words.

  Args:
    document: what they are cut from.
    count: how many; fewer when the document has fewer different ones.
    shortest: words of a span at least, where the document has them.
    longest: words of a span at most.
    seed: of all documents; the id makes the document's own.

  Returns:
    Different spans in the order drawn.
  """
  words = document_text(document)[:_MAX_CHARACTERS].split()
  return _spans(words, count, shortest, longest, _rng(document, 'spans', seed))


def extractive_queries(document: Document, count: int, seed: int) -> list[str]:
  """The title, then random sentences, then short spans where those run out.

  Args:
    document: what they are cut from.
    count: how many; fewer when the document has fewer different ones.
    seed: of all documents; the id makes the document's own.

  Returns:
    Different queries, the title first.
  """
  rng = _rng(document, 'extractive', seed)
  queries = [document.title.strip()] if document.title.strip() else []
  text = document.text[:_MAX_CHARACTERS]
  sentences = [' '.join(part.split()) for part in _SENTENCE_END.split(text)]
  sentences = list(
    dict.fromkeys(
      sentence
      for sentence in sentences
      if len(sentence.split()) >= _MIN_SENTENCE_WORDS
    )
  )
  rng.shuffle(sentences)
  queries += sentences[: count - len(queries)]
  if len(queries) < count:
    queries += _spans(text.split(), count - len(queries), 2, 8, rng)
  return list(dict.fromkeys(queries))[:count]


def _rng(document: Document, purpose: str, seed: int) -> random.Random:
  name = f'{seed}\n{purpose}\n{document.id}'.encode()
  digest = hashlib.blake2b(name, digest_size=8).digest()
  return random.Random(int.from_bytes(digest))


def _spans(
  words: list[str],
  count: int,
  shortest: int,
  longest: int,
  rng: random.Random,
) -> list[str]:
  if not words:
    return []
  spans = []
  for _ in range(count):
    length = min(rng.randint(shortest, longest), len(words))
    start = rng.randint(0, len(words) - length)
    spans.append(' '.join(words[start : start + length]))
  return list(dict.fromkeys(spans))
