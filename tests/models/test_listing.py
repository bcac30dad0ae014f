"""Listed documents are scored as beam search scores them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers.residual import ResidualConfig
from gr_jax.models.bert import BertConfig
from gr_jax.models.cached_gradients import CachingRetriever, caching
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.listing import identifier_scores, listing
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.objectives.distillation import DistillationSettings
from gr_jax.types import NO_DOC

POSITIONS, CODES, DOCUMENTS, WIDTH, QUERIES = 3, (4, 6, 4), 7, 8, 2
LISTS = np.array(
  [
    [[3, 0, 6, 1], [3, 2, NO_DOC, NO_DOC]],
    [[5, 4, 3, 0], [NO_DOC] * 4],
  ],
  np.int32,
)
SETTINGS = DistillationSettings(loss='ranknet')


def config(**decoder):
  stack = T5Config(
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=0,
    num_decoder_layers=1,
    mlp_dim=16,
    dropout_rate=0.0,
  )
  return RetrieverConfig(
    encoder=BertConfig(
      vocab_size=16, emb_dim=8, num_heads=2, num_layers=1, mlp_dim=8,
      dropout_rate=0.0,
    ),
    indexer=ResidualConfig(positions=POSITIONS, codes=CODES),
    decoder=CodeDecoderConfig(stack=stack, **decoder),
    width=WIDTH,
    queue=8,
  )  # fmt: skip


def batch(**more):
  rng = np.random.default_rng(0)
  tokens = rng.integers(1, 16, (QUERIES, 5)).astype(np.int32)
  return {
    'query_tokens': tokens,
    'document_tokens': tokens[:, ::-1],
    'document_index': np.array([3, 5]),
    'list_index': LISTS,
    'list_scores': rng.normal(size=LISTS.shape).astype(np.float32),
    **more,
  }


def opened(parts):
  """A listing retriever, and parameters in which everything has a say."""
  model = listing(Retriever(parts, settled=True), SETTINGS)
  variables = model.init(
    {'params': jax.random.key(0), 'dropout': jax.random.key(1)},
    batch(),
    temperature=1.0,
    noise=0.0,
    deterministic=True,
  )
  params = dict(variables['params'])
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  leaves = [
    leaf + 0.3 * jax.random.normal(key, leaf.shape, leaf.dtype)
    if jnp.issubdtype(leaf.dtype, jnp.floating)
    else leaf
    for leaf, key in zip(leaves, keys, strict=True)
  ]
  params = jax.tree.unflatten(tree, leaves)
  rng = np.random.default_rng(4)
  codes_NL = rng.integers(0, CODES, (DOCUMENTS, POSITIONS)).astype(np.int32)
  # Document 1 has the identifier of 0, document 6 has none yet.
  codes_NL[1], codes_NL[6] = codes_NL[0], -1
  params['identifiers'] = {'table': jnp.asarray(codes_NL)}
  means = jnp.zeros((DOCUMENTS, WIDTH), jnp.float16)
  params['query_means'] = {'table': means}
  return model, {'params': params, 'usage': variables['usage']}, codes_NL


def run(model, variables, rows):
  outputs, _ = model.apply(
    variables,
    rows,
    temperature=1.0,
    noise=0.0,
    deterministic=True,
    rngs={'dropout': jax.random.key(0)},
    mutable=['usage'],
  )
  return outputs


@pytest.mark.parametrize(
  'decoder',
  [
    {'correction': 0.0},
    {'correction': 0.5},
    {'correction': 1.0, 'normalised': True, 'attends_tokens': True},
    {'tied': False, 'normalised': True},
  ],
)
def test_scores_are_those_of_decoding_step_by_step(decoder):
  model, variables, codes_NL = opened(config(**decoder))
  wanted_BW = np.array([[3, 0, 2], [5, 4, 0]])

  def both(model):
    queries = model.encode(batch()['query_tokens'])
    codes_BWL = jnp.asarray(codes_NL)[wanted_BW]
    at_once = identifier_scores(
      model, queries, codes_BWL.reshape(-1, POSITIONS)
    )
    state = model.start(queries, wanted_BW.shape[1])
    chosen_BW, stepped = jnp.zeros(wanted_BW.shape, jnp.int32), []
    for level in range(POSITIONS):
      scores_BWK, state = model.decode(state, chosen_BW, level)
      chosen_BW = codes_BWL[:, :, level]
      stepped.append(
        jnp.take_along_axis(scores_BWK, chosen_BW[..., None], axis=-1)[..., 0]
      )
    return at_once.reshape(*wanted_BW.shape, POSITIONS), jnp.stack(stepped, -1)

  at_once, stepped = jax.jit(
    lambda variables: model.apply(variables, method=both)
  )(variables)
  np.testing.assert_allclose(at_once, stepped, rtol=1e-4, atol=1e-4)


def test_lists_hold_scores_where_there_is_a_document_with_an_identifier():
  model, variables, codes_NL = opened(config(correction=0.5))
  found = run(model, variables, batch()).lists
  assert found.teaching == SETTINGS
  assert found.scores_BML.shape == (4, 4, POSITIONS)
  np.testing.assert_array_equal(
    found.real_BM,
    [
      [True, True, False, True],
      [True, True, False, False],
      [True, True, True, True],
      [False] * 4,
    ],
  )
  # One identifier, one score; one document, one score in all lists of a query.
  scores_BM = found.scores_BML.sum(axis=-1)
  assert scores_BM[0, 1] == pytest.approx(float(scores_BM[0, 3]), rel=1e-5)
  assert scores_BM[0, 0] == pytest.approx(float(scores_BM[1, 0]), rel=1e-5)
  np.testing.assert_array_equal(found.codes_BML[2], codes_NL[[5, 4, 3, 0]])
  assert found.dense_BM is None


def test_dense_scores_are_those_of_projected_vectors():
  model, variables, _ = opened(config())
  rng = np.random.default_rng(1)
  vectors = rng.normal(size=(*LISTS.shape, 8)).astype(np.float32)
  found = run(model, variables, batch(list_vectors=vectors)).lists
  projected = model.apply(
    variables, vectors.reshape(-1, 8), method='project'
  ).reshape(4, 4, WIDTH)
  queries = run(model, variables, batch()).query_vectors_BD
  expected = np.einsum('bd,bmd->bm', np.repeat(queries, 2, axis=0), projected)
  np.testing.assert_allclose(found.dense_BM, expected, atol=1e-5)


def test_all_that_decodes_learns_from_lists_and_documents_do_not_move():
  model, variables, _ = opened(config(correction=0.5))

  def loss(params):
    lists = run(model, {**variables, 'params': params}, batch()).lists
    return jnp.sum(lists.scores_BML * jnp.where(lists.real_BM, 1, 0)[..., None])

  trained = {
    name: value
    for name, value in variables['params'].items()
    if name not in ('identifiers', 'query_means')
  }
  fixed = {k: v for k, v in variables['params'].items() if k not in trained}
  slopes = jax.jit(jax.grad(lambda params: loss({**fixed, **params})))(trained)
  for name in ('encoder', 'projection', 'decoder', 'indexer'):
    assert any(np.any(g) for g in jax.tree.leaves(slopes[name])), name


def test_it_keeps_the_parameters_and_chunks_of_what_it_lists_for():
  parts = dataclasses.replace(config(), queue=0)
  chunked = listing(caching(Retriever(parts), 2), SETTINGS)
  assert isinstance(chunked, CachingRetriever) and chunked.chunks == 2
  assert not chunked.settled
