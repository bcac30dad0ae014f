"""Pretrained weights into our encoders and decoders."""

import re

import jax.numpy as jnp

from gr_jax.models import weight_files, weight_names
from gr_jax.models.bert import BertConfig, BertEncoder
from gr_jax.models.layers import activation
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
# Parts of a BERT checkpoint that no sentence encoder reads.
_BERT_IGNORED = ('embeddings.position_ids', 'pooler.', 'cls.')


def import_bert(source: str) -> tuple[BertConfig, dict, Provenance]:
  """Reads a BERT encoder in Hugging Face's layout.

  Args:
    source: a folder, 'package:NAME' or 'hub:ORG/NAME@REVISION'.

  Returns:
    the configuration, the parameters of `BertEncoder`, and where they came
    from.
  """
  folder = weight_files.locate(source)
  config = _bert_config(weight_files.read_config(folder), source)
  arrays, sha256 = weight_files.read_safetensors(folder)
  arrays = {name.removeprefix('bert.'): a for name, a in arrays.items()}
  params = weight_names.fit(
    arrays,
    weight_names.parameter_shapes(
      BertEncoder(config), jnp.zeros((1, 1), jnp.int32)
    ),
    _bert_origin,
    lambda name: name.startswith(_BERT_IGNORED),
    source,
  )
  return config, params, Provenance(source, sha256)


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


def _bert_config(hf: dict, source: str) -> BertConfig:
  """The configuration that a Hugging Face config.json describes."""
  _expect(hf, 'model_type', 'bert', source)
  positions = hf.get('position_embedding_type', 'absolute')
  if positions != 'absolute':
    raise UserError(
      f'{source}: position_embedding_type is {positions!r}, but only '
      "'absolute' positions are known."
    )
  activation(hf['hidden_act'])
  try:
    return BertConfig(
      vocab_size=hf['vocab_size'],
      emb_dim=hf['hidden_size'],
      num_heads=hf['num_attention_heads'],
      num_layers=hf['num_hidden_layers'],
      mlp_dim=hf['intermediate_size'],
      max_length=hf['max_position_embeddings'],
      type_vocab_size=hf['type_vocab_size'],
      activation=hf['hidden_act'],
      norm_epsilon=hf['layer_norm_eps'],
      dropout_rate=hf['hidden_dropout_prob'],
      initializer_stddev=hf['initializer_range'],
    )
  except KeyError as error:
    raise UserError(
      f'{source}: config.json lacks {error.args[0]!r}.'
    ) from error


def _expect(hf: dict, key: str, value: str, source: str) -> None:
  """Refuses the configuration of another family of models."""
  if hf.get(key) != value:
    raise UserError(
      f'{source}: config.json should say {key} {value!r}, but says '
      f'{hf.get(key)!r}.'
    )
