"""The query generator: a T5 where it is one, and what its steps give."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_models

from gr_jax import run_generator, text_run_settings
from gr_jax.models import import_weights
from gr_jax.models.bert import BertConfig
from gr_jax.models.query_generator import GeneratorConfig, QueryGenerator
from gr_jax.models.t5 import T5Config
from gr_jax.models.t5_text import T5
from gr_jax.types import UserError

VOCABULARY, START, END = 19, 2, 3
BERT = BertConfig(
  vocab_size=VOCABULARY, emb_dim=12, num_heads=2, num_layers=1, mlp_dim=16,
  max_length=16,
)  # fmt: skip
DECODER = T5Config(
  vocab_size=VOCABULARY, emb_dim=8, num_heads=2, head_dim=4,
  num_encoder_layers=0, num_decoder_layers=2, mlp_dim=16,
  logits_via_embedding=True,
)  # fmt: skip
COPYING = GeneratorConfig(
  encoder=BERT, decoder=DECODER, pointer=True, queries_per_document=2,
  start=START, end=END,
)  # fmt: skip
DOCUMENTS = np.array(
  [[2, 9, 12, 9, 7, 3], [2, 5, 3, 0, 0, 0]], np.int32
)  # fmt: skip
QUERIES = np.array(
  [[[2, 9, 7, 3, 0], [2, 12, 3, 0, 0]], [[2, 5, 14, 6, 3], [0, 0, 0, 0, 0]]],
  np.int32,
)
BATCH = {'document_tokens': DOCUMENTS, 'query_tokens': QUERIES}


def params_of(config):
  """Random parameters, large enough that a wrong token shows."""
  model = QueryGenerator(config)
  shapes = jax.eval_shape(
    lambda key: model.init(key, BATCH, True, method='loss'), jax.random.key(0)
  )
  random = np.random.default_rng(0)
  return model, jax.tree.map(
    lambda leaf: 0.5 * random.standard_normal(leaf.shape, np.float32),
    shapes['params'],
  )


def log_probs(model, params, documents_BS, queries_BWL):
  rows_RL = queries_BWL.reshape(-1, queries_BWL.shape[-1])
  return model.apply(
    {'params': params},
    documents_BS,
    rows_RL[:, :-1],
    rows_RL[:, 1:],
    method='log_probs',
  )


def by_steps(model, params, documents_BS, inputs_RL):
  """[R, L, V] log-probabilities, one position after the other."""
  apply = functools.partial(model.apply, {'params': params})
  read = apply(documents_BS, method='read')

  def step(cache, place):
    position, tokens_R = place
    log_probs_RV, cache = apply(read, tokens_R, cache, position, method='step')
    return cache, log_probs_RV

  rows, length = inputs_RL.shape
  cache = apply(rows, length, method='empty_cache')
  places = jnp.arange(length), jnp.asarray(inputs_RL).T
  _, found = jax.lax.scan(step, cache, places)
  return jnp.moveaxis(found, 0, 1)


@pytest.mark.parametrize('version', reference_models.T5_VERSIONS)
def test_a_published_t5_is_the_t5_that_it_was(tmp_path, version):
  folder = reference_models.write_hf(
    tmp_path,
    reference_models.t5_hf_config(version),
    reference_models.t5_hf_arrays(version),
  )
  config, weights, _ = import_weights.import_t5(folder)
  model = QueryGenerator(
    GeneratorConfig(config, config, pointer=False, start=0, end=1)
  )
  params = {
    'encoder': import_weights.encoder_params(weights),
    'decoder': weights['decoder'],
    'token_embedder': weights['token_embedder'],
  }
  documents_BS = reference_models.T5_TOKENS[:, :12]
  inputs_BL = reference_models.T5_TARGETS[:, :6]

  @jax.jit
  def both(weights, params):
    logits_BLV = T5(config).apply({'params': weights}, documents_BS, inputs_BL)
    stepped_BLV = by_steps(model, params, documents_BS, inputs_BL)
    return jax.nn.log_softmax(logits_BLV), stepped_BLV

  expected_BLV, stepped_BLV = both(weights, params)
  np.testing.assert_allclose(stepped_BLV, expected_BLV, rtol=1e-5, atol=1e-4)
  # The loss starts with token 0 and writes the tokens themselves.
  targets_BL = np.pad(inputs_BL[:, 1:], ((0, 0), (0, 1)))
  batch = {
    'document_tokens': documents_BS,
    'query_tokens': targets_BL[:, None],
  }
  value, _ = jax.jit(
    lambda params: model.apply({'params': params}, batch, True, method='loss')
  )(params)
  chosen_BL1 = np.take_along_axis(
    np.asarray(expected_BLV), targets_BL[..., None], axis=-1
  )
  mean = -chosen_BL1[..., 0][targets_BL > 0].mean()
  np.testing.assert_allclose(value, mean, rtol=1e-5)


def test_training_goes_on_with_a_published_t5(tmp_path):
  folder = reference_models.write_hf(
    tmp_path,
    reference_models.t5_hf_config('1.0'),
    reference_models.t5_hf_arrays('1.0'),
  )
  config, weights, provenance = import_weights.import_t5(folder)
  settings = text_run_settings.TextRunSettings(
    run_dir=str(tmp_path / 'run'),
    encoder_weights=folder,
    model=GeneratorConfig(config, config, pointer=False, start=0, end=1),
  )
  imported, sha256 = run_generator.GeneratorRun(settings).imported()
  assert sha256 == provenance.sha256
  shapes = jax.eval_shape(
    lambda key: QueryGenerator(settings.model).init(
      key, BATCH, True, method='loss'
    ),
    jax.random.key(0),
  )['params']
  # Nothing is left to be drawn.
  assert jax.tree.structure(imported) == jax.tree.structure(shapes)
  for name in ('encoder', 'decoder'):
    assert jax.tree.map(np.shape, imported[name]) == jax.tree.map(
      lambda leaf: leaf.shape, shapes[name]
    )
  np.testing.assert_array_equal(
    imported['token_embedder']['embedding'],
    weights['token_embedder']['embedding'],
  )
  deeper = dataclasses.replace(config, num_decoder_layers=9)
  other = dataclasses.replace(
    settings, model=dataclasses.replace(settings.model, decoder=deeper)
  )
  with pytest.raises(UserError, match=r'set T5Config\.num_decoder_layers = 3'):
    run_generator.GeneratorRun(other).imported()


@pytest.mark.parametrize(
  ('pointer', 'follows'), [(True, True), (True, False), (False, False)]
)
def test_steps_give_what_all_positions_at_once_give(pointer, follows):
  config = dataclasses.replace(
    COPYING, pointer=pointer, pointer_follows=follows
  )
  model, params = params_of(config)
  rows_RL = QUERIES.reshape(4, -1)

  @jax.jit
  def both(params):
    stepped_RLV = by_steps(model, params, DOCUMENTS, rows_RL[:, :-1])
    wanted_RL1 = rows_RL[:, 1:, None]
    return (
      log_probs(model, params, DOCUMENTS, QUERIES),
      jnp.take_along_axis(stepped_RLV, wanted_RL1, axis=-1)[..., 0],
      jnp.sum(jnp.exp(stepped_RLV), axis=-1),
    )

  at_once_RL, stepped_RL, sums_RL = both(params)
  real_RL = rows_RL[:, 1:] > 0
  np.testing.assert_allclose(
    stepped_RL[real_RL], at_once_RL[real_RL], rtol=1e-5, atol=1e-5
  )
  np.testing.assert_allclose(sums_RL, 1.0, rtol=1e-5)


def test_the_pointer_copies_words_of_its_own_document_alone():
  model, params = params_of(COPYING)
  # The gate is shut: all is copied.
  params['pointer_gate']['bias'][:] = -60.0
  probs_RL = np.exp(
    jax.jit(lambda p: log_probs(model, p, DOCUMENTS, QUERIES))(params)
  )
  # [CLS] 9 7 [SEP] of a document with 9 and 7, whose [SEP] is no word.
  assert (probs_RL[0, :2] > 1e-3).all()
  assert probs_RL[0, 2] < 1e-6
  # 5 is the only word of the second document, 14 and 6 are not in it.
  np.testing.assert_allclose(probs_RL[2], [1, 0, 0, 0], atol=1e-5)


def test_the_pointer_goes_on_where_it_copied():
  model, params = params_of(COPYING)
  params['pointer_gate']['bias'][:] = -60.0
  params['pointer_strength'][:] = 60.0
  document = np.array([[START, 9, 7, 5, 6, 9, 5, END]], np.int32)
  run = np.array([[[START, 7, 5, 6, 9]]], np.int32)
  probs_RL = np.exp(
    jax.jit(lambda p: log_probs(model, p, document, run))(params)
  )
  # 9 follows [CLS]; after the second 5 there is nothing to copy.
  assert probs_RL[0, 0] < 1e-3
  np.testing.assert_allclose(probs_RL[0, 1:4], 1.0, atol=1e-2)


def test_documents_and_padding_of_others_change_nothing():
  model, params = params_of(COPYING)
  found = jax.jit(lambda d, q: log_probs(model, params, d, q))
  together_RL = found(DOCUMENTS, QUERIES)
  alone_RL = found(DOCUMENTS[1:, :3], QUERIES[1:])
  # As many queries of each document as there are places; one has one.
  np.testing.assert_allclose(alone_RL[0], together_RL[2], rtol=1e-4, atol=1e-5)
  loss = jax.jit(
    lambda batch: model.apply({'params': params}, batch, True, method='loss')
  )
  value, metrics = loss(BATCH)
  total, count = metrics['token_loss']
  assert count == 3 + 2 + 4
  np.testing.assert_allclose(value, total / count, rtol=1e-6)
  real = np.concatenate([together_RL[0, :3], together_RL[1, :2],
                         together_RL[2, :4]])  # fmt: skip
  np.testing.assert_allclose(total, -real.sum(), rtol=1e-5)


@pytest.mark.parametrize('trains', [True, False])
def test_a_frozen_encoder_has_no_gradient(trains):
  model, params = params_of(dataclasses.replace(COPYING, train_encoder=trains))

  def loss(params):
    return model.apply({'params': params}, BATCH, True, method='loss')[0]

  gradient = jax.jit(jax.grad(loss))(params)
  encoder = gradient.pop('encoder')
  largest = max(np.abs(x).max() for x in jax.tree.leaves(encoder))
  assert (largest > 0) == trains
  for name, module in gradient.items():
    assert max(np.abs(x).max() for x in jax.tree.leaves(module)) > 0, name


def test_a_frozen_encoder_has_no_dropout():
  model, params = params_of(COPYING)
  config = dataclasses.replace(DECODER, dropout_rate=0.0)
  model = QueryGenerator(dataclasses.replace(COPYING, decoder=config))

  def loss(params, deterministic):
    return model.apply(
      {'params': params},
      BATCH,
      deterministic,
      method='loss',
      rngs={'dropout': jax.random.key(0)},
    )[0]

  dropped, whole = (jax.jit(loss, static_argnums=1)(params, d) for d in (0, 1))
  np.testing.assert_allclose(dropped, whole, rtol=1e-6)


def test_a_decoder_of_other_tokens_is_refused():
  with pytest.raises(UserError, match=r'set T5Config\.vocab_size = 19'):
    dataclasses.replace(
      COPYING, decoder=dataclasses.replace(DECODER, vocab_size=18)
    )
