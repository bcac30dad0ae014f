"""What an index keeps of the documents that a model was trained with."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest
import toy_retriever as toy

from gr_jax.retrieval.building import build_index
from gr_jax.retrieval.encoding import assign_codes


@dataclasses.dataclass(frozen=True)
class Moving(toy.ToyModel):
  """Queries are known of the second document alone."""

  ranks_moved: bool = True

  def moved(self, params, vectors_BD, documents_B):
    del params
    return jnp.where(documents_B[:, None] == 1, -vectors_BD, vectors_BD)

  @property
  def config(self):
    return types.SimpleNamespace(
      code_sizes=(toy.CODES,) * toy.POSITIONS, ranks_moved=self.ranks_moved
    )


@pytest.mark.parametrize('ranks_moved', [False, True])
def test_an_index_ranks_documents_near_their_queries_when_told(ranks_moved):
  model, params = Moving(ranks_moved), toy.make_params()
  rng = np.random.default_rng(0)
  vectors_ND = rng.normal(size=(5, toy.WIDTH)).astype(np.float32)
  vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
  names = list('abcde')
  index = build_index(
    model, params, vectors_ND, 'float32', names, [''] * 5, [''] * 5
  )
  signs_N = np.array([1, -1 if ranks_moved else 1, 1, 1, 1])[:, None]
  np.testing.assert_array_equal(index.vectors_ND, signs_N * vectors_ND)
  # Identifiers are of the documents; the model moves what they code itself.
  np.testing.assert_array_equal(
    index.codes_NL, assign_codes(model, params, vectors_ND)
  )
