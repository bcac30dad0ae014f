"""The tiny collection for models of texts: its vocabulary, and it prepared."""

import dataclasses
import json

import numpy as np
import tiny_collection

from gr_jax.checksums import file_sha256
from gr_jax.data import prepared, shard_files
from gr_jax.data.collection import Collection
from gr_jax.data.preparation_settings import FORMAT, inputs_hash
from gr_jax.data.text_examples import controlled
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.types import document_text

WORDS = [
  *tiny_collection.ANIMALS,
  *tiny_collection.PLACES,
  *('the', 'lives', 'at', 'and', 'sleeps', 'by', 'day', 'of', 'which', 'is'),
  '.',
]


def write_vocabulary(folder, more=()):
  """A tokenizer.json of the words of the tiny collection, and of more."""
  from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
  from tokenizers.processors import TemplateProcessing

  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *WORDS, *more]
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


def write_prepared(path, settings):
  """What preparation would write, without TensorFlow's seconds."""
  path.mkdir(parents=True)
  lengths = {
    name: getattr(settings.preparation, name)
    for name in ('query_length', 'document_length')
  }
  collection = Collection(settings.data_dir)
  vocabulary = load_vocabulary(settings.preparation.vocabulary)
  vocabulary.save(path / 'vocabulary')
  documents = list(collection.documents())
  row_of = {document.id: row for row, document in enumerate(documents)}
  field = settings.preparation.control_field
  texts = {
    query.id: controlled(query, field) if field else query.text
    for query in collection.queries()
  }
  (path / 'document_ids.txt').write_text(''.join(f'{d}\n' for d in row_of))
  tokens = vocabulary.encode_batch(
    list(map(document_text, documents)), lengths['document_length']
  )
  shards = [
    'documents-00000.array_record',
    'examples-labelled-00000.array_record',
  ]
  shard_files.write_shard(
    path / shards[0], map(shard_files.encode_tokens, tokens)
  )
  examples = [
    shard_files.Example(
      np.array(vocabulary.encode(texts[j.query_id], lengths['query_length'])),
      row_of[j.document_id],
      j.query_id,
    )
    for j in collection.judgements('train')
  ]
  owners = np.array([e.document_index for e in examples], np.int32)
  np.save(path / prepared.document_indices_file('labelled'), owners)
  shard_files.write_shard(
    path / shards[1], map(shard_files.encode_example, examples)
  )
  preparation = dataclasses.replace(
    settings.preparation, data_dir=settings.data_dir
  )
  manifest = {
    'format': FORMAT,
    'settings': lengths,
    'inputs_sha256': inputs_hash(preparation),
    'documents': {'count': len(documents), 'shards': shards[:1]},
    'sources': {'labelled': {'count': len(examples), 'shards': shards[1:]}},
    'files': {
      file.relative_to(path).as_posix(): {
        'bytes': file.stat().st_size,
        'sha256': file_sha256(file),
      }
      for file in path.rglob('*')
      if file.is_file()
    },
  }
  (path / 'manifest.json').write_text(json.dumps(manifest))
