"""--gin.DATA_DIR=ir_datasets:ID, on a package that stands in for the real one.

What it gives is what ir_datasets.load gives; nothing is downloaded.
"""

import pathlib
import subprocess
import sys

import pytest
from small_run import training

from gr_jax import entry, prepare
from gr_jax.data.collection import Collection

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = """
import collections
Document = collections.namedtuple('Document', 'doc_id title text')
Judged = collections.namedtuple('Judged', 'query_id doc_id relevance')
class Query(collections.namedtuple('Query', 'query_id text')):
  def default_text(self):
    return self.text
class Dataset:
  def __init__(self, queries, has_qrels=True, broken=False):
    self.queries, self.judged, self.broken = queries, has_qrels, broken
  def has_docs(self):
    return True
  def has_queries(self):
    return bool(self.queries)
  def has_qrels(self):
    return self.judged
  def docs_iter(self):
    if self.broken:
      raise RuntimeError('All sources failed', ['a', 'long', 'list'])
    for n in range(12):
      yield Document(f'd{n}', f'Title {n}', f'the otter {n} sleeps by day')
  def queries_iter(self):
    return (Query(name, f'otter {name}') for name in self.queries)
  def qrels_iter(self):
    return (Judged(name, 'd3', 1) for name in self.queries)
registry = {
  'zoo': Dataset(['q1', 'q2', 'q3'], has_qrels=False),
  'zoo/train': Dataset(['q1']),
  'zoo/validation': Dataset(['q2']),
  'zoo/test': Dataset(['q3']),
  'zoo/train/small': Dataset(['q1']),
  'flat': Dataset(['q1']),
  'heap': Dataset([], has_qrels=False),
  'heap/2020': Dataset(['q1']),
  'msmarco-passage': Dataset([], has_qrels=False),
  'msmarco-passage/train': Dataset(['q1', 'q9']),
  'msmarco-passage/train/judged': Dataset(['q1']),
  'msmarco-passage/dev': Dataset(['q2', 'q3']),
  # Nobody says that the two draws from dev are apart.
  'msmarco-passage/dev/2': Dataset(['q2', 'q3']),
  'msmarco-passage/dev/small': Dataset(['q3']),
  'broken': Dataset(['q1'], broken=True),
}
load = registry.__getitem__
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
  (tmp_path / 'packages').mkdir()
  (tmp_path / 'packages' / 'ir_datasets.py').write_text(PACKAGE)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('PYTHONPATH', f'{tmp_path / "packages"}:{ROOT}')
  return tmp_path


def test_a_collection_is_written_once_with_its_splits(here, capfd):
  arguments = training(data='ir_datasets:zoo')
  assert prepare.main(arguments) == 0
  assert '1 labelled' in capfd.readouterr().out
  written = here / 'run' / 'data' / 'zoo'
  collection = Collection(written)
  assert collection.splits() == ['dev', 'test', 'train']
  judged = {s: collection.judgements(s) for s in collection.splits()}
  assert [j[0].query_id for j in judged.values()] == ['q2', 'q3', 'q1']
  # What is there is not asked for again.
  (here / 'packages' / 'ir_datasets.py').write_text('raise ImportError')
  assert prepare.main(arguments) == 0
  assert 'preparing' not in capfd.readouterr().out


def test_ms_marco_is_tested_on_its_small_dev(here):
  # In a process of its own, as preparation is: this one may have the real
  # package.
  script = (
    'from gr_jax.tasks.ir_datasets import write_collection as write;'
    'write("msmarco-passage", "marco")'
  )
  subprocess.run([sys.executable, '-c', script], check=True)
  collection = Collection(here / 'marco')
  judged = {s: collection.judgements(s) for s in collection.splits()}
  queries = {s: [j.query_id for j in rows] for s, rows in judged.items()}
  assert queries == {'train': ['q1'], 'dev': ['q2'], 'test': ['q3']}
  assert [q.id for q in collection.queries()] == ['q1', 'q2', 'q3']


REFUSED = {
  'zooo': "ir_datasets has no 'zooo' (did you mean 'zoo'?)",
  'heap': 'has no judged queries; these parts have: heap/2020',
  'broken': 'could not be fetched and written: All sources failed',
  '': "ir_datasets has no ''",
}


def refusal(name, monkeypatch, capfd):
  monkeypatch.setattr(
    sys, 'argv', ['prepare', *training(data=f'ir_datasets:{name}')]
  )
  with pytest.raises(SystemExit) as caught:
    entry.run_main(prepare.main)
  assert caught.value.code == 2
  assert not pathlib.Path('run').exists()
  (line,) = capfd.readouterr().err.splitlines()
  return line


@pytest.mark.parametrize('name', REFUSED)
def test_what_it_does_not_have_is_one_line(name, here, monkeypatch, capfd):
  line = refusal(name, monkeypatch, capfd)
  assert line.startswith('error: ') and REFUSED[name] in line


def test_a_missing_package_is_named_with_its_extra(here, monkeypatch, capfd):
  (here / 'packages' / 'ir_datasets.py').write_text('raise ImportError')
  line = refusal('zoo', monkeypatch, capfd)
  assert line == (
    "error: ir_datasets is not installed: pip install 'gr_jax[datasets]'"
  )
