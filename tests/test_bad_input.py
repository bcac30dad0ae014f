"""What a newcomer gets wrong: one line, status 2, and nothing half-written."""

import importlib.util
import json
import pathlib
import re
import shutil
import sys

import pytest
from small_run import training
from tiny_collection import write_collection

from gr_jax import (
  compare,
  entry,
  evaluate,
  index_corpus,
  insert,
  locks,
  prepare,
  report_ids,
  run_folder,
  search,
  train,
)

ROOT = pathlib.Path(__file__).parent.parent
DOORS = {
  'compare': compare,
  'evaluate': evaluate,
  'index_corpus': index_corpus,
  'insert': insert,
  'prepare': prepare,
  'report_ids': report_ids,
  'search': search,
  'train': train,
}


def contents(folder):
  """Every path below a folder, with the bytes of files."""
  return {
    path.relative_to(folder).as_posix(): path.is_file() and path.read_bytes()
    for path in folder.rglob('*')
  }


@pytest.fixture
def refuse(here, monkeypatch, capfd):
  """Runs a door that must refuse; returns its one line."""

  def run(door, *arguments):
    before = contents(here)
    monkeypatch.setattr(sys, 'argv', [door, *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
      entry.run_main(DOORS[door].main)
    lines = capfd.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith('error: ')
    assert contents(here) == before
    return lines[0].removeprefix('error: ')

  return run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  """Every test works in a folder of its own."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  return tmp_path


QRELS = 'qrels/train.tsv'
RECORDS = {
  'bad JSON': ('corpus.jsonl', b'{"_id": \n', r'corpus.jsonl:41: bad JSON'),
  'no id': ('corpus.jsonl', b'{"text": "x"}\n', r"jsonl:41: .*'_id'"),
  'blank id': (
    'corpus.jsonl',
    b'{"_id": " ", "text": "x"}\n',
    r'41: the id is blank',
  ),
  'duplicate id': (
    'corpus.jsonl',
    b'{"_id": "otter-river", "text": "x"}\n',
    r"corpus.jsonl:41: the id 'otter-river' is that of line 1 already",
  ),
  'empty document': (
    'corpus.jsonl',
    b'{"_id": "a", "title": "", "text": " "}\n',
    r"corpus.jsonl:41: the document 'a' is empty",
  ),
  'bad UTF-8': ('corpus.jsonl', b'{"_id": "\xff"}\n', r'jsonl:41: .*UTF-8'),
  'query without text': ('queries.jsonl', b'{"_id": "q"}\n', r'81: .*text'),
  'unknown query': (QRELS, b'q9\totter-river\t1\n', r"82: .*'q9' is not in"),
  'unknown document': (
    QRELS,
    b'otter-river-0\totter-rivre\t1\n',
    r"train.tsv:82: the document id 'otter-rivre' is not in the corpus",
  ),
  'bad split that only evaluation reads': (
    'qrels/test.tsv',
    b'one column\n',
    r'test.tsv:42: expected 3 columns, got 2',
  ),
}


@pytest.mark.parametrize('case', RECORDS)
def test_bad_records(case, here, refuse):
  file, added, expected = RECORDS[case]
  with (write_collection(here / 'data') / file).open('ab') as opened:
    opened.write(added)
  line = refuse('train', *training())
  assert re.search(expected, line), line
  assert 'or raise max_bad_records (in training PreparationSettings.m' in line


SETTINGS = {
  'unknown setting': (
    ['--gin.T5Config.emb_dimm=3'],
    "T5Config has no 'emb_dimm' (did you mean 'emb_dim'?)",
  ),
  'unknown macro': (
    ['--gin.STEP=3'],
    "nothing uses the macro STEP (did you mean 'STEPS'?)",
  ),
  'macro that is not used any more': (
    ['--gin.VOCABULARY=x', '--gin.PreparationSettings.vocabulary=v.model'],
    'VOCABULARY since --gin.PreparationSettings.vocabulary took its place',
  ),
  'wrong type': (
    ['--gin.SEED=many'],
    "RunSettings.seed expects int, got str 'many'",
  ),
  'no such gin file': (
    ['--gin_file=gin/runs/quickstrat.gin'],
    "(did you mean 'gin/runs/quickstart.gin'?)",
  ),
  'no steps': (['--gin.TrainingSettings.log_every=0'], 'must be at least 1'),
  'no such split': (
    ['--gin.PreparationSettings.train_split=trian'],
    "no split 'trian'; there are ['dev', 'test', 'train'] (did you mean",
  ),
  'no such vocabulary': (
    ['--gin.VOCABULARY=nowhere.json'],
    "'nowhere.json' does not exist",
  ),
  'no such source': (
    ['--gin.PreparationSettings.sources=("labeled",)'],
    "no source 'labeled'",
  ),
}


@pytest.mark.parametrize('case', SETTINGS)
def test_bad_settings(case, here, refuse):
  more, expected = SETTINGS[case]
  write_collection(here / 'data')
  assert expected in refuse('train', *training(*more))


def test_missing_folders(here, refuse):
  write_collection(here / 'data')
  line = refuse('train', *training(data='datas'))
  assert 'expected a folder in the BEIR layout' in line
  assert "did you mean 'data'?" in line
  line = refuse('prepare', *training(run='data/corpus.jsonl/run'))
  assert 'corpus.jsonl is a file: choose another RUN_DIR' in line
  for door in ('evaluate', 'index_corpus'):
    line = refuse(door, '--run_dir=none')
    assert 'has no settings.json: train it with' in line
  for door, *more in (
    ('search', 'otter'),
    ('insert', '--corpus=data/corpus.jsonl'),
    ('report_ids',),
  ):
    line = refuse(door, '--index=none', *more)
    assert 'there is no index folder' in line and 'index_corpus' in line


COMPARISONS = {
  'no such variant': (['--only=smok'], '--only=smok should match a variant'),
  'no such measure': (
    ["--gin.ComparisonSettings.measures=('R@10', 'MRR@01')"],
    "'MRR@01'",
  ),
  'a share of all documents above one': (
    ['--gin.ComparisonSettings.fractions=(2.0,)'],
    'fractions should lie in (0, 1], got (2.0,)',
  ),
  'what a comparison sets itself': (
    ["--gin.COMMON=('SEED=3',)"],
    'a comparison sets SEED of each run itself',
  ),
  'unknown setting': (
    ['--gin.ComparisonSettings.seed=3'],
    "ComparisonSettings has no 'seed' (did you mean 'seeds'?)",
  ),
}


@pytest.mark.parametrize('case', COMPARISONS)
def test_bad_comparisons(case, refuse):
  more, expected = COMPARISONS[case]
  line = refuse('compare', '--gin_file=gin/experiments/smoke.gin', *more)
  assert expected in line


def test_preparation_without_its_extra(monkeypatch, refuse):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *more: None if name == 'seqio' else find(name, *more),
  )
  line = refuse('prepare', '--settings=s.json', '--output=prepared')
  assert line == "preparation needs seqio: pip install 'gr_jax[prepare]'"


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of one step with its index."""
  folder = tmp_path_factory.mktemp('trained')
  write_collection(folder / 'data')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    patch.setenv('PYTHONPATH', str(ROOT))
    assert train.main(training()) == 0
  return folder


@pytest.fixture
def run(trained, here):
  """The same in a place where it may be damaged."""
  shutil.copytree(trained, here, dirs_exist_ok=True)
  return here / 'run'


def test_what_a_run_does_not_have(run, refuse):
  line = refuse('evaluate', '--run_dir=run', '--split=tets')
  assert "no split 'tets'" in line and "did you mean 'test'" in line
  line = refuse('evaluate', '--run_dir=run', '--index=none')
  assert 'there is no index folder' in line
  line = refuse('index_corpus', '--run_dir=run', '--checkpoint=7')
  assert 'no checkpoint of step 7 (there are: 1)' in line


def test_another_configuration_of_a_trained_run(run, refuse):
  line = refuse('train', *training('--gin.SEED=5'))
  assert 'trained with another seed (was 0, is 5)' in line
  assert 'another RUN_DIR' in line


def flip(path, place=-1):
  damaged = bytearray(path.read_bytes())
  damaged[place] ^= 1
  path.write_bytes(damaged)


def test_a_flipped_bit_in_a_checkpoint(run, refuse):
  step = run / 'checkpoints' / 'step_00000001'
  arrays = max(step.glob('state/**/d/*'), key=lambda path: path.stat().st_size)
  flip(arrays, arrays.stat().st_size // 2)
  for line in (
    refuse('train', *training()),
    refuse('index_corpus', '--run_dir=run'),
  ):
    assert f'{arrays} is damaged' in line and f'delete {step}' in line


def test_a_flipped_bit_in_prepared_examples(run, refuse):
  """Sizes stay as they were: only the bytes tell."""
  prepared = run / 'prepared'
  damaged = [
    next(prepared.glob('examples-labelled*')),
    prepared / 'document_ids.txt',
  ]
  for path in damaged:
    whole = path.read_bytes()
    flip(path, len(whole) // 2)
    line = refuse('train', *training())
    assert f'{path}: damaged' in line and f'delete {prepared}' in line
    path.write_bytes(whole)
  # What is no text or no array any more is not even opened.
  path = prepared / 'document_ids.txt'
  path.write_bytes(bytes([path.read_bytes()[0] ^ 128]) + path.read_bytes()[1:])
  line = refuse('train', *training())
  assert f'{prepared}: damaged' in line and 'prepare again' in line


def test_a_flipped_bit_in_an_index(run, refuse):
  flip(run / 'index' / 'v000001' / 'vectors.npy')
  line = refuse('search', '--index=run/index', '--verify', 'otter')
  assert 'vectors.npy is damaged or changed' in line
  assert 'build the index again' in line


def test_documents_that_cannot_be_inserted(run, refuse):
  into = ('insert', '--index=run/index')
  line = refuse(*into, '--corpus=data/corpus.json')
  assert "did you mean 'corpus.jsonl'" in line
  line = refuse(*into, '--corpus=data/corpus.jsonl')
  assert 'should get new documents, it holds' in line and 'leave them' in line
  pathlib.Path('new.jsonl').write_text('{"_id": "new"}\n')
  assert "new.jsonl:1: no 'text'" in refuse(*into, '--corpus=new.jsonl')


def test_a_report_that_cannot_be_written(run, refuse):
  about = ('report_ids', '--index=run/index')
  line = refuse(*about, '--against=run/index/v000002')
  assert 'v000002' in line
  pathlib.Path('taken').write_text('')
  line = refuse(*about, '--output=taken')
  assert 'taken should be a folder, it is a file' in line
  line = refuse(*about, '--output=run/index/report')
  assert 'should lie outside of the index' in line
  line = refuse(*about, '--run_dir=none')
  assert 'has no settings.json' in line


def test_a_checkpoint_of_another_vocabulary(run, refuse):
  """As when other texts are prepared into the folder that a run reads."""
  words = pathlib.Path('data/corpus.jsonl').read_text().swapcase()
  (run.parent / 'other').mkdir()
  pathlib.Path('other/corpus.jsonl').write_text(
    words.replace('_ID', '_id')
    .replace('TITLE', 'title')
    .replace('TEXT', 'text')
  )
  assert prepare.main(training(run='new', data='other')) == 0
  shutil.rmtree(run / 'prepared')
  (run.parent / 'new' / 'prepared').rename(run / 'prepared')
  line = refuse('index_corpus', '--run_dir=run')
  assert 'trained with vocabulary' in line and 'with the former data' in line


def test_a_run_that_another_process_trains(run, refuse):
  with run_folder.held(run):
    line = refuse('train', *training())
  assert line == (
    f'another process is training {run}: wait for it, or choose another RUN_DIR'
  )


def test_a_cache_that_another_process_fills(here, refuse):
  write_collection(here / 'data')
  lock = here / 'cache' / '.prepared.lock'
  with locks.held(lock, 'preparing the examples of a', 'wait'):
    line = refuse('train', *training('--gin.CACHE_DIR=cache'))
  assert line.startswith('another process is preparing the examples of a: wait')
  assert 'choose another CACHE_DIR' in line


def test_a_collection_that_changed_since(run, refuse):
  with open('data/corpus.jsonl', 'a') as file:
    file.write(json.dumps({'_id': 'new', 'text': 'A new one.'}) + '\n')
  line = refuse('train', *training())
  assert 'data has changed since' in line and 'another RUN_DIR' in line
  line = refuse('index_corpus', '--run_dir=run')
  assert 'has changed since it was prepared: bring back' in line
  line = refuse('evaluate', '--run_dir=run')
  assert '1 are missing' in line and 'insert what is missing' in line
