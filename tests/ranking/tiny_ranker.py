"""Small models with random weights, as published folders have them."""

import json

import numpy as np
import tiny_collection

WORDS = [
  *tiny_collection.ANIMALS,
  *tiny_collection.PLACES,
  *('the', 'lives', 'at', 'and', 'sleeps', 'by', 'day', 'of', 'which', 'is'),
  '.',
]
WIDTH, MLP, POSITIONS = 16, 24, 32


def write_vocabulary(folder):
  """A tokenizer.json of the words of the tiny collection."""
  from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
  from tokenizers.processors import TemplateProcessing

  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *WORDS]
  numbers = {piece: number for number, piece in enumerate(pieces)}
  tokenizer = Tokenizer(models.WordPiece(numbers, unk_token='[UNK]'))
  tokenizer.normalizer = normalizers.BertNormalizer()
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.post_processor = TemplateProcessing(
    single='[CLS] $A [SEP]',
    pair='[CLS] $A [SEP] $B:1 [SEP]:1',
    special_tokens=[('[CLS]', 2), ('[SEP]', 3)],
  )
  folder.mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(folder / 'tokenizer.json'))
  return len(pieces)


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
