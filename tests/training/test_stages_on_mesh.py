"""Stages begin on a mesh as on one device: vectors, k-means, candidates."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_step import MODEL, SETTINGS

from gr_jax.indexers.kmeans import kmeans
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.models.retriever import Retriever
from gr_jax.retrieval import encoding
from gr_jax.training.initial import init_params, make_state
from gr_jax.training.mesh import (
  MeshSettings,
  active,
  make_mesh,
  shardings_for,
)
from gr_jax.training.optimizer import make_optimizer
from gr_jax.training.stages import begin_stage

pytestmark = pytest.mark.soak

DOCUMENTS = 50
MESH = MeshSettings(data=2, fsdp=2, model=2)


def groups(count=DOCUMENTS):
  """Vectors in four groups that no rounding confuses, and fewer queries."""
  rng = np.random.default_rng(0)
  centres = np.eye(8, dtype=np.float32)[:4]
  vectors = centres[np.arange(count) % 4]
  vectors = vectors + 0.05 * rng.normal(size=(count, 8)).astype(np.float32)
  return vectors, vectors[::3] + np.float32(0.01)


def begun(model, settings, mesh_settings, devices):
  """The state after the beginnings of the stages 'codes' and 'settled'."""
  vectors, queries = groups()

  def project(params, pooled):
    return encoding.project_vectors(model, params, pooled)

  texts = types.SimpleNamespace(
    prepared=types.SimpleNamespace(
      document_ids=[f'd{n}' for n in range(DOCUMENTS)]
    ),
    documents=lambda params: project(params, vectors),
    training_queries=lambda params: (
      project(params, queries),
      np.arange(DOCUMENTS, dtype=np.int32)[::3],
    ),
    candidates=lambda params: encoding.candidate_codes(
      model, params, project(params, vectors)
    ),
  )
  optimizer = make_optimizer(SETTINGS.optimizer, SETTINGS.steps)
  params, axes, usage = init_params(model, 0, DOCUMENTS)
  mesh = make_mesh(mesh_settings, jax.devices()[:devices])
  with active(mesh):
    state = make_state(params, usage, optimizer, False)
    state = jax.device_put(state, shardings_for(mesh, axes, state))
    before = jax.tree.map(lambda x: x.sharding, state)
    for stage in ('codes', 'settled'):
      state = begin_stage(stage, settings, texts, optimizer, state)
  assert jax.tree.map(lambda x: x.sharding, state) == before
  return state


def test_stages_begin_alike():
  indexer = ResidualConfig(positions=2, codes=4)
  config = dataclasses.replace(MODEL.config, indexer=indexer, room=0.0)
  settings = types.SimpleNamespace(model=config, seed=0)
  model = Retriever(config)
  one = begun(model, settings, MeshSettings(), 1)
  spread = begun(model, settings, MESH, 8)
  np.testing.assert_array_equal(
    one.frozen['identifiers']['table'], spread.frozen['identifiers']['table']
  )
  for name, leaf in one.params['indexer'].items():
    np.testing.assert_allclose(
      leaf, spread.params['indexer'][name], atol=1e-6, err_msg=name
    )
  codebooks = spread.params['indexer']['codebooks']
  assert not codebooks.sharding.is_fully_replicated


def test_kmeans_of_all_devices_is_that_of_one():
  vectors, _ = groups(DOCUMENTS + 3)  # No multiple of any mesh.
  arguments = {'clusters': 4, 'iterations': 5}
  centres, codes = kmeans(vectors, jax.random.key(0), **arguments)
  with active(make_mesh(MESH)):
    spread, spread_codes = kmeans(vectors, jax.random.key(0), **arguments)
  np.testing.assert_array_equal(codes, spread_codes)
  np.testing.assert_allclose(centres, spread, atol=1e-6)


def test_each_device_works_for_some_of_the_rows():
  config = MODEL.config
  params, _, _ = init_params(MODEL, 0, DOCUMENTS)
  vectors, _ = groups(16)
  numbers = np.arange(16, dtype=np.int32)
  with active(make_mesh(MESH)):
    call = encoding._apply.lower(MODEL, 'candidates', params, vectors, numbers)
    codes, costs = call.compile().output_shardings
    shape = (16, config.assign_beams, config.positions)
    assert codes.shard_shape(shape)[0] == 16 // 4
    assert costs.shard_shape(shape[:2])[0] == 16 // 4


def test_batches_of_texts_divide_over_the_devices():
  tokens = [np.full(1 + n % 7, 1 + n % 5, np.int32) for n in range(600)]
  sizes = []

  def encode(tokens_BS):
    sizes.append(len(tokens_BS))
    return jnp.sum(tokens_BS, axis=1, keepdims=True)

  def read(rows):
    return [tokens[row] for row in rows]

  one = encoding.encode_texts(encode, read, len(tokens), 64)
  alone, sizes[:] = list(sizes), []
  with active(make_mesh(MESH)):
    spread = encoding.encode_texts(encode, read, len(tokens), 64)
  assert all(size % 4 == 0 for size in sizes)
  assert max(sizes) == 4 * max(alone)
  np.testing.assert_array_equal(one, spread)
  np.testing.assert_array_equal(one[:, 0], [t.sum() for t in tokens])
