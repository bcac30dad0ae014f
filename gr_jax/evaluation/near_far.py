"""Queries apart by how near they are to a query that was trained on.

Test queries that repeat training queries measure interpolation (Zhan et al.,
arXiv 2204.11447); the far half says more of what a model has understood.
"""

import collections
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gr_jax.data.collection import Collection
from gr_jax.retrieval.exact import exact_top_k
from gr_jax.types import UserError

NEAR, FAR = 'near', 'far'
WORDS, VECTORS = 'words', 'vectors'
_WORD = re.compile(r'\w+')

Encode = Callable[[Sequence[str]], np.ndarray]


def training_queries(collection: Collection, split: str) -> list[str]:
  """The texts of the queries that a split judges.

  Raises:
    UserError: when there are none.
  """
  judged = {j.query_id for j in collection.judgements(split)}
  texts = [query.text for query in collection.queries() if query.id in judged]
  if not texts:
    raise UserError(
      f'{collection.directory}: split {split!r} judges no query that others '
      'could be near to: leave out --near_training'
    )
  return texts


def halves(
  texts: Sequence[str], trained: Sequence[str], encode: Encode | None
) -> Mapping[str, np.ndarray]:
  """The half of the queries that is near to a training query, and the other.

  Args:
    texts: B queries.
    trained: training queries.
    encode: texts to unit vectors [B, D], for the cosine; None for the Jaccard
      similarity of words.

  Returns:
    [B] bool by name; of equally near queries the earlier ones are far.
  """
  if encode is None:
    near_B = word_overlaps(texts, trained)
  else:
    near_B = exact_top_k(encode(texts), encode(trained), 1)[1][:, 0]
  far_B = np.zeros(len(texts), bool)
  far_B[np.argsort(near_B, kind='stable')[: len(texts) // 2]] = True
  groups = {NEAR: ~far_B, FAR: far_B}
  return {name: mask_B for name, mask_B in groups.items() if mask_B.any()}


def word_overlaps(texts: Sequence[str], trained: Sequence[str]) -> np.ndarray:
  """[B] the largest Jaccard similarity of words with a training query.

  Args:
    texts: B queries.
    trained: N training queries.
  """
  rows_with = collections.defaultdict(list)
  sizes_N = np.zeros(len(trained), np.int64)
  for row, text in enumerate(trained):
    found = _words(text)
    sizes_N[row] = len(found)
    for word in found:
      rows_with[word].append(row)
  rows_of = {word: np.array(rows) for word, rows in rows_with.items()}
  near_B = np.zeros(len(texts))
  for query, text in enumerate(texts):
    found = _words(text)
    shared_N = np.zeros(len(trained), np.int64)
    for word in found & rows_of.keys():
      shared_N[rows_of[word]] += 1
    either_N = np.maximum(sizes_N + len(found) - shared_N, 1)
    near_B[query] = np.max(shared_N / either_N)
  return near_B


def _words(text: str) -> set[str]:
  return set(_WORD.findall(text.casefold()))
