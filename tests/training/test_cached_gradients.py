"""A batch that is encoded in chunks trains as one that is encoded at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers.residual import ResidualConfig
from gr_jax.indexers.tables import TABLES
from gr_jax.models.bert import BertConfig
from gr_jax.models.cached_gradients import CachingRetriever, caching
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.encoder import EncoderOutput
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.objectives.weighted_sum import ObjectiveSettings, objective, only
from gr_jax.training.initial import init_params
from gr_jax.training.mesh import (
  MeshSettings,
  active,
  make_mesh,
  put_batch,
  shardings_for,
)
from gr_jax.types import UserError

ROWS, CHUNKS = 8, 4
ALL = ObjectiveSettings()
# Quicker to compile.
VECTORS = only(ALL, 'bottleneck')
T5 = T5Config(
  vocab_size=20,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  num_encoder_layers=1,
  num_decoder_layers=1,
  mlp_dim=16,
)
BERT = BertConfig(
  vocab_size=20, emb_dim=8, num_heads=2, num_layers=1, mlp_dim=16
)


class InPieces(Retriever):
  """Encodes chunk after chunk without a loop, and keeps all there is to keep.

  Its draws are those of gradient caching.
  """

  def backbone(self, tokens_BS, deterministic=True):
    keys = [None] * CHUNKS
    if not deterministic:
      keys = jax.random.split(self.encoder.make_rng('dropout'), CHUNKS)
    variables = {'params': self.encoder.variables['params']}
    encoder = self.encoder.clone(parent=None)
    found = [
      encoder.apply(
        variables,
        tokens_BS[chunk::CHUNKS],
        deterministic=deterministic,
        rngs=None if deterministic else {'dropout': keys[chunk]},
      )
      for chunk in range(CHUNKS)
    ]
    order = np.argsort(
      np.concatenate([np.arange(ROWS)[c::CHUNKS] for c in range(CHUNKS)])
    )
    return jax.tree.map(lambda *x: jnp.concatenate(x)[order], *found)


def config(encoder, dropout_rate, attends_tokens):
  return RetrieverConfig(
    encoder=dataclasses.replace(encoder, dropout_rate=dropout_rate),
    indexer=ResidualConfig(positions=2, codes=4),
    decoder=CodeDecoderConfig(stack=T5, attends_tokens=attends_tokens),
    width=8,
    queue=8,
  )


def batch():
  tokens = jax.random.randint(jax.random.key(0), (3, ROWS, 6), 1, 20)
  return {
    'query_tokens': tokens[0].at[:, 4:].set(0),
    'document_tokens': tokens[1],
    'document_index': jnp.arange(ROWS),
    'negative_tokens': tokens[2][:, None],
    'negative_index': jnp.arange(ROWS)[::-1, None],
  }


def loss_and_gradients(model, settings, mesh=None):
  """Of a batch, with noise of codes and dropout of the decoder."""
  params, axes, usage = init_params(Retriever(model.config), 0, ROWS)
  tables = {k: v for k, v in params.items() if k in TABLES}
  trained = {k: v for k, v in params.items() if k not in TABLES}

  def loss(trained, rows):
    outputs, _ = model.apply(
      {'params': {**tables, **trained}, 'usage': usage},
      rows,
      temperature=0.5,
      noise=0.5,
      deterministic=False,
      rngs={'dropout': jax.random.key(3)},
      mutable=['usage'],
    )
    sizes = model.config.code_sizes
    return objective(outputs, rows['document_index'], sizes, settings, 0.5)

  rows = batch()
  if mesh is not None:
    trained = jax.device_put(trained, shardings_for(mesh, axes, trained))
    rows = put_batch(mesh, jax.tree.map(np.asarray, rows))
  return jax.jit(jax.value_and_grad(loss, has_aux=True))(trained, rows)


def assert_same(one, other):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    one,
    other,
  )


def test_losses_and_gradients_are_those_of_the_whole_batch():
  parts = config(T5, 0.0, attends_tokens=True)
  whole = loss_and_gradients(Retriever(parts), ALL)
  chunked = loss_and_gradients(caching(Retriever(parts), CHUNKS), ALL)
  assert_same(whole, chunked)
  # Every criterion is looked at, and the encoder learns from it.
  assert {'generation', 'bottleneck', 'density'} < set(whole[0][1])
  assert any(np.any(g) for g in jax.tree.leaves(whole[1]['encoder']))


@pytest.mark.soak
def test_chunks_on_a_mesh_are_the_whole_batch_on_one_device():
  parts = config(T5, 0.0, attends_tokens=False)
  whole = loss_and_gradients(Retriever(parts), VECTORS)
  with active(make_mesh(MeshSettings(data=2, fsdp=2, model=2))) as mesh:
    spread = loss_and_gradients(caching(Retriever(parts), 2), VECTORS, mesh)
  assert_same(whole, spread)
  kernel = spread[1]['encoder']['encoder']['layers_0']['mlp']['wo']['kernel']
  assert kernel.sharding.shard_shape(kernel.shape) == (8, 4)


@pytest.mark.soak
def test_dropout_is_the_same_when_a_chunk_is_encoded_again():
  parts = config(BERT, 0.5, attends_tokens=False)
  kept = loss_and_gradients(InPieces(parts), VECTORS)
  chunked = loss_and_gradients(caching(Retriever(parts), CHUNKS), VECTORS)
  assert_same(kept, chunked)


def test_each_chunk_has_dropout_of_its_own_and_rows_keep_their_places():
  parts = config(T5, 0.5, attends_tokens=True)
  model = caching(Retriever(parts), CHUNKS)
  params, _, _ = init_params(Retriever(parts), 0, ROWS)
  tokens_BS = jnp.tile(jnp.arange(1, 7)[None], (ROWS, 1))

  def encoded(tokens_BS, deterministic):
    return model.apply(
      {'params': params},
      tokens_BS,
      deterministic,
      method='backbone',
      rngs={'dropout': jax.random.key(0)},
    )

  dropped = encoded(tokens_BS, False)
  assert isinstance(dropped, EncoderOutput)
  assert len(np.unique(dropped.pooled_BE, axis=0)) == ROWS
  plain = Retriever(parts).apply(
    {'params': params}, batch()['query_tokens'], method='backbone'
  )
  assert_same(plain, encoded(batch()['query_tokens'], True))


def test_texts_that_do_not_divide_are_refused():
  model = CachingRetriever(config(BERT, 0.0, False), chunks=3)
  params, _, _ = init_params(Retriever(model.config), 0, ROWS)
  with pytest.raises(UserError, match='8 texts cannot be encoded in 3 equal'):
    model.apply({'params': params}, batch()['query_tokens'], method='encode')
