"""A small saved index of a real Retriever, for the tests of the doors."""

import functools

import jax
import numpy as np

from gr_jax.data.vocabularies import train_sentencepiece
from gr_jax.index.index import Index
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.retrieval import encoding
from gr_jax.retrieval.opening import saved_settings
from gr_jax.retrieval.search_settings import SearchSettings

DOCUMENTS = 40
TOKENS = 24
_SIZES = {
  'emb_dim': 16,
  'num_heads': 2,
  'head_dim': 8,
  'num_encoder_layers': 1,
  'num_decoder_layers': 1,
  'mlp_dim': 16,
}


def config(vocab_size, positions=3):
  return RetrieverConfig(
    encoder=T5Config(vocab_size=vocab_size, **_SIZES),
    indexer=ResidualConfig(positions=positions, codes=5),
    decoder=CodeDecoderConfig(stack=T5Config(**_SIZES)),
    width=16,
  )


def texts():
  rng = np.random.default_rng(0)
  words = ('read', 'write', 'parse', 'a', 'file', 'json', 'socket', 'thread')
  return [' '.join(rng.choice(words, 9)) for _ in range(DOCUMENTS)]


@functools.cache
def _parameters(model_config, seed):
  model = Retriever(model_config)

  def everything(model, tokens_BS):
    query = model.encode(tokens_BS)
    codes_BL = model.assign(query.vectors_BD, np.arange(2, dtype=np.int32))
    return model.decode(model.start(query, 2), codes_BL[:, :2], 0)

  # Compiled: op by op it takes ten times as long.
  init = jax.jit(functools.partial(model.init, method=everything))
  return init(jax.random.key(seed), np.ones((2, 4), np.int32))['params']


def save(path, seed=0, positions=3):
  """Writes the index; returns the texts of its documents."""
  documents = texts()
  path.parent.mkdir(parents=True, exist_ok=True)
  vocabulary = train_sentencepiece(documents, 30, path.parent / 'vocabulary')
  model_config = config(vocabulary.size)
  model, params = Retriever(model_config), _parameters(model_config, seed)
  tokens = vocabulary.encode_batch(documents, TOKENS)
  vectors_ND = encoding.document_vectors(
    model, params, lambda rows: [tokens[row] for row in rows], DOCUMENTS, TOKENS
  )
  codes_NL = encoding.assign_codes(model, params, vectors_ND)
  index = Index.build(
    codes_NL[:, :positions],
    (5,) * positions,
    vectors_ND.astype(np.float16),
    [f'd{row}' for row in range(DOCUMENTS)],
    [f'title {row}\x1b[31m' for row in range(DOCUMENTS)],
    documents,
  )
  settings = SearchSettings(
    beams=20, fraction=1.0, generative_weight=0.0, batch_sizes=(1, 8)
  )
  index.save(
    path,
    params,
    saved_settings(model_config, settings, TOKENS, TOKENS, {}),
    vocabulary,
    {},
  )
  return documents
