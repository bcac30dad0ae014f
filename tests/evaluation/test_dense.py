import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.evaluation.dense import ExactDense, exact_top_k
from gr_jax.types import NO_DOC, UserError


@settings(max_examples=25, deadline=None)
@given(
  documents=st.integers(1, 40),
  k=st.sampled_from([1, 7, 50]),
  block=st.sampled_from([3, 16, 64]),
  seed=st.integers(0, 2**16),
)
def test_top_k_equals_a_full_sort(documents, k, block, seed):
  rng = np.random.default_rng(seed)
  # Small integers: products are exact, and many are tied.
  queries_BD = rng.integers(-2, 3, (4, 3)).astype(np.float32)
  documents_ND = rng.integers(-2, 3, (documents, 3)).astype(np.float32)
  rows_BC, scores_BC = exact_top_k(queries_BD, documents_ND, k, block)
  products_BN = queries_BD @ documents_ND.T
  kept = min(k, documents)
  order_BN = np.argsort(-products_BN, axis=1, kind='stable')[:, :kept]
  assert rows_BC.shape == (4, k)
  np.testing.assert_array_equal(rows_BC[:, :kept], order_BN)
  np.testing.assert_array_equal(
    scores_BC[:, :kept], np.take_along_axis(products_BN, order_BN, axis=1)
  )
  assert (rows_BC[:, kept:] == NO_DOC).all()


def test_vectors_are_streamed_from_disk(tmp_path):
  rng = np.random.default_rng(0)
  vectors_ND = rng.normal(size=(1000, 8)).astype(np.float16)
  path = tmp_path / 'vectors.npy'
  np.save(path, vectors_ND)
  read = []

  class Watched:
    """A memmap that remembers how many rows were asked for at once."""

    shape, dtype = vectors_ND.shape, vectors_ND.dtype
    mapped = np.load(path, mmap_mode='r')

    def __len__(self):
      return 1000

    def __getitem__(self, key):
      read.append(key.stop - key.start)
      return self.mapped[key]

  ids = [str(n) for n in range(1000)]
  queries_BD = vectors_ND[:5].astype(np.float32)
  dense = ExactDense(lambda texts: queries_BD, Watched(), ids, block=64)
  found = dense.search(['x'] * 5, 10)
  assert max(read) == 64
  whole = ExactDense(lambda texts: queries_BD, vectors_ND, ids)
  np.testing.assert_array_equal(
    found.rows_BC, whole.search(['x'] * 5, 10).rows_BC
  )
  assert found.documents_scored_B.tolist() == [1000] * 5
  assert found.code_scores_B.tolist() == [0] * 5


def test_vectors_of_two_encoders_are_refused():
  with pytest.raises(UserError, match='3 wide and document vectors 4'):
    exact_top_k(np.zeros((1, 3)), np.zeros((2, 4)), 1)
  with pytest.raises(UserError, match='1 document ids and 2 vectors'):
    ExactDense(lambda texts: texts, np.zeros((2, 4)), ['a'])
