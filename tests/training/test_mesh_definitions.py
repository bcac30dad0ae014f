"""What criteria see under jit on a mesh is the batch of all devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers.sinkhorn import sinkhorn
from gr_jax.indexers.usage import CodeUsage
from gr_jax.objectives.balance import density_loss, position_entropy
from gr_jax.objectives.contrastive import info_nce_loss
from gr_jax.training.mesh import MeshSettings, active, make_mesh, put_batch

pytestmark = pytest.mark.mesh

# Rows are no other size here, so that a shape tells what it counts.
B, L, K, D, PARTS = 24, 2, 3, 5, 4
SIZES, TEMPERATURE, SCALE, ITERATIONS = (K,) * L, 0.1, 0.05, 30


def batch():
  """Vectors, codes and documents; two rows hold the same document."""
  rng = np.random.default_rng(0)

  def unit():
    x_BD = rng.normal(size=(B, D))
    return x_BD / np.linalg.norm(x_BD, axis=1, keepdims=True)

  logits_BLK = rng.normal(size=(B, L, K))
  probs_BLK = np.exp(logits_BLK)
  documents_B = np.arange(B, dtype=np.int32)
  documents_B[-1] = 0
  return {
    'queries': unit(),
    'documents': unit(),
    'probs': probs_BLK / probs_BLK.sum(axis=-1, keepdims=True),
    'scores': logits_BLK[:, 0],
    'numbers': documents_B,
  }


def measured(rows):
  """All that looks at more than a row, as our modules compute it."""
  probs_BLK, numbers_B = rows['probs'], rows['numbers']
  none = jnp.zeros((0, L), jnp.int32), jnp.zeros(0, jnp.int32)
  codes_BL = jnp.argmax(probs_BLK, axis=-1)
  _, used = CodeUsage(SIZES, 0).apply(
    {'usage': usage()}, codes_BL, numbers_B, method='update', mutable='usage'
  )
  return {
    'info_nce': info_nce_loss(
      rows['queries'], rows['documents'], numbers_B, TEMPERATURE, 'x'
    )[0],
    'entropy': position_entropy(probs_BLK),
    'density': density_loss(probs_BLK, numbers_B, SIZES, *none)[0],
    'sinkhorn': sinkhorn(rows['scores'], SCALE, ITERATIONS),
    'use': used['usage']['share'],
  }


def usage():
  return {
    'share': jnp.zeros((L, K)),
    'codes': jnp.zeros((0, L), jnp.int32),
    'documents': jnp.zeros(0, jnp.int32),
  }


def defined(rows):
  """The same by definition, in numpy, over the rows that are given."""
  numbers_B, probs_BLK = rows['numbers'], rows['probs']
  scores_BC = np.exp(rows['queries'] @ rows['documents'].T / TEMPERATURE)
  other_BC = numbers_B[:, None] != numbers_B[None]
  own_B = np.diagonal(scores_BC)
  total_B = own_B + np.sum(scores_BC * other_BC, axis=1)
  mean_LK = probs_BLK.mean(axis=0)
  same_BC = np.prod(np.einsum('BLK,CLK->BCL', probs_BLK, probs_BLK), axis=-1)
  scores_BK = rows['scores']
  high, low = scores_BK.max(), scores_BK.min()
  share_BK = np.exp((2 * scores_BK - high - low) / (high - low) / SCALE)
  for _ in range(ITERATIONS):
    share_BK /= share_BK.sum(axis=0, keepdims=True) * K / len(share_BK)
    share_BK /= share_BK.sum(axis=1, keepdims=True)
  used_LK = np.eye(K)[probs_BLK.argmax(axis=-1)].mean(axis=0)
  return {
    'info_nce': -np.mean(np.log(own_B / total_B)),
    'entropy': -np.sum(mean_LK * np.log(mean_LK), axis=-1),
    'density': np.log(same_BC[other_BC].mean()) + L * np.log(K),
    'sinkhorn': share_BK,
    'use': 0.01 * used_LK,
  }


def test_criteria_see_the_global_batch():
  rows = batch()
  with (
    jax.enable_x64(True),
    active(make_mesh(MeshSettings(data=2, fsdp=2, model=2))) as mesh,
  ):
    placed = put_batch(mesh, rows)
    for name, array in placed.items():
      part = array.addressable_shards[0].data.shape
      assert part == (B // PARTS, *rows[name].shape[1:])
    compiled = jax.jit(measured).lower(placed).compile()
    found = jax.device_get(compiled(placed))
  expected = defined(rows)
  # Of each device's part alone they would be something else.
  parts = {name: np.split(array, PARTS) for name, array in rows.items()}
  shares = [
    defined({name: split[i] for name, split in parts.items()})
    for i in range(PARTS)
  ]
  for name, value in expected.items():
    # A criterion keeps its logarithms finite by 1e-9.
    np.testing.assert_allclose(found[name], value, rtol=2e-6, err_msg=name)
    if name not in ('sinkhorn', 'use'):
      alone = np.mean([part[name] for part in shares], axis=0)
      assert not np.allclose(alone, value, rtol=1e-3), name
  # No device computes the scores of all pairs.
  shapes = set(re.findall(r'f64\[([\d,]+)\]', compiled.as_text()))
  assert f'{B // PARTS},{B}' in shapes and f'{B},{B}' not in shapes
