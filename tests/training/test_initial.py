"""Where training starts: weights that do not fit are refused."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from gr_jax.models import import_weights
from gr_jax.models.bert import BertConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.training.initial import import_params
from gr_jax.types import UserError

BERT_ARRAYS = {
  'embeddings.word_embeddings.weight': (11, 4),
  'embeddings.position_embeddings.weight': (5, 4),
  'embeddings.token_type_embeddings.weight': (2, 4),
  'embeddings.LayerNorm.weight': (4,),
  'embeddings.LayerNorm.bias': (4,),
}
BERT = BertConfig(
  vocab_size=11, emb_dim=4, num_heads=2, num_layers=0, mlp_dim=6, max_length=5
)


@pytest.fixture
def bert_source(tmp_path):
  """A BERT without layers, as a folder of Hugging Face's layout."""
  config = {
    'model_type': 'bert',
    'vocab_size': 11,
    'hidden_size': 4,
    'num_attention_heads': 2,
    'num_hidden_layers': 0,
    'intermediate_size': 6,
    'max_position_embeddings': 5,
    'type_vocab_size': 2,
    'hidden_act': 'gelu',
    'layer_norm_eps': 1e-12,
    'hidden_dropout_prob': 0.1,
    'initializer_range': 0.02,
  }
  (tmp_path / 'config.json').write_text(json.dumps(config))
  arrays = {n: np.ones(s, np.float32) for n, s in BERT_ARRAYS.items()}
  save_file(arrays, tmp_path / 'model.safetensors')
  return str(tmp_path)


@pytest.mark.parametrize(
  'field, value, said',
  [
    # Shapes alone would tell these.
    ('mlp_dim', 8, 'BertConfig.mlp_dim = 6 (it is 8)'),
    ('vocab_size', 12, 'BertConfig.vocab_size = 11 (it is 12)'),
    # And not these.
    ('num_heads', 1, 'BertConfig.num_heads = 2 (it is 1)'),
    ('activation', 'gelu_new', "activation = 'gelu' (it is 'gelu_new')"),
    ('norm_epsilon', 1e-6, 'BertConfig.norm_epsilon = 1e-12 (it is 1e-06)'),
  ],
)
def test_weights_of_another_bert_are_refused(bert_source, field, value, said):
  encoder = dataclasses.replace(BERT, **{field: value})
  with pytest.raises(UserError) as caught:
    import_params({}, RetrieverConfig(encoder=encoder), bert_source)
  assert said in str(caught.value)
  assert 'do not fit RetrieverConfig.encoder: set BertConfig.' in str(
    caught.value
  )


def test_training_may_differ_from_that_of_the_weights(bert_source):
  encoder = dataclasses.replace(
    BERT, dropout_rate=0.0, dtype='bfloat16', initializer_stddev=1.0
  )
  params, sha256 = import_params(
    {}, RetrieverConfig(encoder=encoder), bert_source
  )
  assert params['encoder']['token_embedder']['embedding'].shape == (11, 4)
  assert len(sha256) == 64


T5 = T5Config(
  vocab_size=7,
  emb_dim=4,
  num_heads=1,
  head_dim=2,
  num_encoder_layers=1,
  num_decoder_layers=3,
  mlp_dim=4,
)


@pytest.fixture
def t5_weights(monkeypatch):
  """Stands in for a T5 with three layers in its decoder."""
  decoder = {f'layers_{i}': i for i in range(3)} | {'decoder_norm': 'norm'}
  weights = {
    'token_embedder': 'tokens',
    'encoder': 'encoder',
    'decoder': {**decoder, 'logits_dense': 'head'},
  }
  monkeypatch.setattr(
    import_weights,
    'import_t5',
    lambda source: (T5, weights, import_weights.Provenance(source, 'sha')),
  )


def t5_retriever(encoder=T5, **changes):
  stack = dataclasses.replace(T5, num_encoder_layers=0, **changes)
  return RetrieverConfig(
    encoder=encoder, decoder=CodeDecoderConfig(stack=stack)
  )


@pytest.mark.parametrize(
  'depth, kept',
  [
    (3, {'layers_0': 0, 'layers_1': 1, 'layers_2': 2, 'decoder_norm': 'norm'}),
    (2, {'layers_0': 0, 'layers_1': 1, 'decoder_norm': 'norm'}),
    # A head of geometry alone takes nothing.
    (0, 'drawn'),
  ],
)
def test_a_decoder_takes_the_first_layers(t5_weights, depth, kept):
  drawn = {'decoder': {'stack': 'drawn', 'output': 'drawn'}}
  params, _ = import_params(drawn, t5_retriever(num_decoder_layers=depth), 'x')
  assert params['decoder'] == {'stack': kept, 'output': 'drawn'}
  assert params['encoder'] == {'token_embedder': 'tokens', 'encoder': 'encoder'}


@pytest.mark.parametrize(
  'config, said',
  [
    (
      t5_retriever(num_decoder_layers=4),
      'CodeDecoderConfig.stack: set T5Config.num_decoder_layers = 3 (it is 4)',
    ),
    (
      t5_retriever(relpos_max_distance=64),
      'CodeDecoderConfig.stack: set T5Config.relpos_max_distance = 128 (it is',
    ),
    (
      t5_retriever(dataclasses.replace(T5, mlp_activations=('gelu', 'linear'))),
      "RetrieverConfig.encoder: set T5Config.mlp_activations = ('gelu_new', ",
    ),
  ],
)
def test_weights_of_another_t5_are_refused(t5_weights, config, said):
  with pytest.raises(UserError) as caught:
    import_params({'decoder': {}}, config, 'x')
  assert said in str(caught.value)
