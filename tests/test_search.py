"""The search door: answers, bad input, and what it must not import."""

import io
import json
import os
import pathlib
import resource
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / 'tests' / 'retrieval'))

import saved_index  # noqa: E402

from gr_jax import search  # noqa: E402
from gr_jax.retrieval import opening  # noqa: E402
from gr_jax.retrieval.search_settings import SearchSettings  # noqa: E402
from gr_jax.types import UserError  # noqa: E402


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  path = tmp_path_factory.mktemp('run') / 'index'
  return path, saved_index.save(path)


@pytest.fixture(autouse=True)
def compilation_cache(monkeypatch, tmp_path_factory):
  """Doors in processes of their own leave the user's cache alone."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.getbasetemp()))


def run(*arguments, stdin=None):
  return subprocess.run(
    [sys.executable, '-m', 'gr_jax.search', *map(str, arguments)],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    input=stdin,
    capture_output=True,
    check=False,
  )


def test_each_document_finds_itself(saved):
  path, documents = saved
  searcher = opening.open_searcher(path, verify=True)
  for row, hits in enumerate(searcher.search(documents, 2)):
    assert hits[0].snippet == documents[row]
    assert hits[0].score == pytest.approx(1.0, abs=1e-2)
  fewer = opening.open_searcher(
    path, settings=SearchSettings(beams=20, fraction=0.1, batch_sizes=(8,))
  )
  found = fewer.search_batch(documents[:3], 10)
  assert found.documents_scored_B.tolist() == [4, 4, 4]
  assert fewer.encode(documents).shape == (saved_index.DOCUMENTS, 16)


def test_json_holds_what_was_found(saved, capsys):
  path, documents = saved
  query = documents[7]
  assert search.main([f'--index={path}', '--json', '--k=3', query]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 1
  answer = json.loads(lines[0])
  assert answer['query'] == query
  assert len(answer['hits']) == 3
  best = answer['hits'][0]
  assert best['snippet'] == query
  assert len(best['codes']) == 3
  assert set(best) == {
    'document',
    'document_id',
    'title',
    'snippet',
    'score',
    'generative_score',
    'dense_score',
    'codes',
  }


def test_the_page_shows_title_score_and_codes_without_escapes(saved, capsys):
  path, documents = saved
  search.main([f'--index={path}', documents[0], documents[1]])
  out = capsys.readouterr().out
  assert out.count('> ') == 2
  assert out.count('codes ') == 10
  assert 'title 0 [31m' in out
  assert '\x1b' not in out


def test_flags_change_the_search_of_the_index(saved, capsys):
  path, documents = saved
  arguments = [f'--index={path}', '--json', documents[7]]
  search.main(arguments)
  before = json.loads(capsys.readouterr().out)['hits']
  search.main(
    ['--documents_scored=2', '--generative_weight=1', '--dense_weight=2']
    + ['--beams=3', *arguments]
  )
  hits = json.loads(capsys.readouterr().out)['hits']
  assert (len(before), len(hits)) == (5, 2)
  assert hits[0]['score'] == pytest.approx(
    hits[0]['generative_score'] + 2 * hits[0]['dense_score'], rel=1e-4
  )
  searcher = opening.open_searcher(path, changes={'beams': 3})
  assert searcher.settings.beams == 3
  # What is not named stays as it was saved.
  assert searcher.settings.batch_sizes == (1, 8)


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    ([], {}),
    (
      ['--generative_weight=.1'],
      {'generative_weight': 0.1, 'fusion': 'log_linear'},
    ),
    (
      ['--reciprocal_decay=.1'],
      {'reciprocal_decay': 0.1, 'fusion': 'reciprocal'},
    ),
    (['--fusion=reciprocal'], {'fusion': 'reciprocal'}),
    (['--dense_weight=2'], {'dense_weight': 2.0}),
  ],
)
def test_a_weight_asks_for_the_fusion_that_reads_it(arguments, expected):
  flags = search._parser().parse_args(['--index=x', *arguments])
  assert search.search_changes(flags) == expected


@pytest.mark.parametrize(
  'arguments',
  [
    ['--fusion=log_linear', '--reciprocal_weight=1'],
    ['--generative_weight=1', '--reciprocal_weight=1'],
  ],
)
def test_a_weight_that_nothing_reads_is_refused(arguments):
  flags = search._parser().parse_args(['--index=x', *arguments])
  with pytest.raises(UserError, match='reciprocal_weight is of --fusion=rec'):
    search.search_changes(flags)


def test_queries_come_from_stdin(saved, capsys, monkeypatch):
  path, documents = saved
  text = f'{documents[3]}\n\n{documents[4]}\n'
  stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
  monkeypatch.setattr(sys, 'stdin', stdin)
  search.main([f'--index={path}', '--json'])
  found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [answer['query'] for answer in found] == documents[3:5]
  broken = io.TextIOWrapper(io.BytesIO(b'good\nb\xffd\n'))
  monkeypatch.setattr(sys, 'stdin', broken)
  with pytest.raises(UserError, match='stdin, line 2: expected UTF-8'):
    search.main([f'--index={path}', '--json'])


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--k=0', 'query'], '--k should be 1 or more'),
    (['--dense_weight=nan', 'query'], 'dense_weight should be finite'),
    (['  '], 'a query should have some text'),
    (['\udcff'], 'expected a query in UTF-8'),
  ],
)
def test_impossible_arguments_are_refused(saved, arguments, message):
  with pytest.raises(UserError, match=message):
    search.main([f'--index={saved[0]}', *arguments])


def test_the_identifiers_of_another_model_are_refused(tmp_path):
  path = tmp_path / 'index'
  saved_index.save(path, positions=2)
  with pytest.raises(UserError, match=r'has identifiers .*, its model'):
    opening.open_searcher(path)


def test_bad_indexes_end_with_one_line_and_status_2(saved, tmp_path):
  path = tmp_path / 'index'
  saved_index.save(path)
  vectors = path / 'v000001' / 'vectors.npy'
  damaged = bytearray(vectors.read_bytes())
  damaged[-1] ^= 1
  vectors.write_bytes(damaged)
  cases = [
    ([f'--index={tmp_path / "nowhere"}'], b'there is no index folder'),
    ([f'--index={tmp_path}'], b'holds no finished index'),
    ([f'--index={path}', '--verify'], b'vectors.npy is damaged'),
  ]
  for arguments, message in cases:
    result = run(*arguments, 'a query')
    assert result.returncode == 2
    assert result.stdout == b''
    assert result.stderr.count(b'\n') == 1
    assert result.stderr.startswith(b'error: ')
    assert message in result.stderr


def test_search_imports_nothing_of_training(saved):
  code = (
    'import sys; from gr_jax import search;'
    f' search.main(["--index={saved[0]}", "read a file"]);'
    ' heavy = {"tensorflow", "seqio", "orbax", "grain", "optax", "gin", "clu"};'
    ' print("imported", heavy & set(sys.modules))'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.endswith('imported set()\n')


def test_help_imports_nothing_heavy():
  before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
  code = (
    'import sys; from gr_jax import search;'
    ' heavy = {"jax", "numpy", "flax"};'
    ' print(heavy & set(sys.modules)); search.main(["--help"])'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
  assert after - before < 1
  assert result.returncode == 0
  assert result.stdout.startswith('set()')
  assert '--index' in result.stdout
