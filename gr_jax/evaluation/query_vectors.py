"""Queries as vectors of their words, and clusters of them."""

import collections
import hashlib
import math
import re
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r'\w+')
# Numbers of a vector.
_WIDTH = 512
_ROUNDS = 50
# Attempts, of which the one with the nearest centres counts.
_ATTEMPTS = 10


def word_vectors(texts: Sequence[str]) -> np.ndarray:
  """[B, 512] unit vectors whose products are nearly those of tf-idf vectors.

  Each word adds its tf-idf, with a sign of its own, to the numbers that hash
  functions choose (feature hashing: Weinberger et al. 2009).

  Args:
    texts: B queries, whose words are weighed among themselves.
  """
  counts = [collections.Counter(_words(text)) for text in texts]
  frequency = collections.Counter(word for each in counts for word in each)
  vectors_BD = np.zeros((len(texts), _WIDTH), np.float32)
  hashes = {word: _hash(word) for word in frequency}
  for row, each in enumerate(counts):
    for word, count in each.items():
      idf = math.log(1 + len(texts) / frequency[word])
      places, signs = hashes[word]
      vectors_BD[row, places] += count * idf * signs
  norms_B1 = np.linalg.norm(vectors_BD, axis=1, keepdims=True)
  return vectors_BD / np.maximum(norms_B1, 1e-9)


def _words(text: str) -> list[str]:
  return _WORD.findall(text.casefold())


def _hash(word: str) -> tuple[list[int], np.ndarray]:
  digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
  # Two places: where one collides with another word, the other does not.
  places = [
    int.from_bytes(digest[start : start + 2]) % _WIDTH for start in (0, 2)
  ]
  signs = np.array([1.0 if byte & 1 else -1.0 for byte in digest[4:6]])
  return places, signs


def clusters(vectors_BD: np.ndarray, count: int, seed: int) -> np.ndarray:
  """The best of ten spherical k-means (Dhillon and Modha 2001).

  Args:
    vectors_BD: unit vectors.
    count: clusters, all of which have members.
    seed: of the first centres.

  Returns:
    [B] the cluster of each vector.
  """
  rng = np.random.default_rng(seed)
  attempts = [_attempt(vectors_BD, count, rng) for _ in range(_ATTEMPTS)]
  return max(attempts, key=lambda attempt: attempt[0])[1]


def _attempt(
  vectors_BD: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
  """How near vectors are to their centres, added up, and their clusters."""
  centres_CD = _first_centres(vectors_BD, count, rng)
  of_vector_B = np.full(len(vectors_BD), -1)
  for _ in range(_ROUNDS):
    near_BC = np.einsum('BD,CD->BC', vectors_BD, centres_CD, optimize=True)
    chosen_B = np.argmax(near_BC, axis=1)
    _fill_empty(chosen_B, near_BC, count)
    if np.array_equal(chosen_B, of_vector_B):
      break
    of_vector_B = chosen_B
    for cluster in range(count):
      mean_D = vectors_BD[of_vector_B == cluster].mean(axis=0)
      centres_CD[cluster] = mean_D / max(np.linalg.norm(mean_D), 1e-9)
  near_B = np.einsum('BD,BD->B', vectors_BD, centres_CD[of_vector_B])
  return float(near_B.sum()), of_vector_B


def _first_centres(
  vectors_BD: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
  """[count, D] vectors, each far from those before it."""
  rows = [int(rng.integers(len(vectors_BD)))]
  nearest_B = np.full(len(vectors_BD), np.inf)
  for _ in range(count - 1):
    products_B = np.einsum('BD,D->B', vectors_BD, vectors_BD[rows[-1]])
    nearest_B = np.minimum(nearest_B, np.maximum(1 - products_B, 0))
    total = nearest_B.sum()
    weights_B = nearest_B / total if total else None
    rows.append(int(rng.choice(len(vectors_BD), p=weights_B)))
  return vectors_BD[rows].copy()


def _fill_empty(chosen_B: np.ndarray, near_BC: np.ndarray, count: int) -> None:
  """Gives a cluster without members the vector that fits its own least."""
  for cluster in range(count):
    if np.any(chosen_B == cluster):
      continue
    fit_B = near_BC[np.arange(len(chosen_B)), chosen_B].copy()
    sizes_C = np.bincount(chosen_B, minlength=count)
    # The last member of another cluster stays there.
    fit_B[sizes_C[chosen_B] == 1] = np.inf
    chosen_B[int(np.argmin(fit_B))] = cluster
