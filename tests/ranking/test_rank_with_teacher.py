"""The door: candidates in, rankings out, the same bytes after any kill."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import tiny_collection
import tiny_ranker

from gr_jax import rank_with_teacher, run_folder, verify
from gr_jax.data.collection import Collection
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.ranking import dense, teaching
from gr_jax.ranking.opening import load_ranker
from gr_jax.ranking.teacher_files import (
  ranking_line,
  read_manifest,
  read_rankings,
)
from gr_jax.retrieval.opening import open_searcher
from gr_jax.run_settings import RunSettings
from gr_jax.types import UserError


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return tiny_collection.write_collection(tmp_path_factory.mktemp('c') / 'c')


@pytest.fixture(scope='module')
def ranker(tmp_path_factory):
  return tiny_ranker.write_ranker(tmp_path_factory.mktemp('m'))


@pytest.fixture(autouse=True)
def compiles_where_tests_do(monkeypatch):
  monkeypatch.setattr('gr_jax.entry.keep_compiled', lambda: None)


def flags(data, output, *more, teacher='bm25'):
  return [
    f'--data_dir={data}', f'--output={output}', f'--teacher={teacher}',
    '--candidates=bm25', '--depth=5', '--shard_queries=30', *more,
  ]  # fmt: skip


def contents(folder):
  return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_a_cross_encoder_ranks_what_bm25_finds(data, ranker, tmp_path):
  output = tmp_path / 'r'
  assert rank_with_teacher.main(flags(data, output, teacher=ranker)) == 0
  collection = Collection(data)
  queries = {query.id: query.text for query in collection.queries()}
  documents = {document.id: document for document in collection.documents()}
  found = list(read_rankings(output, queries, documents))
  assert [r.query_id for r in found] == list(queries)
  scorer = load_ranker(ranker)
  for ranking in found[::9]:
    assert ranking.query_id[:-2] in ranking.document_ids
    assert 5 <= len(ranking.document_ids) <= 6
    expected = scorer.scores(
      [queries[ranking.query_id]] * len(ranking.document_ids),
      [documents[name] for name in ranking.document_ids],
    )
    assert ranking.scores == pytest.approx(expected, abs=1e-5)
  manifest = read_manifest(output)
  assert manifest['teachers'] == {str(ranker): scorer.sha256}
  assert manifest['candidates'] == {'bm25': ''}
  assert manifest['collection'] == collection.fingerprint()
  assert len(manifest['files']) == 3
  assert not list(tmp_path.glob('.r*'))


def test_several_teachers_and_sources_join(data, ranker, tmp_path):
  run = tmp_path / 'run.trec'
  run.write_text('otter-river-0 Q0 carp-harbour 1 1.0 x\n')
  sentences = tiny_ranker.write_ranker(tmp_path / 'm', sentences=True)
  output = tmp_path / 'r'
  more = (
    f'--teacher=dense:{sentences}', '--teacher=random', '--split=dev',
    f'--candidates=dense:{sentences}', f'--candidates={run}',
  )  # fmt: skip
  rank_with_teacher.main(flags(data, output, *more))
  found = {r.query_id: r for r in read_rankings(output)}
  assert len(found) == 40
  assert 'carp-harbour' in found['otter-river-0'].document_ids
  assert max(r.scores[0] for r in found.values()) <= 3 / 61 + 1e-6
  assert list(read_manifest(output)['teachers']) == [
    'bm25', f'dense:{sentences}', 'random:0',
  ]  # fmt: skip
  assert not list(tmp_path.glob('.r*'))


def asked_with_their_own_texts(folder, texts):
  """A collection of documents d0, d1, ... each of which is a query, too."""
  (folder / 'qrels').mkdir(parents=True)
  for file, suffix in (('corpus', ''), ('queries', '-q')):
    rows = [
      {'_id': f'd{n}{suffix}', 'title': '', 'text': text}
      for n, text in enumerate(texts)
    ]
    lines = ''.join(json.dumps(row) + '\n' for row in rows)
    (folder / f'{file}.jsonl').write_text(lines)
  lines = ''.join(f'd{n}-q\td{n}\t1\n' for n in range(len(texts)))
  (folder / 'qrels' / 'train.tsv').write_text(
    'query-id\tcorpus-id\tscore\n' + lines
  )
  return folder


def test_an_index_is_searched_as_the_flags_say(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / 'retrieval')
  import saved_index

  texts = saved_index.save(tmp_path / 'index')
  data = asked_with_their_own_texts(tmp_path / 'data', texts)
  output = tmp_path / 'r'
  given = [
    f'--data_dir={data}', f'--output={output}', '--teacher=random',
    f'--candidates={tmp_path / "index"}', '--depth=5',
  ]  # fmt: skip
  alone = ['--dense_weight=0', '--generative_weight=1', '--documents_scored=9']
  rank_with_teacher.main([*given, *alone])
  changes = {'dense_weight': 0, 'generative_weight': 1, 'documents_scored': 9}
  searcher = open_searcher(tmp_path / 'index', changes=changes)
  found = {r.query_id: set(r.document_ids) for r in read_rankings(output)}
  expected = {
    f'd{row}-q': {f'd{row}', *(hit.document_id for hit in hits)}
    for row, hits in enumerate(searcher.search(texts, 5))
  }
  assert found == expected
  wanted = {'fusion': 'log_linear', **changes}
  assert read_manifest(output)['search'] == wanted
  # What it was saved with finds others, and is no way to go on.
  with pytest.raises(UserError, match='of other search'):
    rank_with_teacher.main(given)
  output.rename(tmp_path / 'before')
  rank_with_teacher.main(given)
  assert expected != {
    r.query_id: set(r.document_ids) for r in read_rankings(output)
  }
  assert 'search' not in read_manifest(output)


@pytest.fixture
def run(data, tmp_path):
  preparation = PreparationSettings(spans_per_document=2)
  settings = RunSettings(
    run_dir='there', data_dir=str(data), preparation=preparation
  )
  run_folder.keep_settings(settings, tmp_path / 'run', '')
  return tmp_path / 'run'


def of_run(run, *more):
  output = run.with_name('r')
  return [
    f'--run_dir={run}', f'--output={output}', '--teacher=bm25',
    '--candidates=bm25', '--depth=5', *more,
  ]  # fmt: skip


def test_queries_that_a_run_is_trained_on_are_ranked(data, run):
  rank_with_teacher.main(of_run(run, '--source=spans', '--source=labelled'))
  output = run.with_name('r')
  found = {r.query_id: r.document_ids for r in read_rankings(output)}
  documents = {document.id for document in Collection(data).documents()}
  spans = {name for name in found if ':spans:' in name}
  labelled = {query.id for query in Collection(data).queries()}
  assert {name.partition(':')[0] for name in spans} == documents
  assert set(found) - spans == labelled
  assert all(name.partition(':')[0] in found[name] for name in spans)
  assert all(name[:-2] in found[name] for name in labelled)
  assert read_manifest(output)['sources'] == ['spans', 'labelled']
  # Spans of another seed have the same ids.
  texts = {r.query_id: r.query for r in read_rankings(output)}
  queries = {query.id: query.text for query in Collection(data).queries()}
  assert texts | queries == texts and all(texts.values())


def test_rankings_of_other_spans_are_not_gone_on_with(data, run):
  rank_with_teacher.main(of_run(run, '--source=spans'))
  preparation = PreparationSettings(spans_per_document=2, seed=1)
  settings = RunSettings(
    run_dir='there', data_dir=str(data), preparation=preparation
  )
  run_folder.keep_settings(settings, run, '')
  with pytest.raises(UserError, match='examples'):
    rank_with_teacher.main(of_run(run, '--source=spans'))


@pytest.mark.parametrize(
  'more, message',
  [
    (['--source=pseudo'], r"'spans'.*none of \['pseudo'\]"),
    (['--split=dev'], '--split is of --data_dir'),
    (['--max_bad_records=1'], '--max_bad_records is of --data_dir'),
  ],
)
def test_what_a_run_does_not_have(run, more, message):
  with pytest.raises(UserError, match=message):
    rank_with_teacher.main(of_run(run, *more))


@pytest.mark.parametrize('name', ['save_shard', 'mark_done', 'write_manifest'])
def test_it_goes_on_after_any_interruption(data, tmp_path, monkeypatch, name):
  """Before and after each write of a shard and of its mark."""
  rank_with_teacher.main(flags(data, tmp_path / 'whole'))
  output, real = tmp_path / 'r', getattr(teaching, name)
  allowed = 0 if name == 'write_manifest' else 1
  for before in (True, False) * 2:
    calls = []

    def interrupted(*given, calls=calls, before=before):
      calls.append(given)
      if before and len(calls) > allowed:
        raise KeyboardInterrupt
      real(*given)
      if len(calls) > allowed:
        raise KeyboardInterrupt

    monkeypatch.setattr(teaching, name, interrupted)
    try:
      rank_with_teacher.main(flags(data, output))
    except KeyboardInterrupt:
      assert calls
    monkeypatch.setattr(teaching, name, real)
  rank_with_teacher.main(flags(data, output))
  assert contents(output) == contents(tmp_path / 'whole')


_KILLED = """
import os, signal, sys
from gr_jax import rank_with_teacher
from gr_jax.ranking import dense, teaching
done = []
def kill(path):
  done.append(path)
  if len(done) == 2:
    os.kill(os.getpid(), signal.SIGKILL)
  mark(path)
mark, teaching.mark_done = teaching.mark_done, kill
rank_with_teacher.main(sys.argv[1:])
"""


def test_kill_9_inside_a_shard(data, tmp_path):
  output = tmp_path / 'killed'
  killed = subprocess.run(
    [sys.executable, '-c', _KILLED, *flags(data, output)],
    env={**os.environ, 'PYTHONPATH': str(pathlib.Path(__file__).parents[2])},
    capture_output=True,
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert (output / '00001.jsonl').exists()
  assert not (output / '00001.done.json').exists()
  first = (output / '00000.jsonl').stat().st_mtime_ns
  rank_with_teacher.main(flags(data, output))
  assert (output / '00000.jsonl').stat().st_mtime_ns == first
  rank_with_teacher.main(flags(data, tmp_path / 'whole'))
  assert contents(output) == contents(tmp_path / 'whole')


@pytest.mark.mesh
def test_two_processes_share_the_shards(data, ranker, tmp_path):
  import several_processes

  sentences = tiny_ranker.write_ranker(tmp_path / 'm', sentences=True)
  for count in (1, 2):
    folder = tmp_path / str(count)
    folder.mkdir()
    door = ['-m', 'gr_jax.rank_with_teacher']
    more = (f'--teacher=dense:{sentences}', '--shard_queries=20')
    several_processes.run(
      count, [*door, *flags(data, folder / 'r', *more, teacher=ranker)], folder
    )
  assert contents(tmp_path / '1' / 'r') == contents(tmp_path / '2' / 'r')


def test_verify_reads_every_byte(data, tmp_path, capsys):
  output = tmp_path / 'all' / 'r'
  rank_with_teacher.main(flags(data, output))
  assert verify.main([str(tmp_path / 'all')]) == 0
  assert 'rankings' in capsys.readouterr().out
  path = output / '00001.jsonl'
  path.write_bytes(path.read_bytes().replace(b'-', b'+', 1))
  assert verify.main([str(output)]) == 1
  assert f'{path}: damaged' in capsys.readouterr().out


@pytest.mark.parametrize(
  'more, message',
  [
    (['--source=spans'], '--source is of the queries of --run_dir'),
    (['--depth=0'], 'depth must be at least 1'),
    (['--shard_queries=0'], 'shard_queries must be at least 1'),
    (['--seed=-1'], 'seed must be at least 0'),
    (['--queries=0'], 'queries must be at least 1'),
    (['--split=tain'], "no split 'tain'.*did you mean 'train'"),
    (['--teacher=nothing'], "got 'nothing', which is no folder"),
    (['--teacher=run:nothing'], "got 'run:nothing', which is no folder"),
    (['--candidates=nothing'], "got 'nothing', which is not there"),
    (['--teacher=bm25'], '--teacher=bm25 stands twice'),
    (['--candidates=dense:nothing'], 'Expected weights in the folder'),
    (['--beams=9'], '--beams says how an index is searched: name the folder'),
  ],
)
def test_bad_input_is_refused_in_a_line(data, tmp_path, more, message):
  with pytest.raises(UserError, match=message):
    rank_with_teacher.main(flags(data, tmp_path / 'r', *more))
  assert not (tmp_path / 'r').exists()


def test_a_folder_of_other_rankings_is_refused(data, tmp_path):
  output = tmp_path / 'r'
  rank_with_teacher.main(flags(data, output))
  before = contents(output)
  with pytest.raises(UserError, match='of other depth'):
    rank_with_teacher.main(flags(data, output, '--depth=6'))
  with pytest.raises(UserError, match='of other teachers'):
    rank_with_teacher.main(flags(data, output, '--teacher=random'))
  assert contents(output) == before
  (output / 'inputs.json').unlink()
  with pytest.raises(UserError, match='not of this command'):
    rank_with_teacher.main(flags(data, output))


def test_a_file_in_the_place_of_rankings_stays(data, tmp_path):
  output = tmp_path / 'r'
  output.write_text('mine')
  with pytest.raises(UserError, match='is or holds files that are not of this'):
    rank_with_teacher.main(flags(data, output))
  assert output.read_text() == 'mine'


def test_no_depth_takes_more_memory_than_the_corpus_has_documents(
  data, tmp_path
):
  found = {}
  for depth in ('40', str(10**11)):
    output = tmp_path / depth
    rank_with_teacher.main(flags(data, output, f'--depth={depth}'))
    found[depth] = [path.read_bytes() for path in output.glob('*.jsonl')]
  assert found['40'] == found[str(10**11)]


def test_whole_rankings_encode_no_corpus_again(data, tmp_path, monkeypatch):
  sentences = tiny_ranker.write_ranker(tmp_path / 'm', sentences=True)
  given = flags(data, tmp_path / 'r', teacher=f'dense:{sentences}')
  rank_with_teacher.main(given)
  before = contents(tmp_path / 'r')
  monkeypatch.setattr(dense.DenseSearch, 'encode', None)
  rank_with_teacher.main(given)
  assert contents(tmp_path / 'r') == before


def test_some_of_the_queries_are_ranked_as_all_would_be(data, tmp_path):
  rank_with_teacher.main(flags(data, tmp_path / 'all'))
  whole = {r.query_id: ranking_line(r) for r in read_rankings(tmp_path / 'all')}
  drawn = {}
  for seed in (0, 1):
    output, more = tmp_path / f's{seed}', ('--queries=7', f'--seed={seed}')
    rank_with_teacher.main(flags(data, output, *more))
    found = [(r.query_id, ranking_line(r)) for r in read_rankings(output)]
    assert len(found) == 7
    drawn[seed] = [name for name, _ in found]
    assert drawn[seed] == [name for name in whole if name in drawn[seed]]
    assert all(line == whole[name] for name, line in found)
  assert drawn[0] != drawn[1]
  with pytest.raises(UserError, match='of other drawn_by_seed'):
    rank_with_teacher.main(flags(data, tmp_path / 's1', '--queries=7'))
  rank_with_teacher.main(flags(data, tmp_path / 'more', '--queries=1000'))
  assert len(list(read_rankings(tmp_path / 'more'))) == len(whole)
