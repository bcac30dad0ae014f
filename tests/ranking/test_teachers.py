"""Teachers and sources of candidates, each against its definition."""

import pathlib

import numpy as np
import pytest
import tiny_collection
import tiny_ranker

from gr_jax import change_index
from gr_jax.data.collection import Collection
from gr_jax.evaluation.lexical import Lexical
from gr_jax.models.encoder import Encoder
from gr_jax.models.import_weights import import_bert
from gr_jax.ranking import candidates, teachers
from gr_jax.ranking.corpus import read_asked
from gr_jax.ranking.dense import DenseSearch, open_encoder
from gr_jax.retrieval.opening import open_searcher
from gr_jax.types import NO_DOC, Document, Query, UserError, document_text

QUERIES = [Query('a', 'otter'), Query('b', 'which lynx is at the summit')]
ROWS = [np.array([0, 3, 7]), np.array([2])]


class Fixed:
  """Gives the scores that it was made with."""

  name, sha256 = 'fixed', 'x'

  def __init__(self, *scores):
    self._scores = [np.float32(row) for row in scores]

  def scores(self, queries, rows):
    return self._scores


def test_a_real_index_gives_candidates(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / 'retrieval')
  import saved_index

  texts = saved_index.save(tmp_path / 'index')
  names = [f'd{number}' for number in range(len(texts))]
  row_of = {name: len(names) - 1 - n for n, name in enumerate(names)}
  source = candidates.IndexSource(tmp_path / 'index', row_of)
  queries = [Query('a', texts[3]), Query('b', texts[8])]
  searcher = open_searcher(tmp_path / 'index')
  rows_BC = source.find(queries, 5)
  for query, rows in zip(queries, rows_BC.tolist(), strict=True):
    hits = searcher.search([query.text], 5)[0]
    assert [row for row in rows if row != NO_DOC] == [
      row_of[hit.document_id] for hit in hits
    ]
  # A student that changed has other candidates, at the same place.
  known = {source.sha256}
  change_index.main([f'--index={tmp_path / "index"}', '--hide', 'd3'])
  known.add(candidates.IndexSource(tmp_path / 'index', row_of).sha256)
  saved_index.save(tmp_path / 'index', seed=1)
  known.add(candidates.IndexSource(tmp_path / 'index', row_of).sha256)
  assert len(known) == 3


@pytest.fixture(scope='module')
def asked(tmp_path_factory):
  folder = tiny_collection.write_collection(tmp_path_factory.mktemp('c') / 'c')
  return read_asked(Collection(folder), 'train')


def test_a_split_in_memory(asked):
  assert len(asked.documents) == 40
  assert len(asked.queries) == len(asked.positives) == 80
  for query, rows in zip(asked.queries, asked.positives, strict=True):
    assert [asked.documents[row].id for row in rows] == [query.id[:-2]]


def test_bm25_scores_what_it_would_find(asked):
  teacher = teachers.LexicalTeacher(asked.documents)
  rows = [np.arange(40)] * len(QUERIES)
  found = Lexical(asked.documents).search([q.text for q in QUERIES], 40)
  for query, scores_N in enumerate(teacher.scores(QUERIES, rows)):
    there = found.rows_BC[query] != NO_DOC
    expected = np.zeros(40, np.float32)
    expected[found.rows_BC[query][there]] = found.scores_BC[query][there]
    np.testing.assert_array_equal(scores_N, expected)
  few = teacher.scores(QUERIES, ROWS)
  np.testing.assert_array_equal(
    few[0], teacher.scores(QUERIES, rows)[0][ROWS[0]]
  )
  assert few[1].shape == (1,)


def test_a_cross_encoder_shows_how_many_pairs_are_done(monkeypatch, capsys):
  class Ranker:
    sha256 = 'x'

    def scores(self, queries, documents, show):
      monkeypatch.setattr('time.monotonic', lambda: 1e9)
      show(2, 0.5)
      return np.arange(len(queries), dtype=np.float32)

  documents = [Document(f'd{row}', '', 'text') for row in range(8)]
  teacher = teachers.CrossEncoderTeacher('cross', Ranker(), documents)
  found = teacher.scores(QUERIES, ROWS)
  assert [scores.tolist() for scores in found] == [[0, 1, 2], [3]]
  assert capsys.readouterr().err.startswith('pair 2/4 ')


def test_random_orders_depend_on_query_and_seed_alone():
  first = teachers.RandomTeacher(0).scores(QUERIES, ROWS)
  alone = teachers.RandomTeacher(0).scores(QUERIES[:1], ROWS[:1])
  np.testing.assert_array_equal(first[0], alone[0])
  other = teachers.RandomTeacher(1).scores(QUERIES, ROWS)
  assert not np.array_equal(first[0], other[0])
  many = [Query(str(i), 'x') for i in range(600)]
  scores = teachers.RandomTeacher(0).scores(many, [np.arange(3)] * 600)
  # Each of the six orders about 100 times.
  orders = [tuple(np.argsort(s)) for s in scores]
  counts = [orders.count(order) for order in set(orders)]
  assert len(counts) == 6 and min(counts) > 60


def test_fusion_adds_reciprocal_ranks():
  """A teacher's equal scores share their best rank."""
  fused = teachers.FusedTeacher([Fixed([3, 1, 2], [5]), Fixed([0, 0, -1], [0])])
  found = fused.scores(QUERIES, ROWS)
  np.testing.assert_allclose(
    found[0], [2 / 61, 1 / 63 + 1 / 61, 1 / 62 + 1 / 63], rtol=1e-6
  )
  np.testing.assert_allclose(found[1], [2 / 61], rtol=1e-6)
  assert found[0].dtype == np.float32
  assert fused.name == 'fixed + fixed' and fused.sha256 == 'x x'


def test_documents_are_ranked_by_score_then_place():
  rows, scores = teachers.ranked(
    np.float32([1, 2, 1, 3]), np.array([9, 4, 2, 7])
  )
  assert rows.tolist() == [7, 4, 2, 9]
  assert scores.tolist() == [3, 2, 1, 1]


def test_positives_are_candidates():
  rows = teachers.candidate_rows(
    np.array([5]), [np.array([7, 2, -1]), np.array([2, -1, -1])]
  )
  assert rows.tolist() == [2, 5, 7]
  assert teachers.candidate_rows(np.array([5]), []).tolist() == [5]


def test_dense_search_is_the_mean_of_states(asked, tmp_path):
  folder = tiny_ranker.write_ranker(tmp_path / 'm', sentences=True)
  encoder = open_encoder(str(folder))
  search = DenseSearch(f'dense:{folder}', encoder, asked.documents)
  search.encode(tmp_path / 'vectors', 'x')
  config, params, _ = import_bert(str(folder))

  def vector(text):
    tokens = np.array([encoder.vocabulary.encode(text, 32)], np.int32)
    pooled = Encoder(config).apply({'params': params}, tokens).pooled_BE[0]
    return pooled / np.linalg.norm(pooled)

  documents = np.stack([vector(document_text(d)) for d in asked.documents[:8]])
  found = search.scores(QUERIES, ROWS)
  for query, rows, scores in zip(QUERIES, ROWS, found, strict=True):
    np.testing.assert_allclose(
      scores, documents[rows] @ vector(query.text), atol=1e-5
    )
  everything = search.scores(QUERIES, [np.arange(40)] * 2)
  rows_BC = search.find(QUERIES, 5)
  for rows, scores in zip(rows_BC, everything, strict=True):
    np.testing.assert_allclose(
      scores[rows], np.sort(scores)[::-1][:5], atol=1e-6
    )


def test_a_run_file_gives_its_first_documents(tmp_path):
  path = tmp_path / 'run.trec'
  path.write_text(
    'a Q0 d1 1 2.0 x\na Q0 d3 2 1.0 x\na Q0 d2 3 1.0 x\nz Q0 d1 1 1.0 x\n'
  )
  row_of = {'d1': 4, 'd2': 5, 'd3': 6}
  source = candidates.RunFile(path, row_of, QUERIES)
  assert source.find(QUERIES, 2).tolist() == [[4, 6], [NO_DOC, NO_DOC]]
  with pytest.raises(UserError, match='answers none of the 1 queries'):
    candidates.RunFile(path, row_of, QUERIES[1:])
  with pytest.raises(UserError, match="'d3', which is not in the corpus"):
    candidates.RunFile(path, {'d1': 4, 'd2': 5}, QUERIES).find(QUERIES, 3)


def test_a_student_gives_what_its_index_answers(tmp_path, monkeypatch):
  """Its documents stand in another order than those of the corpus."""
  found_BC = np.array([[2, 0, NO_DOC], [1, NO_DOC, NO_DOC]])

  class Searcher:
    document_ids = ('d1', 'd2', 'd3')

    class snapshot:
      class base:
        manifest = {'inputs_sha256': {'corpus': 'x'}}  # noqa: RUF012

      states_N = np.zeros(3, np.uint8)

    def search_batch(self, texts, k):
      assert (texts, k) == ([q.text for q in QUERIES], 3)
      return type('Found', (), {'documents_BC': found_BC})

  monkeypatch.setattr(
    candidates, 'open_searcher', lambda path, changes: Searcher()
  )
  row_of = {'d3': 0, 'd1': 1, 'd2': 2}
  source = candidates.IndexSource(tmp_path, row_of)
  assert source.find(QUERIES, 3).tolist() == [
    [0, 1, NO_DOC],
    [2, NO_DOC, NO_DOC],
  ]
  with pytest.raises(UserError, match="'d2', which is not in the corpus"):
    candidates.IndexSource(tmp_path, {'d1': 0, 'd3': 1})
