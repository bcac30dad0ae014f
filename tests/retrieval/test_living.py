"""An index that changes answers as one that was built of what is left."""

import contextlib
import sys
import threading
from unittest import mock

import numpy as np
import pytest
import toy_retriever as toy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gr_jax.decoding import trie
from gr_jax.index.changes import Delete, Hide, Insert, Show
from gr_jax.index.filters import Between
from gr_jax.index.index import Index
from gr_jax.index.snapshot import Snapshot
from gr_jax.retrieval import placed, program, searcher
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher
from gr_jax.types import NO_DOC, Document, UserError

QUERIES = toy.make_texts(6, seed=5)
SIZES = (toy.CODES,) * toy.POSITIONS
TENANTS = ('acme', 'bolt', 'corp')


def searcher_over(index, spare=0, **changes):
  changes = {'batch_sizes': (6,), 'beams': 25, 'documents_scored': 30} | changes
  return Searcher(
    index,
    toy.ToyModel(),
    toy.make_params(),
    toy.ToyVocabulary(),
    16,
    SearchSettings(**changes),
    spare,
  )


@pytest.fixture
def one_shape():
  """Tables of one shape, whatever is in them: compiling is the cost."""
  with contextlib.ExitStack() as stack:
    for module in (trie, placed, searcher):
      stack.enter_context(
        mock.patch.object(module, 'capacity', lambda size: 1024)
      )
    yield


class Corpus:
  """What is in the index, in plain Python."""

  def __init__(self, seed):
    self.rng = np.random.default_rng(seed)
    self.there = {}  # id: (codes, vector, metadata, hidden), in order
    self.made = 0

  def new(self, count):
    """So many documents with few distinct identifiers."""
    insert = Insert(
      [f'd{self.made + number}' for number in range(count)],
      ['title'] * count,
      ['text'] * count,
      [
        {'tenant': TENANTS[self.rng.integers(3)], 'year': 2000 + number % 9}
        for number in range(count)
      ],
      (np.array(SIZES) * self.rng.random((count, 3)) ** 3).astype(np.uint8),
      self.rng.normal(size=(count, toy.WIDTH)).astype(np.float32),
    )
    self.made += count
    return insert

  def put(self, insert):
    for name, *rest in zip(
      insert.document_ids,
      insert.codes_NL,
      insert.vectors_ND,
      insert.metadata,
      strict=True,
    ):
      self.there.pop(name, None)
      self.there[name] = (*rest, False)

  def hide(self, names, hidden):
    for name in names:
      self.there[name] = (*self.there[name][:3], hidden)

  def some(self, count):
    names = list(self.there)
    picked = self.rng.permutation(len(names))[:count]
    return [names[place] for place in picked]

  def index(self, kept=lambda name: True):
    """An index built of what a search may find."""
    shown = {
      name: rest
      for name, rest in self.there.items()
      if not rest[3] and kept(name)
    }
    count = len(shown)
    codes, vectors, metadata = (
      [rest[part] for rest in shown.values()] for part in range(3)
    )
    return Index.build(
      np.array(codes, np.uint8).reshape(count, 3),
      SIZES,
      np.array(vectors, np.float32).reshape(count, toy.WIDTH),
      list(shown),
      ['title'] * count,
      ['text'] * count,
      metadata,
    )


def change_of(corpus, kind, count):
  """A random change, made in the corpus too."""
  if kind == 'insert':
    change = corpus.new(count)
    corpus.put(change)
    return change
  names = corpus.some(count)
  if kind == 'replace':
    fresh = corpus.new(len(names))
    change = Insert(
      names, *(getattr(fresh, name) for name in (
        'titles', 'snippets', 'metadata', 'codes_NL', 'vectors_ND'
      )), True,
    )  # fmt: skip
    corpus.put(change)
    return change
  if kind == 'delete':
    for name in names:
      del corpus.there[name]
    return Delete(names)
  corpus.hide(names, kind == 'hide')
  return {'hide': Hide, 'show': Show}[kind](names)


def assert_found_as_built(living, built, among=None, **changes):
  """The same documents with the same scores."""
  found = living.search_batch(QUERIES, 20, among)
  fresh = searcher_over(built, spare=1, **changes)
  expected = fresh.search_batch(QUERIES, 20)
  ids, built_ids = living.document_ids, built.document_ids
  for query in range(len(QUERIES)):
    names = [ids[d] for d in found.documents_BC[query] if d != NO_DOC]
    wanted = [built_ids[d] for d in expected.documents_BC[query] if d != NO_DOC]
    assert names == wanted
  for name in ('scores_BC', 'generative_BC', 'dense_BC', 'ranks_BC'):
    np.testing.assert_allclose(
      getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6
    )
  np.testing.assert_array_equal(
    found.documents_scored_B, expected.documents_scored_B
  )


KINDS = ('insert', 'insert', 'replace', 'delete', 'hide', 'show', 'fold')


@settings(
  max_examples=40,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(
  seed=0, steps=[('delete', 60), ('fold', 1), ('insert', 30), ('delete', 3)]
)
@given(
  seed=st.integers(0, 2**31),
  steps=st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(1, 70)), max_size=9
  ),
)
def test_after_any_changes_it_finds_what_a_new_index_finds(
  one_shape, seed, steps
):
  corpus = Corpus(seed)
  corpus.put(corpus.new(60))
  snapshot = Snapshot.of(corpus.index())
  living = searcher_over(snapshot, spare=100)
  for kind, count in steps:
    if kind == 'fold':
      snapshot = Snapshot.of(snapshot.folded())
    else:
      snapshot = snapshot.apply(change_of(corpus, kind, count))
    living.update(snapshot)
  assert_found_as_built(living, corpus.index())
  where = {'tenant': ('acme', 'corp'), 'year': Between(2002, 2006)}
  fitting = {
    name
    for name, rest in corpus.there.items()
    if rest[2]['tenant'] != 'bolt' and 2002 <= rest[2]['year'] <= 2006
  }
  if corpus.there:
    selection = living.select(where=where)
    assert_found_as_built(living, corpus.index(fitting.__contains__), selection)


def test_planning_after_changes_finds_what_a_new_index_finds(one_shape):
  # With all documents beneath a prefix looked at: each trie has its own.
  plan = {
    'beams': 4,
    'planning_weight': 3.0,
    'planning_pool': 3,
    'planning_documents': 160,
  }
  corpus = Corpus(3)
  corpus.put(corpus.new(60))
  snapshot = Snapshot.of(corpus.index())
  living = searcher_over(snapshot, spare=100, **plan)
  for kind in ('insert', 'delete', 'hide', 'replace'):
    snapshot = snapshot.apply(change_of(corpus, kind, 20))
    living.update(snapshot)
    assert_found_as_built(living, corpus.index(), **plan)


def test_changes_compile_nothing():
  corpus = Corpus(0)
  corpus.put(corpus.new(500))
  snapshot = Snapshot.of(corpus.index())
  living = searcher_over(snapshot, spare=200)
  living.search(QUERIES, 5)
  living.search(QUERIES, 5, living.select(where={'tenant': 'acme'}))
  compiled = program.search_program._cache_size()
  for turn in range(40):
    kind = ('insert', 'delete', 'hide', 'replace', 'show')[turn % 5]
    snapshot = snapshot.apply(change_of(corpus, kind, 20))
    if len(snapshot.added) > 150:
      snapshot = Snapshot.of(snapshot.folded())
    living.update(snapshot)
    living.search(QUERIES, 5)
    living.search(QUERIES, 5, living.select(where={'tenant': 'acme'}))
  assert program.search_program._cache_size() == compiled


def test_larger_tables_are_compiled_for_before_they_are_searched():
  corpus = Corpus(4)
  corpus.put(corpus.new(100))
  snapshot = Snapshot.of(corpus.index())
  living = searcher_over(snapshot, spare=10)
  among = [living.select(where={'tenant': 'acme'}), *[None] * 5]
  living.search(QUERIES, 5, among)
  compiled = program.search_program._cache_size()
  snapshot = snapshot.apply(change_of(corpus, 'insert', 300))
  living.update(Snapshot.of(snapshot.folded()))
  grown = program.search_program._cache_size()
  assert grown > compiled
  living.search(QUERIES, 5, among)
  assert program.search_program._cache_size() == grown
  assert living.documents == 400


def test_a_query_finds_what_it_may(one_shape):
  corpus = Corpus(1)
  corpus.put(corpus.new(150))
  living = searcher_over(corpus.index(), spare=10, documents_scored=200)
  by_tenant = [living.select(where={'tenant': name}) for name in TENANTS]
  among = [*by_tenant, None, by_tenant[0], by_tenant[1]]
  hits = living.search(QUERIES, 200, among)
  for query, selection in enumerate(among):
    names = {hit.document_id for hit in hits[query]}
    wanted = {
      name
      for name, rest in corpus.there.items()
      if selection is None or selection.where['tenant'] == rest[2]['tenant']
    }
    # 25 beams: not all of them, but no other.
    assert names and names <= wanted
  # What is hidden is not found whatever is asked among.
  names = [hit.document_id for hit in hits[0]]
  living.update(living.snapshot.apply(Hide(names)))
  mine = living.select(documents=names[:3])
  assert living.search(QUERIES[:1], 5, mine) == [[]]
  living.update(living.snapshot.apply(Show(names[1:2])))
  found = living.search(QUERIES[:1], 5, mine)[0]
  assert [hit.document_id for hit in found] == names[1:2]
  both = living.select(documents=names[:2], where={'tenant': 'acme'})
  assert len(living.search(QUERIES[:1], 5, both)[0]) == 1


def test_impossible_selections_are_refused():
  corpus = Corpus(1)
  corpus.put(corpus.new(50))
  living = searcher_over(corpus.index())
  with pytest.raises(UserError, match="no document has a field 'tenent'"):
    living.select(where={'tenent': 'acme'})
  with pytest.raises(ValueError, match='expected documents or conditions'):
    living.select()
  with pytest.raises(ValueError, match='2 selections for 6 queries'):
    living.search(QUERIES, 3, [None, None])


def test_searches_go_on_while_the_documents_change(one_shape):
  corpus = Corpus(2)
  corpus.put(corpus.new(300))
  snapshot = Snapshot.of(corpus.index())
  living = searcher_over(snapshot, spare=400)
  living.search(QUERIES, 5)
  failures, stop = [], threading.Event()

  def search():
    while not stop.is_set():
      for hits in living.search(QUERIES, 10):
        if len({hit.document_id for hit in hits}) != 10:
          failures.append(hits)

  threads = [threading.Thread(target=search) for _ in range(3)]
  interval = sys.getswitchinterval()
  sys.setswitchinterval(1e-4)
  try:
    for thread in threads:
      thread.start()
    for turn in range(30):
      kind = ('insert', 'delete', 'replace')[turn % 3]
      snapshot = snapshot.apply(change_of(corpus, kind, 10))
      if turn % 10 == 9:
        snapshot = Snapshot.of(snapshot.folded())
      living.update(snapshot)
  finally:
    stop.set()
    for thread in threads:
      thread.join()
    sys.setswitchinterval(interval)
  assert not failures
  assert_found_as_built(living, corpus.index())


def test_impossible_changes_leave_everything_as_it_is():
  corpus = Corpus(3)
  corpus.put(corpus.new(20))
  snapshot = Snapshot.of(corpus.index())
  for change, message in (
    (Delete(['d3', 'nobody']), "1 of 2 documents are not in the index, as 'no"),
    (Hide(['nobody']), 'are not in the index'),
    (change_of(Corpus(0), 'insert', 3), "holds 'd0' and 2 more already"),
  ):
    with pytest.raises(UserError, match=message):
      snapshot.apply(change)
  twice = corpus.new(2)
  with pytest.raises(UserError, match='got an id twice'):
    snapshot.apply(Insert(['a', 'a'], *list(vars(twice).values())[1:]))
  gone = snapshot.apply(Delete(['d3']))
  with pytest.raises(UserError, match='not in the index'):
    gone.apply(Delete(['d3']))
  assert snapshot.count == 20 and gone.count == 19
  document = Document('d3', 'again', 'x' * 2000, {'year': 1999})
  again = gone.apply(
    Insert.of([document], np.zeros((1, 3), int), np.ones((1, toy.WIDTH)))
  )
  assert again.rows_of(['d3', 'd4', 'x']).tolist() == [20, 4, NO_DOC]
  assert again.shown(20)[:2] == ('d3', 'again')
  assert len(again.shown(20)[2]) == 1000
