"""Static identifiers from vectors: what is alike shares its first codes."""

import jax
import numpy as np

from gr_jax.indexers.kmeans import kmeans, product_kmeans, residual_kmeans

# Documents that share out the codes of balanced k-means among themselves.
_BALANCED_CHUNK = 65_536
_ITERATIONS = 20


def cluster_identifiers(config, vectors_ND, seed):
  """Identifiers of the documents of a corpus, from their vectors.

  Args:
    config: StaticConfig of a kind that clusters.
    vectors_ND: what is clustered.
    seed: of the first centres.

  Returns:
    [N, L] int32 codes.
  """
  rng = jax.random.key(seed)
  sizes = config.code_sizes
  vectors_ND = np.asarray(vectors_ND, np.float32)
  if config.kind == 'hierarchical_kmeans':
    return hierarchical_kmeans(vectors_ND, rng, sizes)
  if config.kind == 'balanced_kmeans':
    return balanced_kmeans(vectors_ND, rng, sizes)
  if config.kind == 'pq':
    return np.asarray(product_kmeans(vectors_ND, rng, sizes=sizes)[1])
  return np.asarray(residual_kmeans(vectors_ND, rng, sizes=sizes)[1])


def hierarchical_kmeans(vectors_ND, rng, sizes):
  """k-means within the clusters of the position before (DSI, arXiv 2202.06991).

  A cluster of at most K documents numbers them; a document that is alone has
  zeros from there on. The last position's clusters share an identifier.

  Args:
    vectors_ND: float vectors.
    rng: key of the first centres.
    sizes: codes of each position.

  Returns:
    [N, L] int32 codes.
  """
  codes_NL = np.zeros((len(vectors_ND), len(sizes)), np.int32)
  groups = [np.arange(len(vectors_ND))]
  for level, clusters in enumerate(sizes):
    below = []
    for number, rows in enumerate(groups):
      if len(rows) <= clusters:
        codes_NL[rows, level] = np.arange(len(rows))
        continue
      key = jax.random.fold_in(jax.random.fold_in(rng, level), number)
      # Few shapes are compiled: the rows are padded to a power of two.
      room = 1 << (len(rows) - 1).bit_length()
      padded_ND = np.zeros((room, vectors_ND.shape[1]), np.float32)
      padded_ND[: len(rows)] = vectors_ND[rows]
      _, codes_N = kmeans(
        padded_ND,
        key,
        clusters=clusters,
        iterations=_ITERATIONS,
        real=len(rows),
      )
      codes_NL[rows, level] = np.asarray(codes_N)[: len(rows)]
      order_N = np.argsort(codes_NL[rows, level], kind='stable')
      cuts = np.flatnonzero(np.diff(codes_NL[rows[order_N], level])) + 1
      below += [part for part in np.split(rows[order_N], cuts) if len(part) > 1]
    groups = below
  return codes_NL


def balanced_kmeans(vectors_ND, rng, sizes):
  """Residual k-means whose codes get an equal share of the documents.

  Size-constrained k-means, as GenRet (arXiv 2304.04171) starts from: Lloyd's
  iterations whose assignment is `balanced_assignment`.

  Args:
    vectors_ND: float vectors.
    rng: key of the first centres.
    sizes: codes of each position.

  Returns:
    [N, L] int32 codes.
  """
  residual_ND = np.array(vectors_ND, np.float32)
  columns = []
  for key, codes in zip(jax.random.split(rng, len(sizes)), sizes, strict=True):
    centres_KD = np.array(
      kmeans(residual_ND, key, clusters=codes, iterations=_ITERATIONS)[0]
    )
    for _ in range(_ITERATIONS // 2):
      codes_N = _balanced_codes(residual_ND, centres_KD)
      centres_KD = _means(residual_ND, codes_N, codes)
    codes_N = _balanced_codes(residual_ND, centres_KD)
    residual_ND = residual_ND - centres_KD[codes_N]
    columns.append(codes_N)
  return np.stack(columns, axis=1).astype(np.int32)


def _balanced_codes(vectors_ND, centres_KD):
  """[N] balanced assignment of vectors to centres, chunk by chunk."""
  squares_K = np.sum(centres_KD**2, axis=1)
  parts = []
  for start in range(0, len(vectors_ND), _BALANCED_CHUNK):
    chunk_ND = vectors_ND[start : start + _BALANCED_CHUNK]
    parts.append(
      balanced_assignment(2 * chunk_ND @ centres_KD.T - squares_K[None])
    )
  return np.concatenate(parts)


def balanced_assignment(scores_NK):
  """Gives every code an equal share of the rows, the best fitting first.

  Rows propose to the best code with room left; a code takes those that would
  lose most by going elsewhere. Within one row of an equal share.

  Args:
    scores_NK: higher is better.

  Returns:
    [N] int codes, each used by at most ceil(N / K) rows.
  """
  scores_NK = np.array(scores_NK, np.float32)
  count, codes = scores_NK.shape
  room_K = np.full(codes, -(-count // codes))
  assigned_N = np.full(count, -1)
  waiting = np.arange(count)
  while len(waiting):
    open_NK = scores_NK[waiting]
    best_N = np.argmax(open_NK, axis=1)
    top_N = open_NK[np.arange(len(waiting)), best_N]
    open_NK[np.arange(len(waiting)), best_N] = -np.inf
    loss_N = top_N - np.max(open_NK, axis=1)
    # By code, and within a code by what a refusal would cost.
    order_N = np.lexsort((-loss_N, best_N))
    sorted_N = best_N[order_N]
    first_N = np.searchsorted(sorted_N, sorted_N)
    taken_N = np.arange(len(sorted_N)) - first_N < room_K[sorted_N]
    rows = waiting[order_N[taken_N]]
    assigned_N[rows] = sorted_N[taken_N]
    room_K -= np.bincount(sorted_N[taken_N], minlength=codes)
    scores_NK[:, room_K == 0] = -np.inf
    waiting = np.flatnonzero(assigned_N < 0)
  return assigned_N


def _means(vectors_ND, codes_N, codes):
  """[K, D] mean vector of each code's rows, zero where it has none."""
  sums_KD = np.zeros((codes, vectors_ND.shape[1]), np.float32)
  np.add.at(sums_KD, codes_N, vectors_ND)
  counts_K = np.bincount(codes_N, minlength=codes)
  return sums_KD / np.maximum(counts_K, 1)[:, None]


def codewords_of(codes_NL, vectors_ND, codes):
  """What given codes stand for: the mean of what the codes before left.

  Of residual k-means' codes these are its centroids.

  Args:
    codes_NL: int identifiers.
    vectors_ND: of the same documents.
    codes: K, of the largest position.

  Returns:
    [L, K, D] codewords; those of unused codes are zero.
  """
  residual_ND = np.array(vectors_ND, np.float32)
  codebooks = []
  for codes_N in np.asarray(codes_NL).T:
    codebook_KD = _means(residual_ND, codes_N, codes)
    residual_ND -= codebook_KD[codes_N]
    codebooks.append(codebook_KD)
  return np.stack(codebooks)
