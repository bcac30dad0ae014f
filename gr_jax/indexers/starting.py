"""What the codes of each kind start from, once vectors have been trained."""

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.indexers.clusterings import (
  balanced_kmeans,
  cluster_identifiers,
  codewords_of,
)
from gr_jax.indexers.kmeans import product_kmeans, residual_kmeans
from gr_jax.indexers.neural import NeuralConfig
from gr_jax.indexers.numberings import number_identifiers
from gr_jax.indexers.product import ProductConfig
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.indexers.static import NUMBERINGS, StaticConfig
from gr_jax.types import UserError, check_option

# Vectors that k-means sees: more change the centres little and cost memory.
KMEANS_SAMPLE = 262_144
# Sharing out more takes minutes; the codebooks learn from all of them.
BALANCED_SAMPLE = 8_192
INITIALISATIONS = ('coded', 'documents', 'queries', 'half', 'none')
# Rounds of fitting OPQ's rotation; later ones change it little.
_ROTATIONS = 8


def initialisation(config):
  """What codes start from, of `INITIALISATIONS`; 'none' for nothing."""
  if isinstance(config, StaticConfig):
    if config.kind in NUMBERINGS:
      return 'none'
    if config.kind == 'bottleneck_minimal':
      return 'queries'
  kind = config.initialisation
  place = f'{type(config).__name__}.initialisation'
  check_option(place, kind, INITIALISATIONS)
  return kind


def query_means(query_vectors, documents_of_queries, shape):
  """The mean direction of each document's training queries.

  Args:
    query_vectors: [Q, D] unit vectors of training queries.
    documents_of_queries: [Q] int document of each.
    shape: (N, D).

  Returns:
    [N, D] unit vectors, zero for a document without a query.
  """
  sums_ND = np.zeros(shape, np.float32)
  if len(query_vectors):
    np.add.at(sums_ND, documents_of_queries, np.asarray(query_vectors))
  lengths_N1 = np.linalg.norm(sums_ND, axis=1, keepdims=True)
  return sums_ND / np.maximum(lengths_N1, 1e-6)


def starting_vectors(documents_ND, means_ND, kind, query_share):
  """What k-means clusters: documents, their queries, or a mix of both.

  Clustering on the queries is bottleneck-minimal indexing (arXiv 2405.10974);
  mixing is our reconstruction. A document without a query stands for itself.

  Args:
    documents_ND: unit vectors.
    means_ND: from `query_means`.
    kind: of `INITIALISATIONS`, but not 'none'.
    query_share: RetrieverConfig.query_share, for 'coded'.

  Returns:
    [N, D] unit vectors.
  """
  documents_ND = np.asarray(documents_ND, np.float32)
  shares = {'documents': 0.0, 'queries': 1.0, 'half': 0.5, 'coded': query_share}
  mixed_ND = (1 - shares[kind]) * documents_ND + shares[kind] * means_ND
  asked_N1 = np.any(means_ND, axis=1, keepdims=True)
  mixed_ND = np.where(asked_N1, mixed_ND, documents_ND)
  lengths_N1 = np.linalg.norm(mixed_ND, axis=1, keepdims=True)
  return mixed_ND / np.maximum(lengths_N1, 1e-6)


def starting_params(config, vectors_ND, document_ids, seed):
  """Parameters of an indexer before its first step.

  Args:
    config: of the indexer.
    vectors_ND: from `starting_vectors`; None for kinds that start from none.
      Every n-th is clustered for learned kinds, when there are more than
      `KMEANS_SAMPLE` (`BALANCED_SAMPLE` where shares are equal).
    document_ids: the collection's ids.
    seed: of k-means and of random identifiers.

  Returns:
    {'indexer': arrays in place of those drawn}, with {'identifiers':
    {'table': [N, L]}} for static kinds.
  """
  if isinstance(config, StaticConfig):
    if config.kind in NUMBERINGS:
      codes_NL = number_identifiers(config, document_ids, seed)
      # Codewords without meaning learn best from where they were drawn.
      return {'indexer': {}, 'identifiers': {'table': codes_NL}}
    codes_NL = cluster_identifiers(config, vectors_ND, seed)
    codebooks_LKD = codewords_of(codes_NL, vectors_ND, max(config.code_sizes))
    return {
      'indexer': {'codebooks': codebooks_LKD},
      'identifiers': {'table': codes_NL},
    }
  if vectors_ND is None:
    return {'indexer': {}}
  sample_ND = _every(vectors_ND, KMEANS_SAMPLE)
  key, sizes = jax.random.key(seed), config.code_sizes
  if isinstance(config, ProductConfig):
    return {'indexer': _product(config, sample_ND, key)}
  if isinstance(config, NeuralConfig) and not config.conditioned:
    codebooks_LKD = _whole_product(sample_ND, key, sizes)
  elif isinstance(config, ResidualConfig) and config.balanced:
    sample_ND = _every(vectors_ND, BALANCED_SAMPLE)
    codes_NL = balanced_kmeans(sample_ND, key, sizes)
    codebooks_LKD = codewords_of(codes_NL, sample_ND, max(sizes))
  else:
    codebooks_LKD, _ = residual_kmeans(sample_ND, key, sizes=sizes)
  params = {'codebooks': codebooks_LKD}
  if isinstance(config, NeuralConfig):
    params['keys'] = codebooks_LKD
    params['bias'] = jnp.sum(codebooks_LKD**2, axis=-1)
  return {'indexer': params}


def _every(vectors_ND, most):
  """Every n-th of the vectors, at most so many."""
  return vectors_ND[:: -(-len(vectors_ND) // most)]


def _product(config, vectors_ND, key):
  """Values, keys and rotation of OPQ (of PQ without a rotation)."""
  values_LKP, _, turned_DD = product_kmeans(
    vectors_ND,
    key,
    sizes=config.code_sizes,
    rotations=_ROTATIONS if config.rotation else 0,
  )
  params = {'codebooks': values_LKP}
  if not config.tied:
    params['keys'] = values_LKP
  if config.rotation:
    # The Cayley transform is its own inverse.
    eye_DD = np.eye(len(turned_DD))
    params['skew'] = np.linalg.solve(
      eye_DD + np.asarray(turned_DD, np.float64), eye_DD - turned_DD
    ).astype(np.float32)
  return params


def _whole_product(vectors_ND, key, sizes):
  """[L, K, D] codewords of product k-means, zero outside their parts."""
  if vectors_ND.shape[1] % len(sizes):
    raise UserError(
      f'product k-means cuts vectors of {vectors_ND.shape[1]} into '
      f'{len(sizes)} parts: choose positions that divide it, or set '
      'NeuralConfig.conditioned = True'
    )
  codebooks_LKP, _, _ = product_kmeans(vectors_ND, key, sizes=sizes)
  part = codebooks_LKP.shape[-1]
  whole_LKD = np.zeros((*codebooks_LKP.shape[:2], vectors_ND.shape[1]))
  for t, values_KP in enumerate(codebooks_LKP):
    whole_LKD[t, :, t * part : (t + 1) * part] = values_KP
  return jnp.asarray(whole_LKD, jnp.float32)
