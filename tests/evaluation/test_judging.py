import json

import numpy as np
import pytest

from gr_jax.data.collection import Collection
from gr_jax.evaluation.judging import check_documents, judge, questions
from gr_jax.evaluation.lexical import Lexical
from gr_jax.evaluation.run_files import read_run
from gr_jax.index.index import Index
from gr_jax.types import UserError

TEXTS = {'d1': 'apple pie', 'd2': 'grand piano', 'd3': 'green river'}


@pytest.fixture
def collection(tmp_path):
  folder = tmp_path / 'toy'
  (folder / 'qrels').mkdir(parents=True)
  lines = [
    json.dumps({'_id': name, 'title': '', 'text': text})
    for name, text in TEXTS.items()
  ]
  (folder / 'corpus.jsonl').write_text('\n'.join(lines) + '\n')
  queries = [
    json.dumps({'_id': f'q{name}', 'text': text.split()[1]})
    for name, text in TEXTS.items()
  ]
  (folder / 'queries.jsonl').write_text('\n'.join(queries) + '\n')
  rows = ['query-id\tcorpus-id\tscore', 'qd1\td1\t1', 'qd3\td3\t1']
  (folder / 'qrels' / 'test.tsv').write_text('\n'.join(rows) + '\n')
  return Collection(folder)


def index_of(names):
  count = len(names)
  codes_NL = np.zeros((count, 2), int)
  vectors_ND = np.zeros((count, 4), np.float32)
  blank = [''] * count
  return Index.build(codes_NL, [2, 2], vectors_ND, names, blank, blank)


def test_a_split_is_judged_and_its_run_is_written(collection, tmp_path):
  systems = [('BM25', Lexical(collection.documents()))]
  (row,) = judge(
    systems,
    questions(collection, 'test'),
    tmp_path / 'runs',
    tmp_path / 'kept',
    batch=2,
  )
  assert row.scores.means()['R@1'] == 1
  assert row.scores.query_ids == ('qd1', 'qd3')
  run = read_run(tmp_path / 'runs' / 'bm25.test.trec')
  assert {query: list(found) for query, found in run.items()} == {
    'qd1': ['d1'],
    'qd3': ['d3'],
  }


def test_queries_of_a_split_keep_the_order_of_the_collection(collection):
  path = collection.directory / 'qrels' / 'test.tsv'
  lines = path.read_text().splitlines()
  path.write_text('\n'.join([lines[0], *reversed(lines[1:])]) + '\n')
  found = questions(Collection(collection.directory), 'test')
  assert [query.id for query in found.queries] == ['qd1', 'qd3']


def test_splits_without_questions_are_refused(collection):
  with pytest.raises(UserError, match=r"no split 'tset'.*'test'"):
    questions(collection, 'tset')
  path = collection.directory / 'qrels' / 'dev.tsv'
  path.write_text('query-id\tcorpus-id\tscore\n')
  with pytest.raises(UserError, match='dev'):
    questions(Collection(collection.directory), 'dev')


def test_an_index_of_another_corpus_is_refused(collection, tmp_path):
  check_documents(index_of(['d3', 'd1', 'd2']), tmp_path, collection)
  with pytest.raises(UserError, match='1 are missing and 0 are foreign'):
    check_documents(index_of(['d1', 'd2']), tmp_path, collection)
  with pytest.raises(UserError, match='0 are missing and 1 are foreign'):
    check_documents(index_of([*TEXTS, 'd4']), tmp_path, collection)
