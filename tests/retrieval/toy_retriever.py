"""A small retriever without a network, and a corpus for it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.index.index import Index

VOCABULARY = 50
WIDTH = 8
POSITIONS = 3
CODES = 6


@dataclasses.dataclass(frozen=True)
class Encoding:
  vectors_BD: jax.Array


jax.tree_util.register_dataclass(Encoding, ['vectors_BD'], [])


@dataclasses.dataclass(frozen=True)
class ToyModel:
  """Sums of token vectors; codes by residual quantization; tied head."""

  def apply(self, variables, *args, method):
    return getattr(self, method)(variables['params'], *args)

  def encode(self, params, tokens_BS):
    mask_BS = (tokens_BS != 0).astype(jnp.float32)
    vectors_BD = jnp.einsum(
      'BSD,BS->BD', params['encoder']['table'][tokens_BS], mask_BS
    )
    norm_B = jnp.linalg.norm(vectors_BD, axis=1)
    return Encoding(vectors_BD / norm_B[:, None])

  def assign(self, params, vectors_BD, documents_B):
    del documents_B
    codes = []
    for level in range(POSITIONS):
      codebook_KD = params['codebooks'][level]
      distances_BK = jnp.sum(
        (vectors_BD[:, None, :] - codebook_KD[None]) ** 2, axis=2
      )
      codes.append(jnp.argmin(distances_BK, axis=1))
      vectors_BD = vectors_BD - codebook_KD[codes[-1]]
    return jnp.stack(codes, axis=1)

  def start(self, params, encoding, width):
    del params
    vectors_BD = encoding.vectors_BD
    shape = (vectors_BD.shape[0], width, WIDTH)
    return jnp.broadcast_to(vectors_BD[:, None, :], shape)

  def decode(self, params, state, codes_BW, level):
    before_KD = params['codebooks'][jnp.maximum(level - 1, 0)]
    chosen = jnp.where(level > 0, before_KD[codes_BW], 0.0)
    state = state - chosen
    codebook_KD = params['codebooks'][level]
    scores_BWK = -jnp.sum(
      (state[:, :, None, :] - codebook_KD[None, None]) ** 2, axis=3
    )
    return scores_BWK, state


class ToyVocabulary:
  """Letters as tokens."""

  pad_id = 0
  sha256 = 'a' * 64

  def encode_batch(self, texts, length):
    return [[1 + ord(c) % 49 for c in text][:length] for text in texts]

  def save(self, directory):
    (directory / 'letters.txt').write_text('abc')


def make_params(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'encoder': {
      'table': rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    },
    'codebooks': (
      rng.normal(size=(POSITIONS, CODES, WIDTH)) / np.sqrt(WIDTH)
    ).astype(np.float32),
  }


def make_texts(count, seed=0):
  rng = np.random.default_rng(seed)
  letters = np.array(list('abcdefghijklmnopqrstuvwxyz'))
  return [
    ''.join(rng.choice(letters, rng.integers(3, 12))) for _ in range(count)
  ]


def make_index(documents=200, params=None, dtype=np.float32):
  """Every tenth document says the same as the one before it."""
  params = make_params() if params is None else params
  texts = make_texts(documents)
  texts[9::10] = texts[8::10][: len(texts[9::10])]
  tokens = np.zeros((documents, 16), np.int32)
  for row, ids in enumerate(ToyVocabulary().encode_batch(texts, 16)):
    tokens[row, : len(ids)] = ids
  vectors_ND = ToyModel().encode(params, tokens).vectors_BD
  codes_NL = ToyModel().assign(params, vectors_ND, None)
  return Index.build(
    np.asarray(codes_NL),
    (CODES,) * POSITIONS,
    np.asarray(vectors_ND).astype(dtype),
    [f'd{row}' for row in range(documents)],
    [f'title {row}' for row in range(documents)],
    texts,
  )
