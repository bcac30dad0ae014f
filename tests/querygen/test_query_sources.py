"""Queries that are brought, in all layouts, and those cut from documents."""

import gzip
import importlib.util
import json
import shutil

import pytest
from tiny_collection import write_collection

from gr_jax.data.collection import Collection
from gr_jax.querygen.instruction import Instructed, first_line, prompt_tokens
from gr_jax.querygen.query_settings import (
  ExtractiveSource,
  FileSource,
  GeneratorSource,
  InstructionSource,
)
from gr_jax.querygen.sampling import SamplingSettings
from gr_jax.querygen.sources import Extracts, Generated, open_file
from gr_jax.querygen.words import Frequencies, contains, words
from gr_jax.types import UserError, document_text


@pytest.fixture(scope='module')
def collection(tmp_path_factory):
  return Collection(write_collection(tmp_path_factory.mktemp('c') / 'tiny'))


def texts(source, documents, first=0):
  found = source.queries(documents, first)
  return [[candidate.text for candidate in own] for own in found]


class Echo:
  """Writes ids."""

  sha256 = 'abc'
  batch_size = 16

  def generate(self, documents, settings, seed, prefix=''):
    return [
      [
        (f'{prefix}{document.id} {seed} {number}', -1.5)
        for number in range(settings.queries)
      ]
      for document in documents
    ]


def test_generators_are_asked_with_seed_and_language(collection):
  documents = list(collection.documents())[:2]
  asked = GeneratorSource('run', SamplingSettings(2), 'de')
  source = Generated(Echo(), asked, 7)
  assert source.provenance == 'abc'
  found = source.queries(documents, 0)
  assert [candidate.text for candidate in found[1]] == [
    f'de:{documents[1].id} 7 0',
    f'de:{documents[1].id} 7 1',
  ]
  assert found[0][0].log_probability == -1.5
  plain = Generated(Echo(), GeneratorSource('run'), 7)
  assert texts(plain, documents)[0][0] == f'{documents[0].id} 7 0'


def lines(documents, number):
  return ''.join(f'q{number} {document.id}\n' for document in documents)


def test_files_in_the_order_of_the_corpus(collection, tmp_path):
  documents = list(collection.documents())
  path = tmp_path / 'queries.txt'
  path.write_text(
    ''.join(f'one {d.id}\t two {d.id} \t\n' for d in documents[:-1]) + '\n'
  )
  source = open_file(FileSource(str(path)), collection)
  whole = texts(source, documents)
  assert whole[3] == [f'one {documents[3].id}', f'two {documents[3].id}']
  assert whole[-1] == []
  # Any part, forwards or from the start again.
  assert texts(source, documents[5:9], 5) == whole[5:9]
  assert texts(source, documents[20:22], 20) == whole[20:22]
  first = open_file(FileSource(str(path), 1), collection)
  assert texts(first, documents[:2]) == [own[:1] for own in whole[:2]]


def test_samples_of_doctttttquery(collection, tmp_path):
  documents = list(collection.documents())
  for sample in (0, 1, 10):
    for chunk, part in ((0, documents[:25]), (1, documents[25:])):
      name = f'predicted_queries_topk_sample{sample:03d}.txt{chunk:03d}-1004000'
      (tmp_path / name).write_text(lines(part, sample))
  source = open_file(FileSource(str(tmp_path)), collection)
  assert texts(source, documents[24:26], 24) == [
    [f'q{sample} {document.id}' for sample in (0, 1, 10)]
    for document in documents[24:26]
  ]
  other = tmp_path / 'predicted_queries_topk_sample010.txt001-1004000'
  other.write_text(lines(documents[26:], 10))
  with pytest.raises(UserError, match=r'expected 40 lines.*got 39'):
    open_file(FileSource(str(tmp_path)), collection)


def test_json_lines_are_found_by_document(collection, tmp_path):
  documents = list(collection.documents())
  path = tmp_path / 'q.jsonl.gz'
  rows = [
    {'_id': documents[4].id, 'queries': ['a', 'b']},
    {'document_id': documents[2].id, 'query': 'c'},
    {'document_id': documents[4].id, 'query': 'd'},
  ]
  with gzip.open(path, 'wt') as file:
    file.writelines(json.dumps(row) + '\n' for row in rows)
  source = open_file(FileSource(str(path)), collection)
  assert texts(source, documents[2:5], 2) == [['c'], [], ['a', 'b', 'd']]


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('q.txt', b'one\n', 'each of the 40 documents.*got 1'),
    ('q.txt', b'\xff\n' * 40, 'q.txt:1: not UTF-8'),
    ('q.txt.gz', b'\x1f\x8bgarbage', 'broken gzip'),
    ('q.jsonl', b'{"_id": "x", "queries": ["a"]}', "'x' is not in the corpus"),
    ('folder/readme', b'', 'predicted_queries_topk_sample'),
  ],
)
def test_bad_files_are_refused(collection, tmp_path, name, content, message):
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(content)
  asked = path.parent if '/' in name else path
  with pytest.raises(UserError, match=message):
    source = open_file(FileSource(str(asked)), collection)
    source.queries(list(collection.documents()), 0)
  with pytest.raises(UserError, match='none there'):
    open_file(FileSource(str(tmp_path / 'missing')), collection)


def test_extracts_are_of_the_document_alone(collection):
  documents = list(collection.documents())
  frequencies = Frequencies(map(document_text, documents))
  source = Extracts(ExtractiveSource(3, 2, 2, 4, 2), 7, frequencies)
  whole = texts(source, documents)
  assert texts(source, documents[9:12], 9) == whole[9:12]
  for document, own in zip(documents, whole, strict=True):
    assert own[0] == document.title
    outer = words(document_text(document))
    assert all(contains(outer, words(text)) for text in own)
  nothing = Extracts(ExtractiveSource(0, 0, 2, 4, 0), 7, None)
  assert texts(nothing, documents[:1]) == [[]]


@pytest.mark.parametrize(
  ('written', 'query'),
  [(' "Who is it?"\nBecause', 'Who is it?'), ('\n\n a b ', 'a b'), ('', '')],
)
def test_a_model_writes_a_query_in_its_first_line(written, query):
  assert first_line(written) == query


class Marking:
  """A tokenizer that begins texts with <s>, as its template does."""

  def __init__(self, chat_template):
    self.chat_template = chat_template

  def apply_chat_template(self, messages, tokenize, add_generation_prompt):
    assert not tokenize and add_generation_prompt
    return f'<s> {messages[0]["content"]} !'

  def __call__(self, text, return_tensors, add_special_tokens):
    return ['<s>'] * add_special_tokens + text.split()


@pytest.mark.parametrize(
  'template, tokens', [(None, ['<s>', 'ask']), ('t', ['<s>', 'ask', '!'])]
)
def test_a_prompt_begins_once(template, tokens):
  assert prompt_tokens(Marking(template), 'ask') == tokens


def test_instructions_need_a_model(tmp_path, monkeypatch):
  if importlib.util.find_spec('transformers'):
    with pytest.raises(UserError, match=r'it has no config\.json'):
      Instructed(InstructionSource(str(tmp_path)), 0)
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name: None if name == 'torch' else find(name),
  )
  with pytest.raises(UserError, match=r'needs.*torch.*gr_jax.instruction'):
    Instructed(InstructionSource(str(tmp_path)), 0)
  with pytest.raises(UserError, match=r'must hold \{document\}'):
    InstructionSource(instruction='Write.')


@pytest.fixture
def causal_model(tmp_path):
  """A folder of a tiny random causal language model."""
  reason = 'torch and transformers are not installed'
  transformers = pytest.importorskip('transformers', reason=reason)
  torch = pytest.importorskip('torch', reason=reason)
  tokenizers = pytest.importorskip('tokenizers')
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.WordLevel({'[UNK]': 0, '</s>': 1}, unk_token='[UNK]')
  )
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  trainer = tokenizers.trainers.WordLevelTrainer(
    special_tokens=['[UNK]', '</s>']
  )
  tokenizer.train_from_iterator(['which otter lives at the river now'], trainer)
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, unk_token='[UNK]', eos_token='</s>'
  ).save_pretrained(tmp_path / 'model')
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=tokenizer.get_vocab_size(),
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    eos_token_id=1,
    bos_token_id=None,
  )
  model = transformers.LlamaForCausalLM(config)
  model.save_pretrained(tmp_path / 'model')
  return tmp_path / 'model'


def test_a_language_model_writes_queries(collection, causal_model):
  documents = list(collection.documents())[:3]
  asked = InstructionSource(str(causal_model), count=2, max_tokens=6)
  source = Instructed(asked, 0)
  whole = source.queries(documents, 0)
  assert [len(own) for own in whole] == [2, 2, 2]
  for candidate in whole[0]:
    assert candidate.source == 'instruction'
    assert 1 <= len(candidate.text.split()) <= 6
  # Neighbours do not matter, and the same files are the same model.
  assert source.queries(documents[2:], 2) == whole[2:]
  other = causal_model.with_name('copy')
  shutil.copytree(causal_model, other)
  again = Instructed(InstructionSource(str(other), 2, max_tokens=6), 0)
  assert again.provenance == source.provenance
  assert again.queries(documents, 0) == whole
  seed = Instructed(asked, 1)
  assert seed.queries(documents, 0) != whole
