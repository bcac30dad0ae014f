"""Collections to files of queries: the same bytes whatever happens."""

import dataclasses
import errno
import gzip
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_collection import write_collection

from gr_jax import generate_queries, verify
from gr_jax.data.collection import Collection
from gr_jax.data.preparation_settings import PreparationSettings, inputs_hash
from gr_jax.data.pseudo_queries import read_pseudo_queries
from gr_jax.data.text_examples import TextExamples, make_plan
from gr_jax.querygen import pipeline, shards
from gr_jax.querygen.query_settings import (
  DiversitySettings,
  DuplicateSettings,
  ExtractiveSource,
  FileSource,
  LeakSettings,
  QueryGenerationSettings,
  RoundTripSettings,
)
from gr_jax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return write_collection(tmp_path_factory.mktemp('data') / 'tiny')


def asked(folder, output, **more):
  return QueryGenerationSettings(
    str(folder),
    str(output),
    **{
      'sources': (ExtractiveSource(4, 3, 2, 5, 2),),
      'duplicates': DuplicateSettings(0.8, 0.9),
      'diversity': DiversitySettings(3),
      'documents_per_shard': 7,
      **more,
    },
  )


def contents(directory):
  return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_queries_are_those_of_their_documents(folder, tmp_path):
  manifest = pipeline.generate_queries(asked(folder, tmp_path / 'out'))
  assert sorted(os.listdir(tmp_path)) == ['out']
  ids = Collection(folder).document_index()
  found = list(read_pseudo_queries(tmp_path / 'out', ids, pytest.fail))
  assert len(found) == manifest['queries'] > 60
  # In the order of the corpus, whatever the shards.
  assert list(dict.fromkeys(name for name, _ in found)) == [
    name for name in ids if name in dict(found)
  ]
  steps = {step['stage']: step['queries'] for step in manifest['yield']}
  assert next(iter(steps)) == 'source 0:extractive'
  kept = [count for name, count in steps.items() if name.startswith('after')]
  assert kept == sorted(kept, reverse=True)
  assert kept[-1] == len(found)
  assert max(sum(n == name for n, _ in found) for name in ids) <= 3
  first = (tmp_path / 'out' / 'queries-00000.jsonl.gz').read_bytes()
  assert {'gr_jax', 'jaxlib', 'tokenizers'} <= manifest['versions'].keys()
  # Neither a time nor a name stands in the header.
  assert first[4:8] == bytes(4) and not first[3]


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 50))
def test_queries_do_not_depend_on_shards(folder, tmp_path_factory, size):
  outputs = tmp_path_factory.mktemp('sizes')
  whole = asked(folder, outputs / 'whole', documents_per_shard=1000)
  pipeline.generate_queries(whole)
  parts = asked(folder, outputs / 'parts', documents_per_shard=size)
  pipeline.generate_queries(parts)
  ids = Collection(folder).document_index()
  found = [
    list(read_pseudo_queries(outputs / name, ids, pytest.fail))
    for name in ('whole', 'parts')
  ]
  assert found[0] == found[1]


def judged_apart(folder, collection, judged):
  """A copy of a collection that judges a query by its document in each split.

  Args:
    folder: of the collection.
    collection: folder of the copy.
    judged: {split: id of the query}.
  """
  (collection / 'qrels').mkdir(parents=True)
  for name in ('corpus.jsonl', 'queries.jsonl'):
    (collection / name).write_bytes((folder / name).read_bytes())
  head = 'query-id\tcorpus-id\tscore\n'
  for split, query in judged.items():
    line = f'{query}\t{query.rpartition("-")[0]}\t1\n'
    (collection / 'qrels' / f'{split}.tsv').write_text(head + line)


def test_planted_test_queries_are_left_out(folder, tmp_path):
  collection = Collection(folder)
  texts = {query.id: query.text for query in collection.queries()}
  judged = {'train': 'otter-river-1', 'test': 'toad-river-1'}
  judged_apart(folder, tmp_path / 'c', judged)
  planted = [texts[judged['test']].upper() + '!', texts[judged['train']]]
  rows = [{'_id': 'otter-river', 'queries': planted}]
  (tmp_path / 'q.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  what = asked(
    tmp_path / 'c',
    tmp_path / 'out',
    sources=(FileSource(str(tmp_path / 'q.jsonl')),),
    duplicates=DuplicateSettings(2.0),
    leaks=LeakSettings(threshold=0.9),
  )
  manifest = pipeline.generate_queries(what)
  ids = collection.document_index()
  found = list(read_pseudo_queries(tmp_path / 'out', ids, pytest.fail))
  # One that is judged for training alone is no leak.
  assert found == [('otter-river', planted[1])]
  steps = {step['stage']: step['queries'] for step in manifest['yield']}
  assert (steps['leaks equal'], steps['leaks nearly equal']) == (1, 0)
  assert manifest['held_out_queries'] == 1
  everything = dataclasses.replace(
    what, output=str(tmp_path / 'all'), leaks=LeakSettings(())
  )
  assert pipeline.generate_queries(everything)['queries'] == 2


def test_queries_near_one_of_dev_are_left_out_by_default(folder, tmp_path):
  """'dev' has "which swift is at the summit"; there is no 'test'."""
  judged_apart(folder, tmp_path / 'c', {'dev': 'swift-summit-1'})
  planted = ['At the summit: which swift is it?', 'mole of the cellar']
  row = {'_id': 'swift-summit', 'queries': planted}
  (tmp_path / 'q.jsonl').write_text(json.dumps(row))
  what = QueryGenerationSettings(
    str(tmp_path / 'c'),
    str(tmp_path / 'out'),
    sources=(FileSource(str(tmp_path / 'q.jsonl')),),
  )
  manifest = pipeline.generate_queries(what)
  steps = {step['stage']: step['queries'] for step in manifest['yield']}
  assert (steps['leaks equal'], steps['leaks nearly equal']) == (0, 1)
  assert manifest['queries'] == 1
  misspelt = dataclasses.replace(what, leaks=LeakSettings(('dev', 'tset')))
  with pytest.raises(UserError, match=r"'tset'.*\['dev'\].*mean 'test'"):
    pipeline.generate_queries(misspelt)


def test_other_settings_or_texts_are_refused(folder, tmp_path, monkeypatch):
  what = asked(folder, tmp_path / 'out')
  before = pipeline.generate_queries(what)
  monkeypatch.setattr(pipeline, '_make', None)
  assert pipeline.generate_queries(what) == before
  other = dataclasses.replace(what, seed=5)
  with pytest.raises(UserError, match=r'another settings\.seed: choose'):
    pipeline.generate_queries(other)
  monkeypatch.undo()

  def stop(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(pipeline, '_finish', stop)
  begun = dataclasses.replace(what, output=str(tmp_path / 'begun'))
  with pytest.raises(KeyboardInterrupt):
    pipeline.generate_queries(begun)
  with pytest.raises(UserError, match=r'begun with another settings\.seed'):
    pipeline.generate_queries(dataclasses.replace(begun, seed=5))
  with pytest.raises(UserError, match='no source of queries'):
    pipeline.generate_queries(asked(folder, tmp_path / 'x', sources=()))


def test_a_full_disk_is_named_and_the_command_goes_on(
  folder, tmp_path, monkeypatch
):
  what = asked(folder, tmp_path / 'out')
  real, seen = os.replace, []

  def full(source, target):
    seen.append(target)
    if len(seen) == 6:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
    real(source, target)

  monkeypatch.setattr(os, 'replace', full)
  with pytest.raises(UserError, match=r'no space is left.*generating'):
    pipeline.generate_queries(what)
  pipeline.generate_queries(what)
  plain = dataclasses.replace(what, output=str(tmp_path / 'plain'))
  pipeline.generate_queries(plain)
  assert contents(tmp_path / 'out') == contents(tmp_path / 'plain')


DYING = """
import os, signal, sys
from gr_jax import entry, generate_queries
at, real, seen = int(sys.argv.pop(1)), os.fsync, []
def fsync(number):
  seen.append(number)
  if len(seen) == at:
    os.kill(os.getpid(), signal.SIGKILL)
  real(number)
os.fsync = fsync
entry.run_main(generate_queries.main)
"""


def door(folder, output, size=7):
  return [
    f'--gin_file={ROOT}/gin/querygen/default.gin',
    f'--gin.DATA_DIR={folder}',
    f'--gin.OUTPUT={output}',
    '--gin.RoundTripSettings.top=0',
    '--gin.DuplicateSettings.across=0.9',
    f'--gin.QueryGenerationSettings.documents_per_shard={size}',
  ]


def plain(folder, output, monkeypatch):
  monkeypatch.chdir(ROOT)
  assert generate_queries.main(door(folder, output)) == 0


def test_killed_again_and_again_it_writes_the_same_bytes(
  folder, tmp_path, monkeypatch
):
  plain(folder, tmp_path / 'plain', monkeypatch)
  # 1 the inputs, 2 to 13 shards and marks, 6 more files at the end.
  for at in (1, 2, 9, 4, 5):
    status = subprocess.run(
      [sys.executable, '-c', DYING, str(at), *door(folder, tmp_path / 'out')],
      cwd=ROOT,
    ).returncode
    assert status == -signal.SIGKILL
  assert not (tmp_path / 'out').exists()
  plain(folder, tmp_path / 'out', monkeypatch)
  assert contents(tmp_path / 'out') == contents(tmp_path / 'plain')
  assert sorted(os.listdir(tmp_path)) == ['out', 'plain']


@pytest.mark.soak
def test_killed_at_any_moment_it_writes_the_same_bytes(
  folder, tmp_path, monkeypatch
):
  monkeypatch.chdir(ROOT)
  generate_queries.main(door(folder, tmp_path / 'plain', 1))
  command = [sys.executable, '-m', 'gr_jax.generate_queries']
  command += door(folder, tmp_path / 'out', 1)
  draw, killed = random.Random(0), 0
  for _ in range(40):
    with subprocess.Popen(command, cwd=ROOT) as child:
      time.sleep(draw.uniform(0.5, 2.0))
      child.kill()
    killed += child.returncode == -signal.SIGKILL
    if child.returncode == 0:
      assert contents(tmp_path / 'out') == contents(tmp_path / 'plain')
      for path in (tmp_path / 'out').iterdir():
        path.unlink()
      (tmp_path / 'out').rmdir()
  assert killed >= 10
  generate_queries.main(door(folder, tmp_path / 'out', 1))
  assert contents(tmp_path / 'out') == contents(tmp_path / 'plain')


def test_a_file_in_the_place_of_queries_stays(folder, tmp_path):
  (tmp_path / 'out').write_text('mine')
  with pytest.raises(UserError, match='out: expected a folder that gr_jax'):
    pipeline.generate_queries(asked(folder, tmp_path / 'out'))
  assert (tmp_path / 'out').read_text() == 'mine'


def test_samples_leave_out_the_bad_records_that_generation_left_out(
  folder, tmp_path, monkeypatch, capsys
):
  shutil.copytree(folder, tmp_path / 'data')
  with (tmp_path / 'data' / 'corpus.jsonl').open('a') as file:
    file.write('{"_id": "two words", "text": "is no id"}\n')
  monkeypatch.chdir(ROOT)
  allowed = '--gin.QueryGenerationSettings.max_bad_records=1'
  flags = [*door(tmp_path / 'data', tmp_path / 'out'), allowed, '--samples=2']
  assert generate_queries.main(flags) == 0
  shown = capsys.readouterr().out.splitlines()
  ids = Collection(folder).document_index()
  assert sum(line.partition(':')[0] in ids for line in shown) == 2


def test_a_damaged_shard_is_made_anew(folder, tmp_path, monkeypatch):
  what = asked(folder, tmp_path / 'out')
  real = shards.ShardFolder.begin

  def begin(self, inputs):
    missing = real(self, inputs)
    if not missing:
      return missing
    pipeline._make(what, opened, self, positions, missing)
    self.path(2).write_bytes(b'')
    self.path(4).unlink()
    assert real(self, inputs) == [2, 4]
    return [2, 4]

  opened = pipeline.open_all(what, tmp_path / 'vectors')
  opened.begin()
  positions = opened.corpus.collection.positions(7)
  monkeypatch.setattr(shards.ShardFolder, 'begin', begin)
  pipeline.generate_queries(what)
  monkeypatch.undo()
  again = dataclasses.replace(what, output=str(tmp_path / 'again'))
  pipeline.generate_queries(again)
  assert contents(tmp_path / 'out') == contents(tmp_path / 'again')


def test_verify_and_preparation_read_the_folder(folder, tmp_path, capsys):
  pipeline.generate_queries(asked(folder, tmp_path / 'out'))
  assert verify.main([str(tmp_path)]) == 0
  assert 'pseudo-queries' in capsys.readouterr().out
  what = PreparationSettings(
    data_dir=str(folder),
    sources=('labelled', 'pseudo'),
    pseudo_queries=str(tmp_path / 'out'),
    documents_per_shard=16,
  )
  plan = make_plan(what, tmp_path / 'ids.txt')
  ids = Collection(folder).document_index()
  pairs = list(read_pseudo_queries(tmp_path / 'out', ids, pytest.fail))
  reader = TextExamples(plan)
  found = [
    (example.document_id, example.query)
    for shard in range(plan.shards('pseudo'))
    for example in reader.examples('pseudo', shard)
  ]
  assert found == pairs
  before = inputs_hash(what)
  path = tmp_path / 'out' / 'queries-00003.jsonl.gz'
  damaged = bytearray(path.read_bytes())
  damaged[20] ^= 1
  path.write_bytes(damaged)
  assert inputs_hash(what) != before
  with pytest.raises(UserError, match=r'queries-00003\.jsonl\.gz: damaged'):
    list(read_pseudo_queries(tmp_path / 'out', ids, pytest.fail))
  assert verify.main([str(tmp_path / 'out')]) == 1
  assert 'queries-00003' in capsys.readouterr().out
  (tmp_path / 'out' / 'manifest.json').write_text('{"files": {}}')
  with pytest.raises(UserError, match='its checksum differs'):
    list(read_pseudo_queries(tmp_path / 'out', ids, pytest.fail))


def test_the_door_shows_samples(folder, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  out = tmp_path / 'out'
  assert generate_queries.main([*door(folder, out), '--samples=2']) == 0
  said = capsys.readouterr().out
  assert 'queries of the collection held out' in said
  with gzip.open(out / 'queries-00000.jsonl.gz', 'rt') as file:
    rows = [json.loads(line) for line in file]
  assert all(row['queries'] for row in rows)
  assert said.count(' sleeps by day.') >= 2
  with pytest.raises(UserError, match='at least 0'):
    generate_queries.main([*door(folder, out), '--samples=-1'])


def test_bm25_decides_what_stays(folder, tmp_path):
  what = asked(folder, tmp_path / 'out', round_trip=RoundTripSettings(1))
  manifest = pipeline.generate_queries(what)
  steps = {step['stage']: step['queries'] for step in manifest['yield']}
  assert 0 < steps['after round_trip'] < steps['after leaks']


@pytest.mark.mesh
def test_two_processes_share_the_shards(folder, tmp_path):
  import several_processes

  for count in (1, 2):
    place = tmp_path / str(count)
    place.mkdir()
    command = ['-m', 'gr_jax.generate_queries', *door(folder, place / 'out')]
    several_processes.run(count, command, place)
  assert contents(tmp_path / '1' / 'out') == contents(tmp_path / '2' / 'out')
