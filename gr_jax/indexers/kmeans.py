"""k-means and residual k-means, for codebooks to start from."""

import functools

import jax
import jax.numpy as jnp

from gr_jax.indexers.residual import squared_distances


@functools.partial(jax.jit, static_argnames=('clusters', 'iterations'))
def kmeans(vectors_ND, rng, *, clusters, iterations):
  """Lloyd's k-means from random vectors; empty clusters are reseeded.

  An empty cluster takes the vector that is farthest from its own centre (the
  n-th empty cluster the n-th farthest), so that no code is dead while there
  are at least as many distinct vectors as clusters.

  Args:
    vectors_ND: float vectors.
    rng: key of the first centres.
    clusters: K.
    iterations: of Lloyd's algorithm.

  Returns:
    [K, D] centres and [N] int32 assignments to them.
  """
  vectors_ND = vectors_ND.astype(jnp.float32)
  count = vectors_ND.shape[0]
  first_K = jax.random.choice(rng, count, (clusters,), replace=count < clusters)

  def assign(centres_KD):
    distances_NK = squared_distances(vectors_ND, centres_KD)
    return jnp.argmin(distances_NK, axis=-1), jnp.min(distances_NK, axis=-1)

  def step(centres_KD, _):
    nearest_N, distance_N = assign(centres_KD)
    sums_KD = jnp.zeros_like(centres_KD).at[nearest_N].add(vectors_ND)
    sizes_K = jnp.zeros(clusters).at[nearest_N].add(1.0)
    means_KD = sums_KD / jnp.maximum(sizes_K, 1)[:, None]
    empty_K = sizes_K == 0
    farthest_N = jnp.argsort(-distance_N)
    order_K = jnp.clip(jnp.cumsum(empty_K) - 1, 0, count - 1)
    reseeded_KD = vectors_ND[farthest_N[order_K]]
    return jnp.where(empty_K[:, None], reseeded_KD, means_KD), None

  centres_KD, _ = jax.lax.scan(step, vectors_ND[first_K], length=iterations)
  return centres_KD, assign(centres_KD)[0].astype(jnp.int32)


def residual_kmeans(vectors_ND, rng, *, positions, codes, iterations=20):
  """Codebooks by k-means of what the earlier positions left.

  Args:
    vectors_ND: float vectors.
    rng: key of the first centres.
    positions: L.
    codes: K.
    iterations: of Lloyd's algorithm, each position.

  Returns:
    [L, K, D] codebooks and [N, L] int32 codes.
  """
  residual_ND = jnp.asarray(vectors_ND, jnp.float32)
  codebooks, columns = [], []
  for key in jax.random.split(rng, positions):
    codebook_KD, codes_N = kmeans(
      residual_ND, key, clusters=codes, iterations=iterations
    )
    residual_ND = residual_ND - codebook_KD[codes_N]
    codebooks.append(codebook_KD)
    columns.append(codes_N)
  return jnp.stack(codebooks), jnp.stack(columns, axis=1)
