"""Pretrained weights into our encoders and decoders."""

import contextlib
import dataclasses
import re

import jax.numpy as jnp
import numpy as np

from gr_jax.models import (
  mpnet_weights,
  t5x_checkpoints,
  weight_files,
  weight_names,
)
from gr_jax.models.bert import BertConfig, BertEncoder
from gr_jax.models.cross_encoder import CrossEncoder, CrossEncoderConfig
from gr_jax.models.layers import activation
from gr_jax.models.t5 import T5Config, T5Encoder
from gr_jax.models.t5_text import T5
from gr_jax.models.weight_files import Provenance
from gr_jax.models.weight_names import Origin
from gr_jax.types import UserError

_BERT_EMBEDDINGS = {
  'token_embedder/embedding': 'embeddings.word_embeddings.weight',
  'position_embedder/embedding': 'embeddings.position_embeddings.weight',
  'type_embedder/embedding': 'embeddings.token_type_embeddings.weight',
  'embedding_norm/scale': 'embeddings.LayerNorm.weight',
  'embedding_norm/bias': 'embeddings.LayerNorm.bias',
}
_BERT_MODULES = {
  'attention/query': 'attention.self.query',
  'attention/key': 'attention.self.key',
  'attention/value': 'attention.self.value',
  'attention/out': 'attention.output.dense',
  'attention_norm': 'attention.output.LayerNorm',
  'mlp/wi': 'intermediate.dense',
  'mlp/wo': 'output.dense',
  'mlp_norm': 'output.LayerNorm',
}
_T5_OUTER = {
  'token_embedder/embedding': 'shared.weight',
  'encoder/encoder_norm/scale': 'encoder.final_layer_norm.weight',
  'decoder/decoder_norm/scale': 'decoder.final_layer_norm.weight',
}
# Copies of shared.weight, and a bias of cross-attention that nothing reads.
_T5_COPIES = (
  'encoder.embed_tokens.weight',
  'decoder.embed_tokens.weight',
  'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight',
)
_T5_ACTIVATIONS = {
  'relu': ('relu',),
  'gated-gelu': ('gelu_new', 'linear'),
}
# Parts of a BERT checkpoint that no sentence encoder reads.
_BERT_IGNORED = ('embeddings.position_ids', 'pooler.', 'cls.')


def import_bert(source: str) -> tuple[BertConfig, dict, Provenance]:
  """Reads a BERT or MPNet encoder in Hugging Face's layout.

  Args:
    source: a folder, 'package:NAME' or 'hub:ORG/NAME@REVISION'.

  Returns:
    the configuration, the parameters of `BertEncoder`, and where they came
    from.
  """
  folder = weight_files.locate(source)
  hf = weight_files.read_config(folder)
  config = _bert_config(hf, source, ('bert', 'mpnet'))
  arrays, sha256 = weight_files.read_safetensors(folder)
  if hf['model_type'] == 'mpnet':
    arrays = mpnet_weights.moved(arrays)
    origin, ignored = mpnet_weights.origin, mpnet_weights.IGNORED
  else:
    arrays = {name.removeprefix('bert.'): a for name, a in arrays.items()}
    origin, ignored = _bert_origin, _BERT_IGNORED
  params = weight_names.fit(
    arrays,
    weight_names.parameter_shapes(
      BertEncoder(config), jnp.zeros((1, 1), jnp.int32)
    ),
    origin,
    lambda name: name.startswith(ignored),
    source,
  )
  return config, params, Provenance(source, sha256)


def import_cross_encoder(
  source: str,
) -> tuple[CrossEncoderConfig, dict, Provenance]:
  """Reads a BERT with a pooler and one label in Hugging Face's layout.

  That is what `BertForSequenceClassification` of one label has, as the
  ms-marco-MiniLM cross-encoders; a score is the label's logit.

  Args:
    source: a folder, 'package:NAME' or 'hub:ORG/NAME@REVISION'.

  Returns:
    the configuration, the parameters of `CrossEncoder`, and where they came
    from.
  """
  folder = weight_files.locate(source)
  bert = _bert_config(weight_files.read_config(folder), source)
  config = CrossEncoderConfig(encoder=bert, length=bert.max_length)
  arrays, sha256 = weight_files.read_safetensors(folder)
  labels = arrays.get('classifier.weight', np.zeros((0, 0))).shape[0]
  if labels != 1:
    raise UserError(
      f'{source} should hold a classifier of one label, as cross-encoders '
      f'have it, it has {labels} labels.'
    )
  tokens = jnp.zeros((1, 1), jnp.int32)
  params = weight_names.fit(
    arrays,
    weight_names.parameter_shapes(
      CrossEncoder(config), tokens, jnp.zeros((1,), jnp.int32)
    ),
    _cross_encoder_origin,
    lambda name: name.startswith('bert.embeddings.position_ids'),
    source,
  )
  return config, params, Provenance(source, sha256)


def _cross_encoder_origin(path: str) -> Origin:
  """The Hugging Face name of a parameter of CrossEncoder."""
  module, _, leaf = path.partition('/')
  if module == 'encoder':
    inner = _bert_origin(leaf)
    return dataclasses.replace(inner, name=f'bert.{inner.name}')
  name = {'pooler': 'bert.pooler.dense', 'score': 'classifier'}[module]
  if leaf == 'bias':
    return Origin(f'{name}.bias')
  return Origin(f'{name}.weight', transposed=True)


def _bert_origin(path: str) -> Origin:
  """The Hugging Face name of a parameter of BertEncoder."""
  if path in _BERT_EMBEDDINGS:
    return Origin(_BERT_EMBEDDINGS[path])
  layer, module, leaf = re.fullmatch(
    r'encoder/layers_(\d+)/(.+)/(\w+)', path
  ).groups()
  name = f'encoder.layer.{layer}.{_BERT_MODULES[module]}'
  if leaf == 'bias':
    return Origin(f'{name}.bias')
  return Origin(f'{name}.weight', transposed=leaf == 'kernel')


def _bert_config(hf: dict, source: str, kinds=('bert',)) -> BertConfig:
  """The configuration that a Hugging Face config.json describes."""
  _expect(hf, 'model_type', kinds, source)
  positions = hf.get('position_embedding_type', 'absolute')
  if positions != 'absolute':
    raise UserError(
      f'{source}: position_embedding_type is {positions!r}, but only '
      "'absolute' positions are known."
    )
  with _config_keys(source):
    activation(hf['hidden_act'])
    mpnet = hf['model_type'] == 'mpnet'
    before = mpnet_weights.POSITIONS if mpnet else 0
    return BertConfig(
      vocab_size=hf['vocab_size'],
      emb_dim=hf['hidden_size'],
      num_heads=hf['num_attention_heads'],
      num_layers=hf['num_hidden_layers'],
      mlp_dim=hf['intermediate_size'],
      max_length=hf['max_position_embeddings'] - before,
      type_vocab_size=0 if mpnet else hf['type_vocab_size'],
      relpos_buckets=hf['relative_attention_num_buckets'] if mpnet else 0,
      activation=hf['hidden_act'],
      norm_epsilon=hf['layer_norm_eps'],
      dropout_rate=hf['hidden_dropout_prob'],
      initializer_stddev=hf['initializer_range'],
    )


def import_t5(source: str) -> tuple[T5Config, dict, Provenance]:
  """Reads a T5 of version 1.0 or 1.1, or its encoder alone.

  Args:
    source: a folder, 'package:NAME' or 'hub:ORG/NAME@REVISION', with
      safetensors in Hugging Face's layout or a T5X checkpoint (legacy or
      orbax).

  Returns:
    the configuration, the parameters of `T5` (of `T5Encoder` when there is
    no decoder), and where they came from. See `encoder_params` and
    `decoder_params` for the parts.
  """
  folder = weight_files.locate(source)
  if t5x_checkpoints.is_checkpoint(folder):
    arrays, sha256 = t5x_checkpoints.read_checkpoint(folder)
    config = _t5x_config({k: a.shape for k, a in arrays.items()}, source)
    origin, ignored = Origin, ()
    has_decoder = any(name.startswith('decoder/') for name in arrays)
  else:
    hf = weight_files.read_config(folder)
    arrays, sha256 = weight_files.read_safetensors(folder)
    config = _t5_config(hf, source)
    origin, ignored = _t5_origin, _T5_COPIES
    if config.logits_via_embedding:
      ignored += ('lm_head.weight',)
    has_decoder = any(name.startswith('decoder.block') for name in arrays)
  tokens = jnp.zeros((1, 1), jnp.int32)
  if has_decoder:
    shapes = weight_names.parameter_shapes(T5(config), tokens, tokens)
  else:
    shapes = weight_names.parameter_shapes(T5Encoder(config), tokens)
  params = weight_names.fit(
    arrays, shapes, origin, lambda name: name in ignored, source
  )
  return config, params, Provenance(source, sha256)


def encoder_params(params: dict) -> dict:
  """The part of an imported T5 that `T5Encoder` and `Encoder` have."""
  return {name: params[name] for name in ('token_embedder', 'encoder')}


def decoder_params(params: dict) -> dict:
  """The part of an imported T5 that `T5DecoderStack` has."""
  if 'decoder' not in params:
    raise UserError('The imported weights are of an encoder alone.')
  return {k: v for k, v in params['decoder'].items() if k != 'logits_dense'}


def _t5_origin(path: str) -> Origin:
  """The Hugging Face name of a parameter of T5."""
  if path in _T5_OUTER:
    return Origin(_T5_OUTER[path])
  if path == 'decoder/logits_dense/kernel':
    return Origin('lm_head.weight', transposed=True)
  stack, _, rest = path.partition('/')
  if rest == 'relpos_bias/rel_embedding':
    # The first layer holds the bias that all layers share.
    attention = f'{stack}.block.0.layer.0.SelfAttention'
    return Origin(f'{attention}.relative_attention_bias.weight', True)
  layer, module, leaf = re.fullmatch(r'layers_(\d+)/(.+)/(\w+)', rest).groups()
  name = f'{stack}.block.{layer}.layer.{_t5_sublayer(stack, module)}.weight'
  return Origin(name, transposed=leaf == 'kernel')


def _t5_sublayer(stack: str, module: str) -> str:
  """'0.SelfAttention.q' for 'attention/query' of the encoder, and so on."""
  block, _, matrix = module.partition('/')
  mlp = 1 if stack == 'encoder' else 2
  places = {
    'pre_attention_layer_norm': '0.layer_norm',
    'pre_self_attention_layer_norm': '0.layer_norm',
    'pre_cross_attention_layer_norm': '1.layer_norm',
    'pre_mlp_layer_norm': f'{mlp}.layer_norm',
    'attention': '0.SelfAttention',
    'self_attention': '0.SelfAttention',
    'encoder_decoder_attention': '1.EncDecAttention',
    'mlp': f'{mlp}.DenseReluDense',
  }
  if not matrix:
    return places[block]
  # q, k, v, o; the matrices of the feed-forward block have the same names.
  return f'{places[block]}.{matrix if block == "mlp" else matrix[0]}'


def _t5_config(hf: dict, source: str) -> T5Config:
  """The configuration that a Hugging Face config.json describes."""
  _expect(hf, 'model_type', ('t5', 'mt5'), source)
  kind = hf.get('feed_forward_proj', 'relu')
  if kind not in _T5_ACTIVATIONS:
    raise UserError(
      f'{source}: feed_forward_proj is {kind!r}, but only '
      f'{" and ".join(_T5_ACTIVATIONS)} are known.'
    )
  # Since transformers 5 tie_word_embeddings is true in every file, and this
  # tells the versions apart.
  tied = hf.get('scale_decoder_outputs', hf.get('tie_word_embeddings', True))
  with _config_keys(source):
    return T5Config(
      vocab_size=hf['vocab_size'],
      emb_dim=hf['d_model'],
      num_heads=hf['num_heads'],
      head_dim=hf['d_kv'],
      num_encoder_layers=hf['num_layers'],
      num_decoder_layers=hf.get('num_decoder_layers') or hf['num_layers'],
      mlp_dim=hf['d_ff'],
      mlp_activations=_T5_ACTIVATIONS[kind],
      logits_via_embedding=tied,
      relpos_buckets=hf['relative_attention_num_buckets'],
      relpos_max_distance=hf.get('relative_attention_max_distance', 128),
      norm_epsilon=hf['layer_norm_epsilon'],
      dropout_rate=hf['dropout_rate'],
    )


def _t5x_config(shapes: dict[str, tuple[int, ...]], source: str) -> T5Config:
  """The configuration that the shapes of a T5X checkpoint tell."""
  gated = 'encoder/layers_0/mlp/wi_0/kernel' in shapes
  wi = 'wi_0' if gated else 'wi'
  try:
    vocab_size, emb_dim = shapes['token_embedder/embedding']
    num_heads, buckets = shapes['encoder/relpos_bias/rel_embedding']
    _, joined = shapes['encoder/layers_0/attention/query/kernel']
    _, mlp_dim = shapes[f'encoder/layers_0/mlp/{wi}/kernel']
  except (KeyError, ValueError) as error:
    raise UserError(
      f'{source} is not a checkpoint of the minimal T5 with its layers one by '
      f'one: {error}. Scanned layers must be unrolled first.'
    ) from error

  def depth(stack: str) -> int:
    layer = re.compile(rf'{stack}/(layers_\d+)/')
    return len({m.group(1) for name in shapes if (m := layer.match(name))})

  return T5Config(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=num_heads,
    head_dim=joined // num_heads,
    num_encoder_layers=depth('encoder'),
    num_decoder_layers=depth('decoder'),
    mlp_dim=mlp_dim,
    mlp_activations=_T5_ACTIVATIONS['gated-gelu' if gated else 'relu'],
    logits_via_embedding='decoder/logits_dense/kernel' not in shapes,
    relpos_buckets=buckets,
  )


@contextlib.contextmanager
def _config_keys(source: str):
  """Says which key a config.json lacks."""
  try:
    yield
  except KeyError as error:
    raise UserError(
      f'{source}: config.json lacks {error.args[0]!r}.'
    ) from error


def _expect(hf: dict, key: str, values: tuple[str, ...], source: str) -> None:
  """Refuses the configuration of another family of models."""
  if hf.get(key) not in values:
    raise UserError(
      f'{source}: config.json should say {key} {" or ".join(values)}, but says '
      f'{hf.get(key)!r}.'
    )
