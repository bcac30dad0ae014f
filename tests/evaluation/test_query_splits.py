"""Queries divided anew: who is trained on what, and judged with what."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_collection import ANIMALS, write_collection

from gr_jax import split_queries
from gr_jax.data.collection import Collection
from gr_jax.evaluation.query_splits import folds, some_documents
from gr_jax.evaluation.query_vectors import clusters, word_vectors
from gr_jax.types import Judgement, UserError


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return write_collection(tmp_path_factory.mktemp('data') / 'tiny')


def relevant(collection, split):
  # A cluster may have no query of a split.
  if split not in collection.splits():
    return {}
  return {
    judgement.query_id: judgement.document_id
    for judgement in collection.judgements(split)
  }


def test_documents_whose_labels_are_withheld(folder, tmp_path, capsys):
  asked = [f'--data_dir={folder}', '--by=documents', '--share=.25']
  assert split_queries.main([*asked, f'--output={tmp_path / "a"}']) == 0
  assert "'train': 60" in capsys.readouterr().out
  made = Collection(tmp_path / 'a')
  trained = set(relevant(made, 'train').values())
  judged = set(relevant(made, 'test').values())
  assert judged == set(relevant(made, 'dev').values())
  assert (len(trained), len(judged)) == (30, 10)
  assert trained | judged == set(made.document_index())
  # The corpus is the same file.
  there = tmp_path / 'a' / 'corpus.jsonl'
  assert there.samefile(folder / 'corpus.jsonl')
  split_queries.main([*asked, f'--output={tmp_path / "b"}'])
  split_queries.main([*asked, f'--output={tmp_path / "c"}', '--seed=1'])
  assert relevant(Collection(tmp_path / 'b'), 'test').keys() == (
    relevant(made, 'test').keys()
  )
  other = relevant(Collection(tmp_path / 'c'), 'test')
  assert other.keys() != relevant(made, 'test').keys()
  with pytest.raises(UserError, match='choose another --output'):
    split_queries.main([*asked, f'--output={tmp_path / "a"}'])


@pytest.mark.parametrize('kind', ['interpolation', 'extrapolation'])
def test_folds_judge_with_clusters(folder, tmp_path, kind):
  output = tmp_path / 'folds'
  lines = split_queries.split(folder, output, kind, folds=4)
  whole = Collection(folder)
  tests = []
  for line in lines:
    made = Collection(output / line['folder'])
    test, train = relevant(made, 'test'), relevant(made, 'train')
    tests += list(test)
    inside = of_fold(output, line)
    assert len(train) == 80 - len(inside)
    assert bool(set(train) & inside) == (kind == 'interpolation')
  assert sorted(tests) == sorted(relevant(whole, 'test'))
  said = json.loads((output / 'split.json').read_text())
  assert (said['by'], said['folds'], said['seed']) == (kind, 4, 0)


def test_each_training_query_is_asked_by_one_fold(folder, tmp_path, capsys):
  asked = [f'--data_dir={folder}', '--by=queries', '--folds=3']
  assert split_queries.main([*asked, f'--output={tmp_path / "a"}']) == 0
  assert "fold_2: queries: {'" in capsys.readouterr().out
  whole = Collection(folder)
  train, tests = relevant(whole, 'train'), {}
  for number in range(3):
    made = Collection(tmp_path / 'a' / f'fold_{number}')
    test = relevant(made, 'test')
    assert len(test) in (26, 27)
    assert relevant(made, 'train') == {
      query: document for query, document in train.items() if query not in test
    }
    assert relevant(made, 'dev') == relevant(whole, 'dev')
    assert not tests.keys() & test.keys()
    tests |= test
  assert tests == train
  split_queries.main([*asked, f'--output={tmp_path / "b"}', '--seed=1'])
  other = Collection(tmp_path / 'b' / 'fold_0')
  first = Collection(tmp_path / 'a' / 'fold_0')
  assert relevant(other, 'test') != relevant(first, 'test')
  with pytest.raises(UserError, match='81 folds of 80 queries'):
    split_queries.split(folder, tmp_path / 'c', 'queries', folds=81)


def of_fold(output, line):
  """All queries of a cluster: dev has one of each pair, test the other."""
  made = Collection(output / line['folder'])
  return {*relevant(made, 'dev'), *relevant(made, 'test')}


def test_clusters_are_of_like_queries():
  texts = [
    f'{animal} and {animal} {number}'
    for animal in ANIMALS[:4]
    for number in range(12)
  ]
  vectors_BD = word_vectors(texts)
  np.testing.assert_allclose(np.linalg.norm(vectors_BD, axis=1), 1, rtol=1e-5)
  found = clusters(vectors_BD, 4, seed=0).reshape(4, 12)
  assert (found == found[:, :1]).all()
  assert len(set(found[:, 0])) == 4
  # tf-idf: what all texts hold counts little.
  a, b, c, _ = word_vectors(['the otter', 'the heron', 'an otter', 'the elk'])
  assert a @ c > a @ b > 0


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(0, 5), st.integers(0, 3))
def test_no_cluster_is_empty(count, repeated, seed):
  vectors_BD = np.eye(8, 4, dtype=np.float32) + np.float32(0.1)
  vectors_BD[:repeated] = vectors_BD[0]
  assert set(clusters(vectors_BD, count, seed)) == set(range(count))


def test_more_folds_than_queries_are_refused():
  judged = {'test': [Judgement('q', 'd', 1)]}
  with pytest.raises(UserError, match='5 folds of 1 queries'):
    folds(judged, ['q'], np.ones((1, 2)), 5, 'extrapolation', 0)


def test_a_small_corpus_keeps_what_test_asks_for(folder, tmp_path):
  qrels = {
    'test': [('a-0', 'otter-river')],
    'dev': [('b-0', 'heron-river'), ('b-1', 'otter-river')],
    'train': [('c-0', 'toad-river'), ('c-0', 'otter-river'), ('d', 'x')],
  }
  judged = {
    split: [Judgement(query, document, 1) for query, document in pairs]
    for split, pairs in qrels.items()
  }
  documents = ['x', 'toad-river', 'y', 'heron-river', 'otter-river', 'z']
  ids, divided = some_documents(judged, documents, 1, 0)
  assert ids == {'otter-river'}
  assert {split: len(rows) for split, rows in divided.items()} == {
    'test': 1,
    'dev': 1,
    'train': 1,
  }
  ids, _ = some_documents(judged, documents, 2, 0)
  assert ids == {'otter-river', 'heron-river'}
  ids, divided = some_documents(judged, documents, 6, 0)
  assert (ids, divided) == (set(documents), judged)
  with pytest.raises(UserError, match='at most the 6 documents'):
    some_documents(judged, documents, 7, 0)
  split_queries.main(
    [f'--data_dir={folder}', f'--output={tmp_path / "s"}', '--documents=9']
  )
  made = Collection(tmp_path / 's')
  assert len(made.document_index()) == 9
  assert len(list(made.queries())) == 18 == len(relevant(made, 'train'))
  texts = {document.id: document for document in Collection(folder).documents()}
  assert all(texts[each.id] == each for each in made.documents())


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'expected either --by'),
    (['--by=documents', '--documents=5'], 'expected either --by'),
    (['--by=documents', '--share=1'], 'between 0 and 1'),
    (['--by=extrapolation', '--folds=1'], 'at least 2'),
    (['--documents=-1'], 'at least 1'),
    (['--by=extrapolation', '--seed=-1'], 'at least 0'),
    (['--by=documents', '--share=.01'], 'withholds 0 of the 40 documents'),
    (['--by=documents', '--share=.99'], 'withholds 40 of the 40 documents'),
  ],
)
def test_flags_that_make_no_sense_are_refused(folder, tmp_path, flags, message):
  output = tmp_path / 'x'
  with pytest.raises(UserError, match=message):
    split_queries.main([f'--data_dir={folder}', f'--output={output}', *flags])
  assert not output.exists()


def test_bad_records_that_are_allowed_are_left_out(folder, tmp_path):
  data = tmp_path / 'data'
  shutil.copytree(folder, data)
  corpus = data / 'corpus.jsonl'
  twice = corpus.read_text().splitlines()[0]
  corpus.write_text(f'{corpus.read_text()}{twice}\n{{"_id": "a b"}}\n')
  flags = [f'--data_dir={data}', '--max_bad_records=2']
  small = tmp_path / 'small'
  split_queries.main([*flags, f'--output={small}', '--documents=40'])
  assert len(Collection(small).document_index()) == 40
  split_queries.main([*flags, f'--output={tmp_path / "x"}', '--by=documents'])
  with pytest.raises(UserError, match='raise max_bad_records'):
    split_queries.main([*flags[:1], f'--output={small}2', '--documents=40'])


def test_what_is_there_is_refused_before_the_work(tmp_path):
  with pytest.raises(UserError, match='is there: choose another --output'):
    split_queries.split(tmp_path / 'no collection', tmp_path)
