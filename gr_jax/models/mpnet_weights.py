"""Published weights of MPNet as those of our BERT encoder.

Hugging Face's MPNetModel is a BERT with scores of relative positions. It pads
with id 1 and counts positions from 2; here padding is id 0, as everywhere, and
positions begin at 0: rows of its tables are moved, and its vocabulary swaps the
two ids (data.vocabularies).
"""

import re
from collections.abc import Mapping

import numpy as np

from gr_jax.models.weight_names import Origin

# Positions of the table that stand for padding and what is before it.
POSITIONS = 2
# Parts that no sentence encoder reads.
IGNORED = ('embeddings.position_ids', 'pooler.', 'lm_head.')
_OUTER = {
  'token_embedder/embedding': 'embeddings.word_embeddings.weight',
  'position_embedder/embedding': 'embeddings.position_embeddings.weight',
  'embedding_norm/scale': 'embeddings.LayerNorm.weight',
  'embedding_norm/bias': 'embeddings.LayerNorm.bias',
}
_MODULES = {
  'attention/query': 'attention.attn.q',
  'attention/key': 'attention.attn.k',
  'attention/value': 'attention.attn.v',
  'attention/out': 'attention.attn.o',
  'attention_norm': 'attention.LayerNorm',
  'mlp/wi': 'intermediate.dense',
  'mlp/wo': 'output.dense',
  'mlp_norm': 'output.LayerNorm',
}


def moved(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The arrays with padding at row 0 and the first position at row 0.

  Args:
    arrays: by Hugging Face's name, with or without 'mpnet.' in front.
  """
  found = {name.removeprefix('mpnet.'): a for name, a in arrays.items()}
  tokens = _OUTER['token_embedder/embedding']
  places = _OUTER['position_embedder/embedding']
  if tokens in found:
    found[tokens] = np.concatenate([found[tokens][1::-1], found[tokens][2:]])
  if places in found:
    found[places] = found[places][POSITIONS:]
  return found


def origin(path: str) -> Origin:
  """The Hugging Face name of a parameter of BertEncoder."""
  if path in _OUTER:
    return Origin(_OUTER[path])
  if path == 'encoder/relpos_bias/rel_embedding':
    return Origin('encoder.relative_attention_bias.weight', transposed=True)
  layer, module, leaf = re.fullmatch(
    r'encoder/layers_(\d+)/(.+)/(\w+)', path
  ).groups()
  name = f'encoder.layer.{layer}.{_MODULES[module]}'
  if leaf == 'bias':
    return Origin(f'{name}.bias')
  return Origin(f'{name}.weight', transposed=leaf == 'kernel')
