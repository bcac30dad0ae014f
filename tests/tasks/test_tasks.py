"""seqio Tasks, and preparation through them; one process imports TensorFlow."""

import collections
import filecmp
import json
import os
import shutil
import subprocess
import sys

import pytest

# The collection of every test here: 7 documents, 3 shards of at most 3.
ROWS = [
  {'_id': f'd{i}', 'title': f'T{i}', 'text': f'word{i} and the dog {i}. ' * 9}
  for i in range(7)
]
PIECES = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'the', 'dog', 'and', 'word']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('collection')
  (path / 'qrels').mkdir()
  dump = lambda rows: ''.join(json.dumps(row) + '\n' for row in rows)  # noqa: E731
  (path / 'corpus.jsonl').write_text(dump(ROWS))
  queries = [{'_id': f'q{i}', 'text': f'the dog {i}'} for i in range(5)]
  (path / 'queries.jsonl').write_text(dump(queries))
  (path / 'pseudo.jsonl').write_text(
    dump([{'_id': 'd6', 'queries': ['the dog', 'and']}])
  )
  lines = [f'q{i}\td{6 - i}\t{int(i != 2)}\n' for i in range(5)]
  (path / 'qrels/train.tsv').write_text(
    'query-id\tcorpus-id\tscore\n' + ''.join(lines)
  )
  return path


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  import tokenizers
  from tokenizers import models, pre_tokenizers, processors

  from gr_jax.data.vocabularies import load_vocabulary

  tokenizer = tokenizers.Tokenizer(
    models.WordPiece(
      {piece: i for i, piece in enumerate(PIECES)}, unk_token='[UNK]'
    )
  )
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.post_processor = processors.BertProcessing(
    ('[SEP]', 3), ('[CLS]', 2)
  )
  path = tmp_path_factory.mktemp('vocabulary') / 'tokenizer.json'
  tokenizer.save(str(path))
  return load_vocabulary(path), path


@pytest.fixture(scope='module')
def make_settings(folder, vocabulary):
  from gr_jax.data.preparation_settings import SOURCES, PreparationSettings

  def make(**kwargs):
    defaults = {
      'data_dir': str(folder),
      'vocabulary': str(vocabulary[1]),
      'query_length': 6,
      'document_length': 10,
      'sources': SOURCES,
      'spans_per_document': 3,
      'extractive_per_document': 2,
      'pseudo_queries': str(folder / 'pseudo.jsonl'),
      'documents_per_shard': 3,
    }
    return PreparationSettings(**{**defaults, **kwargs})

  return make


@pytest.fixture(scope='module')
def prepared(make_settings, tmp_path_factory):
  from gr_jax.tasks.beir import beir_tasks

  from gr_jax.data.prepare import prepare
  from gr_jax.data.prepared import PreparedData

  directory = tmp_path_factory.mktemp('run') / 'prepared'
  prepare(make_settings(), directory, beir_tasks)
  assert [path.name for path in directory.parent.iterdir()] == ['prepared']
  return PreparedData(directory)


def test_prepared_examples_lead_to_their_documents(prepared, vocabulary):
  prepared.verify()
  words = vocabulary[0]
  assert prepared.document_ids == [f'd{i}' for i in range(7)]
  texts = [f'{row["title"]} {row["text"]}' for row in ROWS]
  documents = prepared.document_tokens(range(7))
  assert [row.tolist() for row in documents] == words.encode_batch(texts, 10)
  assert prepared.manifest['documents']['truncated'] == 7
  assert len(prepared.manifest['documents']['shards']) == 3
  labelled = prepared.sources['labelled']
  pairs = [
    (labelled.example(i).query_id, labelled.example(i).document_index)
    for i in range(len(labelled))
  ]
  assert pairs == [('q0', 6), ('q1', 5), ('q3', 3), ('q4', 2)]
  assert labelled[2][0].tolist() == words.encode('the dog 3', 6)
  pseudo = prepared.sources['pseudo']
  assert [pseudo[i][1] for i in range(len(pseudo))] == [6, 6]
  for name in ('document', 'spans', 'extractive'):
    source = prepared.sources[name]
    owners = source.document_indices.tolist()
    assert owners == sorted(owners)
    assert set(owners) == set(range(7))
    assert [source[i][1] for i in range(len(source))] == owners


def test_currency_follows_inputs_and_settings(
  prepared, make_settings, folder, monkeypatch
):
  from gr_jax.data.prepared import is_current

  assert is_current(make_settings(), prepared.directory)
  assert is_current(make_settings(runner='beam'), prepared.directory)
  for change in ({'query_length': 7}, {'seed': 1}, {'spans_per_document': 2}):
    assert not is_current(make_settings(**change), prepared.directory)
  path = folder / 'pseudo.jsonl'
  before = path.read_text()
  path.write_text(before.replace('and', 'end'))
  assert not is_current(make_settings(), prepared.directory)
  path.write_text(before)
  assert is_current(make_settings(), prepared.directory)


def test_parts_have_checksums_of_their_own(prepared, make_settings, tmp_path):
  from gr_jax.tasks.beir import beir_tasks

  from gr_jax.data.prepare import prepare
  from gr_jax.data.prepared import PreparedData

  sources = ('labelled', 'spans')
  settings = make_settings(
    sources=sources, spans_per_document=2, pseudo_queries=''
  )
  prepare(settings, tmp_path / 'fewer', beir_tasks)
  fewer = PreparedData(tmp_path / 'fewer')
  for part in ('documents', 'labelled'):
    assert fewer.part_sha256(part) == prepared.part_sha256(part)
  assert fewer.part_sha256('spans') != prepared.part_sha256('spans')
  every = ['documents', *prepared.sources]
  assert len({prepared.part_sha256(part) for part in every}) == len(every)


@pytest.mark.soak
def test_beam_gives_the_same_bytes(prepared, make_settings, tmp_path):
  from gr_jax.tasks.beir import beir_tasks

  from gr_jax.data.prepare import prepare

  settings = make_settings(
    runner='beam', beam_options=('--runner=DirectRunner',)
  )
  prepare(settings, tmp_path / 'beam', beir_tasks)
  names = [*prepared.manifest['files']]
  same, different, missing = filecmp.cmpfiles(
    prepared.directory, tmp_path / 'beam', names, shallow=False
  )
  assert (sorted(same), different, missing) == (sorted(names), [], [])


def test_bad_records_leave_the_rest_as_it_was(
  prepared, make_settings, folder, tmp_path
):
  from gr_jax.tasks.beir import beir_tasks

  from gr_jax.data.prepare import prepare
  from gr_jax.data.prepared import PreparedData
  from gr_jax.types import UserError

  bad = tmp_path / 'bad'
  (bad / 'qrels').mkdir(parents=True)
  for name in ('queries.jsonl', 'qrels/train.tsv'):
    (bad / name).write_bytes((folder / name).read_bytes())
  lines = (folder / 'corpus.jsonl').read_text().splitlines()
  # The duplicate of d0 falls into another shard than d0.
  lines[5:5] = ['{"_id": "d0", "text": "again"}', '{broken']
  (bad / 'corpus.jsonl').write_text('\n'.join(lines))
  settings = make_settings(data_dir=str(bad), max_bad_records=2)
  prepare(settings, tmp_path / 'out', beir_tasks)
  again = PreparedData(tmp_path / 'out')
  assert [r['line'] for r in again.manifest['bad_records']] == [6, 7]
  for name, entry in prepared.manifest['files'].items():
    assert again.manifest['files'][name] == entry
  with pytest.raises(UserError, match='after 1 bad records'):
    prepare(
      make_settings(data_dir=str(bad), max_bad_records=1),
      tmp_path / 'none',
      beir_tasks,
    )
  assert sorted(path.name for path in tmp_path.iterdir()) == ['bad', 'out']


def test_registered_tasks_and_mixtures_give_both_features(
  make_settings, vocabulary, tmp_path
):
  import seqio
  from gr_jax.tasks.beir import beir_tasks, register
  from gr_jax.tasks.mixtures import register_mixture

  from gr_jax.data.text_examples import make_plan
  from gr_jax.types import UserError

  plan = make_plan(make_settings(), tmp_path / 'ids.txt')
  tasks = beir_tasks(plan, vocabulary[0])
  for _ in range(2):  # a second registration replaces the first
    names = dict(zip(tasks, register('tiny', tasks), strict=True))
  register_mixture('tiny_mix', names, {'labelled': 1.0, 'spans': 3.0})
  lengths = {'query': 6, 'document': 10}
  rows = seqio.get_mixture_or_task('tiny_labelled').get_dataset(
    sequence_length=lengths, split='train', shuffle=False
  )
  row = next(iter(rows.as_numpy_iterator()))
  assert row['query'].tolist() == vocabulary[0].encode('the dog 0', 6)
  assert (row['query_id'], row['document_id']) == (b'q0', b'd6')
  document = vocabulary[0].encode(f'T6 {ROWS[6]["text"]}', 10)
  assert row['document'].tolist() == document
  mixed = seqio.get_mixture_or_task('tiny_mix').get_dataset(
    sequence_length=lengths,
    split='train',
    shuffle=False,
    seed=0,
    passthrough_features=['query_id', 'document_index'],
  )
  kinds = [
    b'spans' in row['query_id'] for row in mixed.take(24).as_numpy_iterator()
  ]
  assert 12 <= sum(kinds) <= 22
  with pytest.raises(UserError, match=r"no Task of 'span'.*mean 'spans'"):
    register_mixture('tiny_mix', names, {'span': 1.0})


def test_vocabularies_answer_seqio(vocabulary):
  import tensorflow as tf

  from gr_jax.data.seqio_features import SeqioVocabulary

  ours = vocabulary[0]
  wrapped = SeqioVocabulary(ours)
  ids = ours.encode('the dog', 8)
  assert wrapped.vocab_size == ours.size
  assert wrapped.encode('the dog') == ids
  encoded = wrapped.encode_tf(tf.constant('the dog'))
  assert encoded.numpy().tolist() == ids
  assert wrapped.decode(ids) == ours.decode(ids)
  decoded = wrapped.decode_tf(encoded).numpy().decode()
  assert decoded == ours.decode(ids)


def test_ir_datasets_objects_become_tasks(make_settings, vocabulary, tmp_path):
  from gr_jax.tasks import ir_datasets as tasks
  from ir_datasets.formats import GenericQuery, TrecQrel

  from gr_jax.data.collection import Collection

  Passage = collections.namedtuple('Passage', 'doc_id title body url')

  class Local:
    has_docs = has_queries = has_qrels = lambda self: True

    def docs_iter(self):
      yield Passage('a', 'First', 'the dog', 'x')
      yield Passage('b', None, 'and the', 'y')

    def queries_iter(self):
      yield GenericQuery('1', 'dog')

    def qrels_iter(self):
      yield TrecQrel('1', 'a', 2, '0')
      yield TrecQrel('1', 'b', -2, '0')

  tasks.write_ir_datasets({'train': Local()}, tmp_path / 'local')
  collection = Collection(tmp_path / 'local')
  assert [d.text for d in collection.documents()] == ['the dog', 'and the']
  assert [j.relevance for j in collection.judgements('train')] == [2, 0]
  made = tasks.ir_datasets_tasks(
    {'train': 'unused: the folder is there'},
    tmp_path / 'local',
    make_settings(sources=('labelled',), pseudo_queries=''),
    vocabulary[0],
  )
  rows = made['labelled'].get_dataset(
    sequence_length={'query': 6, 'document': 10}, split='train', shuffle=False
  )
  assert [row['document_id'] for row in rows.as_numpy_iterator()] == [b'a']


def test_python_docs_become_tasks(
  folder, make_settings, vocabulary, tmp_path, monkeypatch
):
  from gr_jax.tasks import python_docs

  written = []

  def write(directory):
    written.append(directory)
    shutil.copytree(folder, directory)

  monkeypatch.setattr(python_docs, 'write_python_docs', write)
  for _ in range(2):  # what is there is not written again
    made = python_docs.python_docs_tasks(
      tmp_path / 'docs', make_settings(data_dir='elsewhere'), vocabulary[0]
    )
  assert written == [tmp_path / 'docs']
  rows = made['corpus'].get_dataset(
    sequence_length={'document': 10}, split='train', shuffle=False
  )
  ids = [row['document_id'].decode() for row in rows.as_numpy_iterator()]
  assert ids == [row['_id'] for row in ROWS]


def run_door(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'gr_jax.prepare', *arguments],
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
    # What JAX sets, and what makes TensorFlow talkative.
    env={
      **os.environ,
      'TF_CPP_MIN_LOG_LEVEL': '1',
      'TF_ENABLE_ONEDNN_OPTS': '1',
    },
  )


def test_the_door_prepares_or_refuses_in_one_line(
  folder, vocabulary, prepared, make_settings, tmp_path
):
  from gr_jax.data.prepared import PreparedData
  from gr_jax.settings import register, to_json

  register(type(make_settings()))
  request = tmp_path / 'settings.json'
  request.write_text(json.dumps(to_json(make_settings())))
  output = tmp_path / 'out'
  done = run_door(f'--settings={request}', f'--output={output}')
  assert done.returncode == 0, done.stderr
  assert PreparedData(output).manifest == prepared.manifest
  assert '7 documents' in done.stdout
  assert done.stderr == ''
  missing = to_json(make_settings(data_dir=str(folder) + 'x'))
  request.write_text(json.dumps(missing))
  done = run_door(f'--settings={request}', f'--output={tmp_path / "none"}')
  assert done.returncode == 2
  lines = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
  assert len(lines) == 1 and 'did you mean' in lines[0]
  assert 'Traceback' not in done.stderr
  assert sorted(p.name for p in tmp_path.iterdir()) == ['out', 'settings.json']
