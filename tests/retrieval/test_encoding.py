"""Encoding a corpus: order, padding and batches must not show."""

import jax
import numpy as np
import pytest
import toy_retriever as toy

from gr_jax.retrieval import encoding


def ragged_tokens(count, longest, seed=0):
  rng = np.random.default_rng(seed)
  return [
    rng.integers(1, toy.VOCABULARY, rng.integers(1, longest + 1)).astype(
      np.int32
    )
    for _ in range(count)
  ]


@pytest.mark.parametrize(('count', 'longest'), [(1, 3), (50, 70), (400, 40)])
def test_vectors_come_in_the_order_of_the_texts(monkeypatch, count, longest):
  monkeypatch.setattr(encoding, '_BATCH_TOKENS', {'cpu': 320})
  monkeypatch.setattr(encoding, '_CHUNK', 150)
  tokens = ragged_tokens(count, longest)
  model, params = toy.ToyModel(), toy.make_params()
  found = encoding.document_vectors(
    model, params, lambda rows: [tokens[row] for row in rows], count, longest
  )
  table = params['encoder']['table']
  sums = np.stack([table[ids].sum(axis=0) for ids in tokens])
  expected = sums / np.linalg.norm(sums, axis=1, keepdims=True)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_few_shapes_are_compiled():
  shapes = set()

  @jax.jit
  def encode(tokens_BS):
    shapes.add(tokens_BS.shape)
    return tokens_BS[:, :1].astype(np.float32)

  tokens = ragged_tokens(3000, 128)
  encoding.encode_texts(
    encode, lambda rows: [tokens[row] for row in rows], 3000, 128
  )
  assert sorted(shapes) == [(16, 128), (21, 96), (32, 64), (64, 32)]


def test_a_text_longer_than_promised_is_refused():
  with pytest.raises(ValueError, match='9 tokens, more than 8'):
    encoding.encode_texts(lambda x: x, lambda rows: [np.ones(9)], 1, 8)


def test_codes_do_not_depend_on_the_batch(monkeypatch):
  index = toy.make_index(200)
  monkeypatch.setattr(encoding, '_VECTOR_BATCH', 64)
  codes_NL = encoding.assign_codes(
    toy.ToyModel(), toy.make_params(), index.vectors_ND
  )
  np.testing.assert_array_equal(codes_NL, index.codes_NL)


def test_the_pace_follows_the_tokens_and_ends_with_all(monkeypatch):
  shown = []

  class Pace(encoding.Pace):
    def show(self, done, share):
      shown.append((done, round(share, 3)))

  monkeypatch.setattr(encoding, 'Pace', Pace)
  monkeypatch.setattr(encoding, '_BATCH_TOKENS', {'cpu': 32})
  texts = [np.ones(size, np.int32) for size in (32, 8, 8, 8, 8)]
  encoding.encode_texts(
    lambda tokens_BS: tokens_BS[:, :1], lambda rows: [texts[r] for r in rows],
    5, 32,
  )  # fmt: skip
  assert shown == [(4, 0.5), (5, 1.0)]
