"""k-means, residual and product k-means, for codes to start from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.indexers.interface import squared_distances
from gr_jax.parameters import constrain


@functools.partial(jax.jit, static_argnames=('clusters', 'iterations'))
def kmeans(vectors_ND, rng, *, clusters, iterations, real=None):
  """Lloyd's k-means from random vectors; empty clusters are reseeded.

  An empty cluster takes the vector that is farthest from its own centre (the
  n-th empty cluster the n-th farthest), so that no code is dead while there
  are at least as many distinct vectors as clusters.

  Args:
    vectors_ND: float vectors.
    rng: key of the first centres.
    clusters: K.
    iterations: of Lloyd's algorithm.
    real: how many of the vectors, the first ones, are real (the others pad a
      shape that is compiled once); all when None.

  Returns:
    [K, D] centres and [N] int32 assignments to them.
  """
  # Each device of a mesh has some of the vectors; sums are over all of them.
  vectors_ND = constrain(vectors_ND.astype(jnp.float32), 'documents', None)
  count = vectors_ND.shape[0]
  weight_N = (jnp.arange(count) < (count if real is None else real)) * 1.0
  # Random order with the padding last; repeats only where centres outnumber.
  order_N = jnp.argsort(jax.random.uniform(rng, count) - weight_N)
  wrap = jnp.maximum(jnp.sum(weight_N), 1).astype(jnp.int32)
  first_K = order_N[jnp.arange(clusters) % jnp.minimum(wrap, count)]

  def assign(centres_KD):
    distances_NK = squared_distances(vectors_ND, centres_KD)
    return jnp.argmin(distances_NK, axis=-1), jnp.min(distances_NK, axis=-1)

  def step(centres_KD, _):
    nearest_N, distance_N = assign(centres_KD)
    sums_KD = (
      jnp.zeros_like(centres_KD)
      .at[nearest_N]
      .add(vectors_ND * weight_N[:, None])
    )
    sizes_K = jnp.zeros(clusters).at[nearest_N].add(weight_N)
    means_KD = sums_KD / jnp.maximum(sizes_K, 1)[:, None]
    empty_K = sizes_K == 0
    farthest_N = jnp.argsort(jnp.where(weight_N > 0, -distance_N, jnp.inf))
    place_K = jnp.cumsum(empty_K) - 1
    reseeded_KD = vectors_ND[farthest_N[jnp.clip(place_K, 0, wrap - 1)]]
    return jnp.where(empty_K[:, None], reseeded_KD, means_KD), None

  centres_KD, _ = jax.lax.scan(step, vectors_ND[first_K], length=iterations)
  return centres_KD, assign(centres_KD)[0].astype(jnp.int32)


def residual_kmeans(vectors_ND, rng, *, sizes, iterations=20):
  """Codebooks by k-means of what the earlier positions left.

  Args:
    vectors_ND: float vectors.
    rng: key of the first centres.
    sizes: codes of each position.
    iterations: of Lloyd's algorithm, each position.

  Returns:
    [L, K, D] codebooks, zero past a position's size, and [N, L] int32 codes.
  """
  residual_ND = jnp.asarray(vectors_ND, jnp.float32)
  codebooks, columns = [], []
  for key, codes in zip(jax.random.split(rng, len(sizes)), sizes, strict=True):
    codebook_KD, codes_N = kmeans(
      residual_ND, key, clusters=codes, iterations=iterations
    )
    residual_ND = residual_ND - codebook_KD[codes_N]
    codebooks.append(_padded(codebook_KD, max(sizes)))
    columns.append(codes_N)
  return jnp.stack(codebooks), jnp.stack(columns, axis=1)


def product_kmeans(vectors_ND, rng, *, sizes, rotations=0, iterations=20):
  """Codebooks by k-means of the parts of the (turned) vectors.

  Args:
    vectors_ND: float vectors; D is a multiple of the number of positions.
    rng: key of the first centres.
    sizes: codes of each position.
    rotations: rounds of fitting a rotation to what the codes stand for (OPQ,
      Ge et al., CVPR 2013, its non-parametric form); 0 for none.
    iterations: of Lloyd's algorithm, in each round.

  Returns:
    [L, K, D / L] codebooks, [N, L] int32 codes and the [D, D] rotation R; the
    parts are those of vectors @ R.
  """
  vectors_ND = jnp.asarray(vectors_ND, jnp.float32)
  width = vectors_ND.shape[1]
  turned_DD = jnp.eye(width)
  for turn in range(rotations + 1):
    parts = jnp.split(vectors_ND @ turned_DD, len(sizes), axis=1)
    found = [
      kmeans(part, key, clusters=codes, iterations=iterations)
      for part, key, codes in zip(
        parts, jax.random.split(rng, len(sizes)), sizes, strict=True
      )
    ]
    if turn == rotations:
      break
    stands_for_ND = jnp.concatenate([c[z] for c, z in found], axis=1)
    # Orthogonal Procrustes; a reflection is undone, Cayley has none.
    left_DD, _, right_DD = np.linalg.svd(
      np.asarray(vectors_ND.T @ stands_for_ND)
    )
    if np.linalg.det(left_DD @ right_DD) < 0:
      left_DD[:, -1] *= -1
    turned_DD = jnp.asarray(left_DD @ right_DD)
  codebooks_LKP = jnp.stack([_padded(c, max(sizes)) for c, _ in found])
  return codebooks_LKP, jnp.stack([z for _, z in found], axis=1), turned_DD


def _padded(codebook_KD, codes):
  """A codebook with zero rows up to `codes`."""
  return jnp.pad(codebook_KD, ((0, codes - len(codebook_KD)), (0, 0)))
