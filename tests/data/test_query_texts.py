"""Queries cut from documents, and pseudo-queries that users bring."""

import json

import pytest

from gr_jax.data import text_examples
from gr_jax.data.extractive import extractive_queries, random_spans
from gr_jax.data.preparation_settings import PreparationSettings, inputs_hash
from gr_jax.data.pseudo_queries import read_pseudo_queries
from gr_jax.data.text_examples import TextExamples, make_plan
from gr_jax.types import Document, UserError

TEXT = 'Cats sleep a lot. Dogs bark at night! Do birds sing?\nYes they do.'
DOCUMENT = Document('d1', 'Animals', TEXT)


def test_extractive_queries_are_title_and_sentences():
  queries = extractive_queries(DOCUMENT, 4, seed=0)
  assert queries[0] == 'Animals'
  assert len(set(queries)) == 4
  sentences = {'Cats sleep a lot.', 'Dogs bark at night!', 'Do birds sing?'}
  assert set(queries[1:]) <= sentences | {'Yes they do.'}


def test_spans_fill_where_sentences_run_out():
  queries = extractive_queries(Document('d', '', 'one two three four'), 3, 0)
  assert queries[0] == 'one two three four'
  assert len(queries) >= 2
  assert all(query in 'one two three four' for query in queries)


def test_spans_are_runs_of_words_of_the_document():
  joined = ' '.join(f'Animals {TEXT}'.split())
  spans = random_spans(DOCUMENT, 20, 3, 5, seed=0)
  assert len(spans) == len(set(spans)) > 10
  for span in spans:
    assert span in joined
    assert 3 <= len(span.split()) <= 5
  assert random_spans(Document('d', '', 'one'), 3, 3, 5, 0) == ['one']


@pytest.mark.parametrize(
  'make',
  [
    lambda document, seed: random_spans(document, 4, 2, 5, seed),
    lambda document, seed: extractive_queries(document, 3, seed),
  ],
)
def test_each_document_draws_alone(make):
  assert make(DOCUMENT, 0) == make(DOCUMENT, 0)
  others = [make(Document(f'x{i}', 'Animals', TEXT), 0) for i in range(8)]
  assert any(other != make(DOCUMENT, 0) for other in others)
  assert any(make(DOCUMENT, seed) != make(DOCUMENT, 0) for seed in range(8))


def refuse(path, line, reason):
  raise UserError(f'{path}:{line}: {reason}')


def test_pseudo_queries_in_both_layouts(tmp_path):
  path = tmp_path / 'queries.jsonl'
  rows = [
    {'_id': 'd1', 'queries': ['a', 'b']},
    {'document_id': 'd2', 'query': 'c'},
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  found = list(read_pseudo_queries(path, {'d1', 'd2'}, refuse))
  assert found == [('d1', 'a'), ('d1', 'b'), ('d2', 'c')]


@pytest.mark.parametrize(
  ('row', 'reason'),
  [
    ({'_id': 'd9', 'queries': ['a']}, "'d9' is not in the corpus"),
    ({'_id': 'd1', 'queries': []}, 'a query at least'),
    ({'_id': 'd1', 'queries': 'a'}, 'must be a list'),
    ({'_id': 'd1', 'queries': [3]}, 'must be a string'),
    ({'document_id': 'd1', 'query': ' '}, 'a query is blank'),
    ({'document_id': 'd1'}, "no 'query'"),
  ],
)
def test_bad_pseudo_queries_are_refused(tmp_path, row, reason):
  path = tmp_path / 'queries.jsonl'
  path.write_text(json.dumps(row))
  with pytest.raises(UserError, match=r'queries\.jsonl:1: ') as error:
    list(read_pseudo_queries(path, {'d1'}, refuse))
  assert reason in str(error.value)
  with pytest.raises(UserError, match='none is there'):
    list(read_pseudo_queries(tmp_path / 'x', {'d1'}, refuse))


def test_labelled_queries_begin_with_their_control_field(tmp_path):
  (tmp_path / 'qrels').mkdir()
  (tmp_path / 'corpus.jsonl').write_text('{"_id": "d", "text": "a"}\n')
  rows = [
    {'_id': 'q1', 'text': 'wie hoch', 'language': 'de'},
    {'_id': 'q2', 'text': 'how high'},
  ]
  (tmp_path / 'queries.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  (tmp_path / 'qrels' / 'train.tsv').write_text(
    'query-id\tcorpus-id\tscore\nq1\td\t1\nq2\td\t1\n'
  )
  found, hashes = {}, set()
  for field in ('', 'language', 'tongue'):
    settings = PreparationSettings(
      data_dir=str(tmp_path), sources=('labelled',), control_field=field
    )
    plan = make_plan(settings, tmp_path / 'ids.txt')
    examples = TextExamples(plan).examples('labelled', 0)
    found[field] = [example.query for example in examples]
    hashes.add(inputs_hash(settings))
  plain = ['wie hoch', 'how high']
  assert found == {
    '': plain,
    'language': ['de: wie hoch', 'how high'],
    'tongue': plain,
  }
  assert len(hashes) == 3


def test_files_are_read_once_for_all_shards_in_order(tmp_path, monkeypatch):
  (tmp_path / 'corpus.jsonl').write_text('{"_id": "d", "text": "a"}\n')
  queries = [f'query {number}' for number in range(10)]
  pseudo = tmp_path / 'pseudo.jsonl'
  pseudo.write_text(json.dumps({'_id': 'd', 'queries': queries}))
  settings = PreparationSettings(
    data_dir=str(tmp_path),
    sources=('pseudo',),
    pseudo_queries=str(pseudo),
    documents_per_shard=3,
  )
  plan = make_plan(settings, tmp_path / 'ids.txt')
  opened = []

  def read(path, *more):
    opened.append(path)
    return read_pseudo_queries(path, *more)

  monkeypatch.setattr(text_examples, 'read_pseudo_queries', read)
  reader = TextExamples(plan)

  def shard(number):
    return [example.query for example in reader.examples('pseudo', number)]

  parts = [shard(number) for number in range(plan.shards('pseudo'))]
  assert len(opened) == 1
  assert parts == [queries[0:3], queries[3:6], queries[6:9], queries[9:]]
  # In any other order, and where a reader left off early, all the same.
  next(reader.examples('pseudo', 2))
  assert [shard(n) for n in (3, 1, 2, 0)] == [parts[n] for n in (3, 1, 2, 0)]
