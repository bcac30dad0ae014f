"""Small models with random weights, as published folders have them."""

import json

import numpy as np
from tiny_texts import write_vocabulary

WIDTH, MLP, POSITIONS = 16, 24, 32


def write_ranker(folder, seed=0, sentences=False):
  """A cross-encoder of one layer, or the sentence encoder inside it."""
  from safetensors.numpy import save_file

  size = write_vocabulary(folder)
  config = {
    'model_type': 'bert',
    'architectures': [
      'BertModel' if sentences else 'BertForSequenceClassification'
    ],
    'vocab_size': size,
    'hidden_size': WIDTH,
    'num_attention_heads': 2,
    'num_hidden_layers': 1,
    'intermediate_size': MLP,
    'max_position_embeddings': POSITIONS,
    'type_vocab_size': 2,
    'hidden_act': 'gelu',
    'layer_norm_eps': 1e-12,
    'hidden_dropout_prob': 0.1,
    'initializer_range': 0.02,
  }
  (folder / 'config.json').write_text(json.dumps(config))
  arrays = _arrays(size, seed)
  if sentences:
    del arrays['classifier.weight'], arrays['classifier.bias']
  save_file(arrays, folder / 'model.safetensors')
  return folder


def _arrays(size, seed):
  block = 'bert.encoder.layer.0'
  shapes = {
    'bert.embeddings.word_embeddings.weight': (size, WIDTH),
    'bert.embeddings.position_embeddings.weight': (POSITIONS, WIDTH),
    'bert.embeddings.token_type_embeddings.weight': (2, WIDTH),
  }
  for name, shape in {
    'bert.pooler.dense': (WIDTH, WIDTH),
    'classifier': (1, WIDTH),
    f'{block}.attention.self.query': (WIDTH, WIDTH),
    f'{block}.attention.self.key': (WIDTH, WIDTH),
    f'{block}.attention.self.value': (WIDTH, WIDTH),
    f'{block}.attention.output.dense': (WIDTH, WIDTH),
    f'{block}.intermediate.dense': (MLP, WIDTH),
    f'{block}.output.dense': (WIDTH, MLP),
    'bert.embeddings.LayerNorm': (WIDTH,),
    f'{block}.attention.output.LayerNorm': (WIDTH,),
    f'{block}.output.LayerNorm': (WIDTH,),
  }.items():
    shapes |= {f'{name}.weight': shape, f'{name}.bias': shape[:1]}
  random = np.random.RandomState(seed)
  return {
    name: (0.4 * random.standard_normal(shape)).astype(np.float32)
    for name, shape in shapes.items()
  }
