"""Random queries find documents that exist, are visible, and each once."""

import numpy as np
import pytest
import toy_retriever as toy

from gr_jax.decoding.top_k import FLOOR
from gr_jax.retrieval.searcher import Searcher, SearchSettings
from gr_jax.types import NO_DOC

BATCH, BEAMS, SCORED, PLACES = 256, 30, 50, 40
# With few codes all nodes of many documents are dense, with many some are not.
FEW_CODES, MANY_CODES = 6, 400


def make_searcher(documents):
  params = toy.make_params()
  return Searcher(
    toy.make_index(documents, params),
    toy.ToyModel(),
    params,
    toy.ToyVocabulary(),
    16,
    SearchSettings(beams=BEAMS, documents_scored=SCORED, batch_sizes=(BATCH,)),
  )


def random_selection(rng, searcher):
  """Which documents are visible, few or many, and the same for the searcher."""
  documents = len(searcher.snapshot.base)
  if rng.random() < 0.1:
    return np.ones(documents, bool), None
  count = int(documents ** rng.uniform(0, 1))
  visible_N = np.zeros(documents, bool)
  visible_N[rng.choice(documents, count, replace=False)] = True
  names = np.asarray(searcher.document_ids)[visible_N].tolist()
  return visible_N, searcher.select(names)


def check(found, visible_N):
  """All that is said of a document that is found, of a whole batch."""
  documents_BC = found.documents_BC
  there_BC = documents_BC != NO_DOC
  assert documents_BC[there_BC].min() >= 0
  assert documents_BC[there_BC].max() < len(visible_N)
  assert visible_N[documents_BC[there_BC]].all()
  sorted_BC = np.sort(documents_BC, axis=1)
  twice_BC = sorted_BC[:, 1:] == sorted_BC[:, :-1]
  assert not (twice_BC & (sorted_BC[:, 1:] != NO_DOC)).any()
  # Best first, and nothing behind the last.
  assert not (there_BC[:, 1:] & ~there_BC[:, :-1]).any()
  assert (np.diff(found.scores_BC, axis=1) <= 0).all()
  np.testing.assert_array_equal(found.scores_BC == np.float32(FLOOR), ~there_BC)
  scored_B = found.documents_scored_B
  np.testing.assert_array_equal(
    there_BC.sum(axis=1), np.minimum(scored_B, PLACES)
  )
  # Few documents are all found: no beam is lost to one that leads nowhere.
  visible = visible_N.sum()
  assert (scored_B >= min(visible, BEAMS)).all()
  assert (scored_B <= min(visible, SCORED)).all()


@pytest.mark.parametrize('codes', [FEW_CODES, MANY_CODES])
@pytest.mark.parametrize(
  'queries', [500, pytest.param(10_000, marks=pytest.mark.soak)]
)
def test_documents_exist_are_visible_and_distinct(monkeypatch, codes, queries):
  monkeypatch.setattr(toy, 'CODES', codes)
  searcher = make_searcher(5_000)
  trie = searcher.snapshot.base.trie
  assert len(trie.leaf_starts) < len(trie)
  assert (trie.bitmap_rows < 0).any() == (codes == MANY_CODES)
  rng = np.random.default_rng(codes)
  texts = toy.make_texts(queries, seed=codes)
  for start in range(0, queries, BATCH):
    visible_N, among = random_selection(rng, searcher)
    batch = texts[start : start + BATCH]
    check(searcher.search_batch(batch, PLACES, among), visible_N)
