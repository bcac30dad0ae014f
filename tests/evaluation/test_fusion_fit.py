"""The fit against searching again with every setting."""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / 'retrieval'))

import toy_retriever as toy

from gr_jax.data.collection import Collection
from gr_jax.evaluation import fusion_fit, metrics
from gr_jax.evaluation.generative import Generative
from gr_jax.retrieval.fusion import FIT_MEASURES
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher
from gr_jax.types import UserError

DOCUMENTS = 200
QUERIES = toy.make_texts(40, seed=5)


def make_searcher(**settings):
  settings = {
    'beams': 20, 'fraction': 0.3, 'batch_sizes': (8,), **settings,
  }  # fmt: skip
  return Searcher(
    toy.make_index(DOCUMENTS), toy.ToyModel(), toy.make_params(),
    toy.ToyVocabulary(), 16, SearchSettings(**settings),
  )  # fmt: skip


@pytest.fixture
def collection(tmp_path):
  """One to three relevant documents a query, some of them hard to reach."""
  rng = np.random.default_rng(1)
  (tmp_path / 'qrels').mkdir()
  documents = toy.make_texts(DOCUMENTS)
  for name, texts, letter in (
    ('corpus', documents, 'd'), ('queries', QUERIES, 'q'),
  ):  # fmt: skip
    lines = [
      json.dumps({'_id': f'{letter}{n}', 'title': '', 'text': text})
      for n, text in enumerate(texts)
    ]
    (tmp_path / f'{name}.jsonl').write_text('\n'.join(lines) + '\n')
  lines = ['query-id\tcorpus-id\tscore']
  near = make_searcher().search_batch(QUERIES, 40).documents_BC
  for query in range(len(QUERIES)):
    chosen = {int(rng.choice(near[query])), int(rng.integers(DOCUMENTS))}
    lines += [f'q{query}\td{n}\t1' for n in sorted(chosen)]
    lines.append(f'q{query}\td{min(set(range(9)) - chosen)}\t0')
  (tmp_path / 'qrels' / 'dev.tsv').write_text('\n'.join(lines) + '\n')
  return Collection(tmp_path)


def test_every_setting_is_judged_as_a_search_with_it_would_be(collection):
  searcher = make_searcher()
  judged = fusion_fit.judged_queries(collection, 'dev', searcher.document_ids)
  tried = fusion_fit.grid(searcher.settings)[::6]
  assert {settings.fusion for settings in tried} == {'log_linear', 'reciprocal'}
  found = searcher.search_batch(judged.texts, DOCUMENTS)
  offline = fusion_fit.relevant_places(found, judged, tried)
  names = [f'q{n}' for n in range(len(QUERIES))]
  for settings, places in zip(tried, offline, strict=True):
    again = Generative(make_searcher(**changed(settings)))
    scores = metrics.score(
      again.search(judged.texts, metrics.DEPTH),
      names,
      searcher.document_ids,
      collection.judgements('dev'),
    )
    values = fusion_fit.measures(places, judged.counts_B)
    assert set(values) == set(FIT_MEASURES)
    for name, of_queries in values.items():
      expected = scores.values[name.replace('MRR', 'RR')]
      # Ties may differ: equal texts have equal scores.
      np.testing.assert_allclose(of_queries.mean(), expected.mean(), atol=0.03)
      assert np.mean(of_queries == expected) > 0.9


def changed(settings):
  names = (
    'fusion', 'generative_weight', 'dense_weight', 'reciprocal_weight',
    'reciprocal_decay',
  )  # fmt: skip
  return {name: getattr(settings, name) for name in names}


@pytest.mark.parametrize('names', [('MRR@10', 'R@10'), ('R@1',)])
def test_the_fit_takes_the_best_of_the_grid(collection, names):
  searcher = make_searcher(fit_measures=names, generative_weight=5.0)
  judged = fusion_fit.judged_queries(collection, 'dev', searcher.document_ids)
  found = searcher.search_batch(judged.texts, DOCUMENTS)
  tried = fusion_fit.grid(searcher.settings)
  worth = []
  for places in fusion_fit.relevant_places(found, judged, tried):
    values = fusion_fit.measures(places, judged.counts_B)
    worth.append(np.mean([values[name].mean() for name in names]))
  fit = fusion_fit.fit(searcher, judged)
  assert tried.index(fit.settings) == int(np.argmax(worth))
  assert list(fit.before) == list(fit.after) == list(names)
  assert np.mean(list(fit.after.values())) == pytest.approx(max(worth))
  assert np.mean(list(fit.before.values())) == pytest.approx(worth[0])
  assert max(worth) > worth[0]
  # Beams, budget and the rest are not the fit's business.
  kept = {**dataclasses.asdict(fit.settings), **changed(searcher.settings)}
  assert kept == dataclasses.asdict(searcher.settings)


def test_parts_of_the_queries_add_up(collection, monkeypatch):
  searcher = make_searcher()
  judged = fusion_fit.judged_queries(collection, 'dev', searcher.document_ids)
  whole = fusion_fit.fit(searcher, judged)
  monkeypatch.setattr(fusion_fit, '_BATCH', 7)
  parts = fusion_fit.fit(searcher, judged)
  assert parts.settings == whole.settings
  assert parts.after == pytest.approx(whole.after)


def test_the_line_names_the_choice_and_its_gain():
  fit = fusion_fit.Fit(
    SearchSettings(generative_weight=0.01), 1648, {'R@10': 0.58}, {'R@10': 0.59}
  )
  assert str(fit) == (
    'fitted on 1,648 dev queries: log-linear, generative weight 0.01: '
    'R@10 0.580 -> 0.590'
  )
  settings = SearchSettings(fusion='reciprocal', reciprocal_weight=0.2)
  fit = dataclasses.replace(fit, settings=settings)
  assert 'reciprocal, weight 0.2, decay 0.03: R@10' in str(fit)


def test_relevant_documents_count_whether_indexed_or_not(collection):
  judged = fusion_fit.judged_queries(collection, 'dev', ['d1', 'd0'])
  ids = [f'd{n}' for n in range(DOCUMENTS)]
  whole = fusion_fit.judged_queries(collection, 'dev', ids)
  np.testing.assert_array_equal(judged.counts_B, whole.counts_B)
  for few, rows in zip(judged.relevant, whole.relevant, strict=True):
    assert few.tolist() == [1 - row for row in rows.tolist() if row < 2]


def test_queries_past_the_limit_are_left_out_evenly(collection):
  ids = [f'd{n}' for n in range(DOCUMENTS)]
  judged = fusion_fit.judged_queries(collection, 'dev', ids, limit=3)
  assert judged.texts == [QUERIES[0], QUERIES[20], QUERIES[39]]
  assert len(judged.relevant) == len(judged.counts_B) == 3


@pytest.mark.parametrize('names', [(), ('RR@10',)])
def test_unknown_measures_are_refused(names):
  with pytest.raises(UserError, match='fit_measures should be of'):
    SearchSettings(fit_measures=names)
