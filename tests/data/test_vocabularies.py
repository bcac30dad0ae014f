"""Vocabularies: special tokens, truncation, determinism, refusals."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from gr_jax.data.vocabularies import load_vocabulary, train_sentencepiece
from gr_jax.types import UserError

TEXTS = [
  f'The {a} {b} jumps over a lazy dog, {a}ing it.'
  for a in ('quick', 'brown', 'green', 'old')
  for b in ('fox', 'cat', 'hare')
]


@pytest.fixture(scope='module')
def wordpiece(tmp_path_factory):
  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'the', 'fox', 'jump', '##s']
  vocabulary = {piece: i for i, piece in enumerate(pieces)}
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(vocabulary, unk_token='[UNK]')
  )
  tokenizer.normalizer = normalizers.BertNormalizer()
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.post_processor = processors.BertProcessing(
    ('[SEP]', 3), ('[CLS]', 2)
  )
  tokenizer.add_special_tokens(['[PAD]', '[UNK]', '[CLS]', '[SEP]'])
  tokenizer.decoder = decoders.WordPiece()
  # As published files do; neither may leak into our ids.
  tokenizer.enable_padding(length=16)
  tokenizer.enable_truncation(5)
  path = tmp_path_factory.mktemp('wordpiece') / 'tokenizer.json'
  tokenizer.save(str(path))
  return load_vocabulary(path)


def test_ids_of_mpnet_are_swapped(tmp_path):
  """Padding is 0 here, as everywhere."""
  pieces = ['<s>', '<pad>', '</s>', '[UNK]', 'the', 'fox']
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(
      {piece: i for i, piece in enumerate(pieces)}, unk_token='[UNK]'
    )
  )
  tokenizer.normalizer = normalizers.BertNormalizer()
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.post_processor = processors.RobertaProcessing(
    ('</s>', 2), ('<s>', 0)
  )
  tokenizer.add_special_tokens(pieces[:4])
  tokenizer.decoder = decoders.WordPiece()
  tokenizer.save(str(tmp_path / 'tokenizer.json'))
  mpnet = load_vocabulary(tmp_path)
  assert mpnet.encode('The fox sat', 8) == [1, 4, 5, 3, 2]
  assert mpnet.decode([1, 4, 5, 3, 2, 0]) == 'the fox'
  assert (mpnet.size, mpnet.pad_id, mpnet.unk_id) == (6, 0, 3)
  mpnet.save(tmp_path / 'saved')
  assert load_vocabulary(tmp_path / 'saved').encode('fox', 8) == [1, 5, 2]


@pytest.fixture(scope='module')
def sentencepiece(tmp_path_factory):
  directory = tmp_path_factory.mktemp('sentencepiece')
  return train_sentencepiece(TEXTS, 60, directory)


def test_wordpiece_adds_its_marks_and_cuts(wordpiece):
  assert wordpiece.encode('The fox jumps', 8) == [2, 4, 5, 6, 7, 3]
  assert wordpiece.encode('The fox jumps', 6) == [2, 4, 5, 6, 7, 3]
  assert wordpiece.encode('The fox jumps', 5) == [2, 4, 5, 6, 3]
  cut = wordpiece.encode_counted(['the fox jumps', 'the'], 5)
  assert [row.truncated for row in cut] == [True, False]
  assert wordpiece.encode('', 5) == [2, 3]
  assert wordpiece.decode([2, 4, 5, 6, 7, 3]) == 'the fox jumps'
  assert (wordpiece.size, wordpiece.pad_id) == (8, 0)


def test_sentencepiece_ends_like_t5(sentencepiece):
  whole = sentencepiece.encode(TEXTS[0], 200)
  assert whole[-1] == 1 and 0 not in whole
  assert sentencepiece.decode(whole) == TEXTS[0]
  cut = sentencepiece.encode_counted([TEXTS[0]], len(whole) - 1)[0]
  assert cut.ids == [*whole[: len(whole) - 2], 1]
  assert cut.truncated
  exact = sentencepiece.encode_counted([TEXTS[0]], len(whole))[0]
  assert exact == (whole, False)
  assert sentencepiece.size <= 60


@pytest.mark.parametrize('name', ['wordpiece', 'sentencepiece'])
def test_text_far_past_the_length_is_cut_first(name, request):
  vocabulary = request.getfixturevalue(name)
  long = 'the fox jumps ' * 50_000
  cut = vocabulary.encode_counted([long], 16)[0]
  assert cut.truncated and len(cut.ids) == 16
  assert cut.ids == vocabulary.encode('the fox jumps ' * 30, 16)


@pytest.mark.parametrize('name', ['wordpiece', 'sentencepiece'])
def test_saved_and_loaded_is_the_same(name, request, tmp_path):
  vocabulary = request.getfixturevalue(name)
  vocabulary.save(tmp_path / 'saved')
  again = load_vocabulary(tmp_path / 'saved')
  assert again.sha256 == vocabulary.sha256
  texts = [*TEXTS, '', 'ünknown 😀']
  assert again.encode_batch(texts, 9) == vocabulary.encode_batch(texts, 9)


def test_training_again_gives_the_same_bytes(sentencepiece, tmp_path):
  again = train_sentencepiece(TEXTS, 60, tmp_path)
  assert again.sha256 == sentencepiece.sha256


def test_refusals(tmp_path):
  with pytest.raises(UserError, match='no vocabulary'):
    load_vocabulary(tmp_path / 'tokenizer.json')
  (tmp_path / 'tokeniser.json').write_text('{}')
  with pytest.raises(UserError, match=r"mean 'tokeniser.json'"):
    load_vocabulary(tmp_path)
  with pytest.raises(UserError, match=r'no tokenizer\.json'):
    load_vocabulary(tmp_path / 'tokeniser.json')
  (tmp_path / 'x.model').write_bytes(b'junk')
  with pytest.raises(UserError, match='no SentencePiece model'):
    load_vocabulary(tmp_path / 'x.model')
  bpe = {'model': {'type': 'BPE', 'vocab': {}, 'merges': []}}
  (tmp_path / 'bpe.json').write_text(json.dumps(bpe))
  with pytest.raises(UserError, match='expected a WordPiece'):
    load_vocabulary(tmp_path / 'bpe.json')
  with pytest.raises(UserError, match='cannot train'):
    train_sentencepiece(['  '], 60, tmp_path)
