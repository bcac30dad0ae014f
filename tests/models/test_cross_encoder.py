"""Cross-encoders: pairs as published models read them, scores, the loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_models

from gr_jax.models.bert import BertConfig, BertEncoder
from gr_jax.models.cross_encoder import (
  CrossEncoder,
  CrossEncoderConfig,
  join_pairs,
)
from gr_jax.models.import_weights import import_cross_encoder
from gr_jax.models.t5 import T5Config
from gr_jax.types import UserError

BERT = BertConfig(
  vocab_size=50,
  emb_dim=16,
  num_heads=2,
  num_layers=2,
  mlp_dim=24,
  max_length=40,
  dropout_rate=0.0,
)
T5 = T5Config(
  vocab_size=50,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  num_encoder_layers=2,
  num_decoder_layers=0,
  mlp_dim=24,
  dropout_rate=0.0,
)
KINDS = {
  'bert': CrossEncoderConfig(BERT, length=40),
  'bert_mean': CrossEncoderConfig(BERT, 'mean', False, length=40),
  't5': CrossEncoderConfig(T5, 'mean', True, length=40),
}


def hf_folder(folder, **changes):
  config = reference_models.cross_encoder_hf_config() | changes
  arrays = reference_models.cross_encoder_hf_arrays()
  return reference_models.write_hf(folder, config, arrays)


def our_scores(source):
  config, params, _ = import_cross_encoder(source)
  return jax.jit(CrossEncoder(config).apply)(
    {'params': params},
    reference_models.PAIR_TOKENS,
    np.sum(
      (reference_models.PAIR_TOKENS > 0) & (reference_models.PAIR_TYPES == 0),
      axis=1,
    ),
  )


def test_published_layout_agrees_with_the_golden(tmp_path):
  with np.load(reference_models.GOLDENS / 'cross_encoder.npz') as golden:
    np.testing.assert_allclose(
      our_scores(hf_folder(tmp_path)), golden['scores'], rtol=0, atol=1e-5
    )


def test_published_layout_agrees_with_transformers(tmp_path):
  pytest.importorskip('torch', reason='torch is not installed')
  pytest.importorskip('transformers', reason='transformers is not installed')
  import make_goldens

  expected = make_goldens.cross_encoder_outputs()['scores']
  np.testing.assert_allclose(
    our_scores(hf_folder(tmp_path)), expected, rtol=0, atol=1e-5
  )


def test_other_classifiers_are_refused(tmp_path):
  source = reference_models.write_hf(
    tmp_path,
    reference_models.cross_encoder_hf_config(),
    reference_models.cross_encoder_hf_arrays(labels=3),
  )
  with pytest.raises(UserError, match='has 3 labels'):
    import_cross_encoder(source)


def test_without_types_all_are_of_the_first(tmp_path):
  """A sentence encoder is as it was, bit for bit."""
  found, params, _ = import_cross_encoder(hf_folder(tmp_path))
  config, params = found.encoder, params['encoder']
  tokens_BS = reference_models.PAIR_TOKENS
  encode = jax.jit(BertEncoder(config).apply)
  np.testing.assert_array_equal(
    encode({'params': params}, tokens_BS),
    encode({'params': params}, tokens_BS, np.zeros_like(tokens_BS)),
  )


def joined_row(query, document, skipped, length):
  """One pair, as a tokenizer joins it with truncation 'only_second'."""
  row = [*query, *document[skipped:]]
  return row if len(row) <= length else [*row[: length - 1], document[-1]]


@pytest.mark.parametrize('skipped', [0, 1])
@pytest.mark.parametrize('length', [9, 12, 17, 99])
def test_pairs_are_joined_row_by_row(skipped, length):
  rng = np.random.default_rng(length)
  queries, documents = (
    [rng.integers(1, 99, rng.integers(2, most + 1)) for _ in range(20)]
    for most in (7, 12)
  )
  padded = [
    np.stack([np.pad(row, (0, most - len(row))) for row in rows])
    for rows, most in ((queries, 7), (documents, 12))
  ]
  tokens_BS, queries_B = join_pairs(*map(jnp.asarray, padded), skipped, length)
  assert tokens_BS.shape[1] == min(length, 7 + 12 - skipped)
  for row, (query, document) in enumerate(zip(queries, documents, strict=True)):
    expected = joined_row(
      query.tolist(), document.tolist(), skipped, tokens_BS.shape[1]
    )
    assert tokens_BS[row, : len(expected)].tolist() == expected
    assert not np.any(tokens_BS[row, len(expected) :])
    assert queries_B[row] == len(query)


def batch_of(rows=4, negatives=2):
  rng = np.random.default_rng(3)

  def texts(*shape):
    tokens = rng.integers(1, 50, shape)
    lengths = rng.integers(3, shape[-1] + 1, shape[:-1])
    kept = np.arange(shape[-1]) < lengths[..., None]
    return jnp.asarray(np.where(kept, tokens, 0), jnp.int32)

  return {
    'query_tokens': texts(rows, 6),
    'document_tokens': texts(rows, 11),
    'document_index': jnp.asarray([4, 7, 4, 9][:rows], jnp.int32),
    'negative_tokens': texts(rows, negatives, 11),
    'negative_index': jnp.asarray(
      [[1, 2], [-1, 3], [5, -1], [6, 8]], jnp.int32
    )[:rows, :negatives],
  }


@pytest.mark.parametrize('in_batch', [0, 1, 3])
@pytest.mark.parametrize('kind', KINDS)
def test_the_loss_is_that_of_scores_one_by_one(kind, in_batch):
  """Against a plain softmax over pairs that are scored each alone."""
  config = dataclasses.replace(KINDS[kind], in_batch=in_batch, length=14)
  model, batch = CrossEncoder(config), batch_of()
  tokens = jnp.ones((1, 14), jnp.int32)
  variables = reference_models.fresh(model, tokens, jnp.ones(1, jnp.int32))
  loss, metrics = jax.jit(
    lambda v, b: model.apply(v, b, deterministic=True, method='loss')
  )(variables, batch)
  score = jax.jit(model.apply)
  names = batch['document_index']
  losses = []
  for row in range(4):
    candidates = [(batch['document_tokens'][row], int(names[row]))]
    candidates += [
      (batch['negative_tokens'][row, h], int(batch['negative_index'][row, h]))
      for h in range(2)
    ]
    candidates += [
      (batch['document_tokens'][row - s], int(names[row - s]))
      for s in range(1, in_batch + 1)
    ]
    scores = []
    for place, (document, name) in enumerate(candidates):
      if place and name in (-1, names[row]):
        continue
      pair = join_pairs(
        batch['query_tokens'][row][None], document[None], config.skipped, 14
      )
      scores.append(float(score(variables, *pair)[0]))
    scores = np.float64(scores)
    losses.append(np.log(np.sum(np.exp(scores - scores[0]))))
  assert float(loss) == pytest.approx(np.mean(losses), rel=1e-4)
  total, count = metrics['localized']
  assert float(total) == pytest.approx(np.sum(losses), rel=1e-4)
  assert count == 4


@pytest.mark.parametrize('kind', KINDS)
def test_padding_changes_no_score(kind):
  model = CrossEncoder(KINDS[kind])
  rng = np.random.default_rng(0)
  tokens = np.zeros((3, 20), np.int32)
  tokens[:, :13] = rng.integers(1, 50, (3, 13))
  queries = np.array([4, 6, 12], np.int32)
  variables = reference_models.fresh(model, tokens, queries)
  score = jax.jit(model.apply)
  np.testing.assert_allclose(
    score(variables, tokens, queries),
    score(variables, tokens[:, :13], queries),
    rtol=1e-5,
    atol=1e-5,
  )


def test_whose_a_token_is_counts():
  model = CrossEncoder(KINDS['bert'])
  tokens = np.arange(1, 13, dtype=np.int32)[None]
  variables = reference_models.fresh(model, tokens, np.ones(1, np.int32))
  scores = [
    float(model.apply(variables, tokens, np.full(1, first, np.int32))[0])
    for first in (4, 5)
  ]
  assert scores[0] != scores[1]


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'length': 41}, 'has 40 positions'),
    ({'length': 3}, '4 tokens or more'),
    ({'in_batch': -1}, '0 or more'),
    ({'pooling': 'last'}, "one of .*not 'last'"),
  ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(KINDS['bert'], **changes)


def test_too_many_in_batch_are_refused():
  model = CrossEncoder(dataclasses.replace(KINDS['bert'], in_batch=4))
  with pytest.raises(UserError, match='has 3 other rows'):
    jax.eval_shape(
      lambda: model.init(
        jax.random.key(0), batch_of(), deterministic=True, method='loss'
      )
    )
