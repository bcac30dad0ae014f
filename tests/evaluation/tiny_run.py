"""A run folder with an untrained retriever, small enough for any test."""

import json

import jax
import numpy as np
import tokenizers

from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.index.index import Index
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.models.bert import BertConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.retrieval.opening import saved_settings
from gr_jax.settings import to_json

WORDS = ('apple', 'river', 'stone', 'cloud', 'horse', 'piano', 'green', 'sand')
DOCUMENTS = 30
MODEL = RetrieverConfig(
  encoder=BertConfig(
    vocab_size=16, emb_dim=8, num_heads=2, num_layers=1, mlp_dim=8,
    max_length=16,
  ),
  indexer=ResidualConfig(positions=2, codes=4),
  decoder=CodeDecoderConfig(
    stack=T5Config(
      emb_dim=8, num_heads=1, head_dim=8, num_encoder_layers=0,
      num_decoder_layers=1, mlp_dim=8,
    )
  ),
  width=8,
)  # fmt: skip


def write_collection(folder):
  """Documents of four words; each is asked for by its last two words."""
  rng = np.random.default_rng(0)
  texts = [' '.join(rng.choice(WORDS, 4)) for _ in range(DOCUMENTS)]
  (folder / 'qrels').mkdir(parents=True)
  lines = [
    json.dumps({'_id': f'd{n}', 'title': '', 'text': text})
    for n, text in enumerate(texts)
  ]
  (folder / 'corpus.jsonl').write_text('\n'.join(lines) + '\n')
  lines = [
    json.dumps({'_id': f'q{n}', 'text': ' '.join(text.split()[2:])})
    for n, text in enumerate(texts)
  ]
  (folder / 'queries.jsonl').write_text('\n'.join(lines) + '\n')
  lines = ['query-id\tcorpus-id\tscore']
  lines += [f'q{n}\td{n}\t1' for n in range(DOCUMENTS)]
  (folder / 'qrels' / 'test.tsv').write_text('\n'.join(lines) + '\n')


def write_vocabulary(path):
  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *WORDS]
  model = tokenizers.models.WordPiece(
    {piece: n for n, piece in enumerate(pieces)}, unk_token='[UNK]'
  )
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  tokenizer.save(str(path))


def init_params(model, seed):
  """Random parameters of a Retriever."""
  rngs = dict(zip(('params', 'dropout'), jax.random.split(jax.random.key(seed)),
                  strict=True))  # fmt: skip
  tokens = np.ones((2, 4), np.int32)
  batch = {
    'query_tokens': tokens,
    'document_tokens': tokens,
    'document_index': np.zeros(2, np.int32),
  }
  return model.init(
    rngs, batch, temperature=1.0, noise=0.0, deterministic=True
  )['params']


def write_index(path, settings, collection, seed):
  """An index of random vectors and codes, with real parameters."""
  params = init_params(Retriever(settings.model), seed)
  rng = np.random.default_rng(seed)
  vectors_ND = rng.normal(size=(DOCUMENTS, 8)).astype(np.float32)
  documents = list(collection.documents())
  index = Index.build(
    rng.integers(0, 4, (DOCUMENTS, 2)),
    [4, 4],
    vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True),
    [document.id for document in documents],
    [document.title for document in documents],
    [document.text for document in documents],
  )
  vocabulary = load_vocabulary(path.parent.parent / 'tokenizer.json')
  index.save(
    path,
    jax.device_get(params),
    saved_settings(settings.model, settings.search, 8, 16, to_json(settings)),
    vocabulary,
    {
      'corpus': collection.corpus_sha256(),
      'encoder_weights': '',
      'examples': 'e' * 64,
    },
  )
