"""k-means in its forms finds what is there and comes closer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers.candidates import nearest_identifiers
from gr_jax.indexers.interface import absent_codes, squared_distances
from gr_jax.indexers.kmeans import kmeans, product_kmeans, residual_kmeans

WIDTH = 6


def points(count=60, width=WIDTH, seed=0):
  return jax.random.normal(jax.random.key(seed), (count, width))


def test_kmeans_finds_separate_groups_and_uses_every_centre():
  centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
  groups = np.repeat(np.arange(4), 25)
  near = centres[groups] + np.random.default_rng(0).normal(size=(100, 2))
  # Of a few first centres, as some end in a poorer place.
  found, nearest = min(
    (
      kmeans(jnp.asarray(near), jax.random.key(n), clusters=4, iterations=20)
      for n in range(4)
    ),
    key=lambda result: error(near, *result),
  )
  assert len(np.unique(nearest)) == 4
  for group in range(4):
    assert len(np.unique(nearest[groups == group])) == 1
  np.testing.assert_allclose(
    np.sort(np.asarray(found), axis=0), np.sort(centres, axis=0), atol=1
  )


def test_kmeans_with_fewer_vectors_than_clusters():
  few = jnp.eye(3)
  centres, nearest = kmeans(few, jax.random.key(0), clusters=8, iterations=5)
  assert np.all(np.isfinite(centres))
  np.testing.assert_allclose(centres[nearest], few, atol=1e-6)


def error(vectors, centres, nearest):
  return float(np.mean(np.sum((vectors - centres[nearest]) ** 2, axis=-1)))


def test_padding_takes_no_part():
  """Rows past `real` change neither centres nor what an empty cluster takes."""
  real = points(50)
  wild = jnp.full((14, WIDTH), 1e3)
  results = []
  for padding in (wild, 2 * wild, jnp.zeros_like(wild)):
    centres, nearest = kmeans(
      jnp.concatenate([real, padding]),
      jax.random.key(1),
      clusters=7,
      iterations=15,
      real=50,
    )
    results.append((np.asarray(centres), np.asarray(nearest[:50])))
  for centres, nearest in results[1:]:
    np.testing.assert_array_equal(centres, results[0][0])
    np.testing.assert_array_equal(nearest, results[0][1])
  centres, nearest = results[0]
  assert len(np.unique(nearest)) == 7
  for code in range(7):
    mean = np.mean(np.asarray(real)[nearest == code], axis=0)
    np.testing.assert_allclose(centres[code], mean, atol=0.6)
  # As good as without padding, from other first centres.
  plain = kmeans(real, jax.random.key(1), clusters=7, iterations=15)
  assert error(real, *results[0]) < 1.15 * error(real, *plain)


def test_padding_of_fewer_real_rows_than_clusters_is_never_a_centre():
  padded = jnp.concatenate([jnp.eye(WIDTH)[:3], jnp.full((5, WIDTH), 9.0)])
  centres, nearest = kmeans(
    padded, jax.random.key(0), clusters=4, iterations=5, real=3
  )
  assert np.max(centres) <= 1
  np.testing.assert_allclose(centres[nearest[:3]], padded[:3], atol=1e-6)


def test_residual_kmeans_comes_closer_with_every_position():
  vectors, sizes = points(300), (16, 5, 16, 9)
  books, codes = residual_kmeans(vectors, jax.random.key(1), sizes=sizes)
  assert books.shape == (4, 16, WIDTH)
  assert np.all(np.max(codes, axis=0) == np.array(sizes) - 1)
  np.testing.assert_array_equal(books[1, 5:], 0)
  nearest, _ = nearest_identifiers(vectors, books, absent_codes(sizes), 1)
  np.testing.assert_array_equal(codes, nearest[:, 0])
  residual, errors = vectors, []
  for t in range(4):
    residual = residual - books[t][codes[:, t]]
    errors.append(float(jnp.mean(jnp.sum(residual**2, axis=-1))))
  assert errors == sorted(errors, reverse=True)
  assert errors[-1] < errors[0] / 2


@pytest.fixture(scope='module')
def stretched():
  """Vectors whose parts say unequal amounts, until they are turned."""
  scale = jnp.array([3.0, 2.0, 1.0, 0.3, 0.1, 0.1])
  mixed = jax.random.orthogonal(jax.random.key(3), WIDTH)
  return (points(300) * scale[None]) @ mixed


def test_a_rotation_stays_one_and_lowers_the_error(stretched):
  errors = {}
  for rounds in (0, 8):
    books, codes, turned = product_kmeans(
      stretched, jax.random.key(2), sizes=(8, 4, 8), rotations=rounds
    )
    assert books.shape == (3, 8, WIDTH // 3)
    assert np.all(np.max(codes, axis=0) < np.array([8, 4, 8]))
    turned = np.asarray(turned, np.float64)
    np.testing.assert_allclose(turned @ turned.T, np.eye(WIDTH), atol=1e-5)
    assert np.linalg.det(turned) == pytest.approx(1, abs=1e-4)
    parts = [np.asarray(books)[t, codes[:, t]] for t in range(3)]
    left = np.asarray(stretched) @ turned - np.concatenate(parts, axis=1)
    errors[rounds] = np.mean(np.sum(left**2, axis=1))
  assert errors[8] < 0.95 * errors[0]


def test_product_codes_are_the_nearest_in_each_part(stretched):
  books, codes, _ = product_kmeans(
    stretched, jax.random.key(2), sizes=(8, 4, 8)
  )
  for t, part in enumerate(jnp.split(stretched, 3, axis=1)):
    book = books[t, : (8, 4, 8)[t]]
    nearest = jnp.argmin(squared_distances(part, book), axis=-1)
    np.testing.assert_array_equal(codes[:, t], nearest)


def test_distances_are_as_exact_on_an_accelerator_as_on_a_cpu():
  """A CPU computes in float32 whatever it is asked for: read the program."""
  traced = jax.make_jaxpr(squared_distances)(points(), points())
  (product,) = (e for e in traced.eqns if e.primitive.name == 'dot_general')
  assert set(product.params['precision']) == {jax.lax.Precision.HIGHEST}
