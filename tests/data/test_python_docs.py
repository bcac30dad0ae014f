"""The embedded corpus: what becomes a document, and that it stays so."""

import pytest

from gr_jax.data import python_docs
from gr_jax.data.collection import Collection

SOURCE = '''
def shown(a, b=1) -> int:
  """Adds two numbers that were given.

  The rest stays here.
  """
  return a + b

def twin(a, b=1) -> int:
  """Adds two numbers that were given."""
  return b + a

def _hidden():
  """Does something nobody should see."""
  return 1

def stub():
  """Says what subclasses have to do."""
  raise NotImplementedError

def terse():
  """Does it."""
  return 2

class Shape(Base):
  """Something that has an area
  and a circumference."""

  def area(self):
    """Computes the area of this\\0 shape."""
    return self.x
'''


@pytest.fixture
def small(tmp_path, monkeypatch):
  root = tmp_path / 'lib'
  for name in ('mod.py', 'test/x.py', 'test_y.py', 'p/__init__.py', '_z.py'):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(SOURCE if name == 'mod.py' else SOURCE * 2)
  (root / 'broken.py').write_text('def f(:')
  monkeypatch.setattr(python_docs, '_roots', lambda: [(root, '')])
  return tmp_path


def test_documents_hold_everything_but_their_queries(small):
  counts = python_docs.write_python_docs(small / 'out')
  collection = Collection(small / 'out')
  documents = {d.id: d.text for d in collection.documents()}
  queries = {q.id.removeprefix('q:'): q.text for q in collection.queries()}
  assert sorted(documents) == ['mod.Shape', 'mod.Shape.area', 'mod.shown']
  assert counts['documents'] == 3
  assert queries['mod.shown'] == 'Adds two numbers that were given.'
  assert queries['mod.Shape'] == (
    'Something that has an area and a circumference.'
  )
  assert documents['mod.shown'] == (
    'def shown(a, b=1) -> int\nThe rest stays here.\nreturn a + b'
  )
  assert 'class Shape(Base)' in documents['mod.Shape']
  assert '\0' not in queries['mod.Shape.area']
  judged = [j for s in collection.splits() for j in collection.judgements(s)]
  assert sorted(j.document_id for j in judged) == sorted(documents)
  assert all(j.query_id == f'q:{j.document_id}' for j in judged)


def test_writing_again_gives_the_same_bytes(small):
  python_docs.write_python_docs(small / 'out')
  first = Collection(small / 'out').fingerprint()
  python_docs.write_python_docs(small / 'out')
  assert Collection(small / 'out').fingerprint() == first
  assert sorted(path.name for path in small.iterdir()) == ['lib', 'out']


def test_splits_hash_names():
  splits = [python_docs.split_of(f'module.name{i}') for i in range(4000)]
  for split, share in (('train', 0.8), ('dev', 0.05), ('test', 0.15)):
    assert splits.count(split) / 4000 == pytest.approx(share, abs=0.02)


@pytest.mark.soak
def test_the_whole_collection_is_valid(tmp_path):
  counts = python_docs.write_python_docs(tmp_path / 'docs')
  collection = Collection(tmp_path / 'docs')
  documents = list(collection.documents())
  assert 6_000 <= len(documents) == counts['documents'] <= 20_000
  queries = {query.id: query.text for query in collection.queries()}
  for document in documents:
    assert queries[f'q:{document.id}'] not in document.text
  assert len(set(queries.values())) == len(queries)
  trained = {j.document_id for j in collection.judgements('train')}
  tested = {j.document_id for j in collection.judgements('test')}
  assert tested and not trained & tested
