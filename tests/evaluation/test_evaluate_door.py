"""The door, on a run folder with an untrained retriever."""

import dataclasses
import json
import shutil
import subprocess
import sys
import types
from unittest import mock

import jax
import pytest
from tiny_run import (
  DOCUMENTS,
  MODEL,
  WORDS,
  write_collection,
  write_index,
  write_vocabulary,
)

from gr_jax import evaluate, insert, run_folder, run_settings
from gr_jax.data.collection import Collection
from gr_jax.evaluation import controls, protocol
from gr_jax.evaluation.run_files import read_run
from gr_jax.index.changes import Delete
from gr_jax.index.reader import load_index
from gr_jax.index.snapshot import Snapshot
from gr_jax.retrieval import opening
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.settings import to_json
from gr_jax.types import UserError


@pytest.fixture
def run_dir(tmp_path):
  write_collection(tmp_path / 'toy')
  write_vocabulary(tmp_path / 'tokenizer.json')
  settings = run_settings.RunSettings(
    run_dir=str(tmp_path / 'run'),
    data_dir=str(tmp_path / 'toy'),
    seed=7,
    model=MODEL,
    search=SearchSettings(
      beams=4, documents_scored=9, generative_weight=0.02, batch_sizes=(8,)
    ),
  )
  folder = tmp_path / 'run'
  folder.mkdir()
  (folder / 'settings.json').write_text(json.dumps(to_json(settings)))
  write_index(folder / 'index', settings, Collection(tmp_path / 'toy'), 0)
  return folder


@pytest.mark.parametrize('by', ['words', 'vectors'])
def test_queries_near_to_those_of_training_are_shown_apart(run_dir, capsys, by):
  toy = run_dir.parent / 'toy' / 'qrels'
  judged = (toy / 'test.tsv').read_text().splitlines()
  (toy / 'train.tsv').write_text('\n'.join(judged[:3]) + '\n')
  found = evaluate.evaluate(run_dir, batch=8, near_training=by)
  groups = found['groups']
  assert list(groups) == ['near', 'far']
  assert groups['far']['queries'] == found['queries'] // 2
  assert sum(group['queries'] for group in groups.values()) == found['queries']
  assert 'the nearer half' in capsys.readouterr().out
  (toy / 'train.tsv').write_text(judged[0] + '\n')
  with pytest.raises(UserError, match='judges no query'):
    evaluate.evaluate(run_dir, batch=8, near_training=by)


def test_the_table_and_its_files(run_dir, capsys):
  # Neither the clock nor the baseline depends on the retriever, which is
  # untrained: what is tested is what is counted and written.
  found = evaluate.evaluate(run_dir, batch=8, command='the command')
  assert found == json.loads((run_dir / 'results.json').read_text())
  rows = {row['name']: row for row in found['systems']}
  assert list(rows) == ['BM25', 'exact dense', 'gr_jax']
  assert rows['BM25']['R@10'] > 0.7
  assert rows['BM25']['documents_scored_per_query'] < DOCUMENTS
  assert rows['exact dense']['documents_scored_per_query'] == DOCUMENTS
  assert rows['exact dense']['R@100'] == 1
  assert 1 <= rows['gr_jax']['documents_scored_per_query'] <= 9
  assert rows['gr_jax']['code_scores_per_query'] == 4 + 4 * 4
  assert found['dataset'] == 'toy'
  assert (found['split'], found['documents']) == ('test', DOCUMENTS)
  assert (found['seed'], found['command']) == (7, 'the command')
  assert found['corpus_sha256'] == (
    Collection(run_dir.parent / 'toy').corpus_sha256()
  )
  printed = capsys.readouterr().out
  assert 'toy, test: 30 documents, 30 queries' in printed
  assert 'ID space' in printed
  names = sorted(path.name for path in (run_dir / 'runs').iterdir())
  assert names == [
    'bm25.test.trec', 'exact_dense.test.trec', 'gr_jax.test.trec',
  ]  # fmt: skip
  run = read_run(run_dir / 'runs' / 'gr_jax.test.trec')
  assert max(len(documents) for documents in run.values()) <= 9


def test_a_killed_evaluation_goes_on(run_dir, monkeypatch):
  one_device = jax.local_devices()[:1]
  monkeypatch.setattr(jax, 'local_devices', lambda: one_device)
  asked = []
  answered = protocol.answered

  def counted(system, texts, *rest):
    if len(asked) == 6:
      raise KeyboardInterrupt
    asked.append(list(texts))
    return answered(system, texts, *rest)

  monkeypatch.setattr(protocol, 'answered', counted)
  with pytest.raises(KeyboardInterrupt):
    evaluate.evaluate(run_dir, batch=8)
  # Four batches of BM25, two of exact dense search.
  assert [len(texts) for texts in asked] == [8, 8, 8, 6, 8, 8]
  before = asked.copy()
  asked[:] = [[]] * 7
  found = evaluate.evaluate(run_dir, batch=8)
  assert asked[7:] == before[2:4] + before[:4]
  # Answers of another search are not gone on with, and do not stay.
  asked.clear()
  with pytest.raises(KeyboardInterrupt):
    evaluate.evaluate(run_dir, batch=8, changes={'beams': 3})
  asked[:] = [[]] * 7
  assert evaluate.evaluate(run_dir, batch=8) == found | {
    'systems': [mock.ANY] * 3
  }
  assert asked[7:] == before[:4] * 3
  assert [row['name'] for row in found['systems']] == [
    'BM25', 'exact dense', 'gr_jax',
  ]  # fmt: skip
  assert found['systems'][0]['R@10'] > 0.7
  assert not (run_dir / 'answers').exists()


def test_one_evaluation_at_a_time_writes_a_file(tmp_path):
  from gr_jax.evaluation.judging import keeping_answers

  output, inputs = tmp_path / 'results.json', {'batch': 8}
  with keeping_answers(tmp_path / 'answers', output, inputs) as kept:
    (kept / 'bm25').write_text('answered')
    with (
      pytest.raises(UserError, match='another process is making the evaluat'),
      keeping_answers(tmp_path / 'answers', output, inputs),
    ):
      pass
    other = tmp_path / 'other' / 'results.json'
    with keeping_answers(tmp_path / 'answers', other, inputs) as beside:
      assert not list(beside.glob('bm25'))
    assert (kept / 'bm25').is_file()
  assert not (tmp_path / 'answers').exists()


@pytest.mark.mesh
def test_8_devices_find_what_one_finds(run_dir, monkeypatch):
  spread = evaluate.evaluate(run_dir, batch=8)
  runs = run_dir / 'runs'
  before = {path.name: read_run(path) for path in runs.iterdir()}
  devices = jax.local_devices()
  assert len(devices) == 8
  monkeypatch.setattr(jax, 'local_devices', lambda: devices[:1])
  alone = evaluate.evaluate(run_dir, batch=8)
  for path in runs.iterdir():
    for query, documents in read_run(path).items():
      assert documents == pytest.approx(before[path.name][query], abs=1e-5)
  for row, other in zip(spread['systems'], alone['systems'], strict=True):
    del row['queries_per_second'], other['queries_per_second']
    assert row == pytest.approx(other)


def test_another_search_than_the_saved_one_is_measured_and_named(run_dir):
  found = evaluate.evaluate(run_dir, batch=8)
  assert found['search'] == {
    'beams': 4, 'documents_scored': 9, 'fusion': 'log_linear',
    'generative_weight': 0.02, 'dense_weight': 1.0,
  }  # fmt: skip
  evaluate.main(
    [
      f'--run_dir={run_dir}', '--batch=8', '--beams=1', '--documents_scored=2',
      '--generative_weight=0', '--dense_weight=0.5',
    ]
  )  # fmt: skip
  found = json.loads((run_dir / 'results.json').read_text())
  assert found['search'] == {
    'beams': 1, 'documents_scored': 2, 'fusion': 'log_linear',
    'generative_weight': 0.0, 'dense_weight': 0.5,
  }  # fmt: skip
  ours = next(row for row in found['systems'] if row['name'] == 'gr_jax')
  assert ours['documents_scored_per_query'] <= 2
  assert ours['code_scores_per_query'] == 4 + 4
  evaluate.main([f'--run_dir={run_dir}', '--batch=8', '--reciprocal_weight=.3'])
  found = json.loads((run_dir / 'results.json').read_text())
  assert found['search'] == {
    'beams': 4, 'documents_scored': 9, 'fusion': 'reciprocal',
    'reciprocal_weight': 0.3, 'reciprocal_decay': 0.03, 'dense_weight': 1.0,
  }  # fmt: skip
  with pytest.raises(UserError, match='beams should be 1 or more, got 0'):
    evaluate.main([f'--run_dir={run_dir}', '--beams=0'])


def test_controls_that_are_there_are_shown_and_not_trained(run_dir):
  collection = Collection(run_dir.parent / 'toy')
  index = load_index(run_dir / 'index')
  settings = run_folder.read_settings(run_dir)
  for seed, name in enumerate(controls.NAMES):
    changed = run_settings.control(settings, name, run_dir)

    def make(folder, changed=changed, seed=seed):
      write_vocabulary(folder.parent / 'tokenizer.json')
      write_index(folder / 'index', changed, collection, seed + 1)

    controls.ensure(
      run_dir / 'controls' / name,
      to_json(changed),
      index.manifest['inputs_sha256'],
      make,
    )
  found = evaluate.evaluate(run_dir, control_names=controls.NAMES, batch=8)
  assert [row['name'] for row in found['systems']] == [
    'BM25', 'exact dense', 'exact dense (InfoNCE alone)', 'gr_jax',
    'random IDs',
  ]  # fmt: skip


def test_a_control_made_from_other_inputs_than_its_run_is_refused(run_dir):
  inputs = load_index(run_dir / 'index').manifest['inputs_sha256']
  controls.check_inputs(run_dir, inputs)
  inputs = {**inputs, 'encoder_weights': 'x', 'examples': 'x'}
  with pytest.raises(UserError, match='other encoder_weights and examples th'):
    controls.check_inputs(run_dir, inputs)


@pytest.fixture
def grown(run_dir):
  """The run's index with six more documents; returns their whole folder."""
  whole = shutil.copytree(run_dir.parent / 'toy', run_dir.parent / 'whole')
  new = [
    json.dumps({'_id': f'n{n}', 'title': 'sand', 'text': f'{word} cloud'})
    for n, word in enumerate(WORDS[:6])
  ]
  corpus = run_dir.parent / 'new.jsonl'
  corpus.write_text('\n'.join(new) + '\n')
  with (whole / 'corpus.jsonl').open('a') as file:
    file.write(corpus.read_text())
  with (whole / 'qrels' / 'test.tsv').open('a') as file:
    # q1 asks for an old and for a new document.
    file.write('q1\tn1\t1\n')
    file.writelines(f'p{n}\tn{n}\t1\n' for n in range(6))
  with (whole / 'queries.jsonl').open('a') as file:
    file.writelines(
      json.dumps({'_id': f'p{n}', 'text': f'sand {WORDS[n]}'}) + '\n'
      for n in range(6)
    )
  insert.insert(run_dir / 'index', corpus)
  return whole


def test_new_documents_are_judged_apart(run_dir, grown, capsys):
  evaluate.main([f'--run_dir={run_dir}', '--batch=8', f'--data_dir={grown}'])
  found = json.loads((run_dir / 'results.json').read_text())
  assert (found['dataset'], found['documents']) == ('whole', DOCUMENTS + 6)
  assert found['corpus_sha256'] == Collection(grown).corpus_sha256()
  groups = found['groups']
  assert {name: group['queries'] for name, group in groups.items()} == {
    'seen': DOCUMENTS - 1, 'new': 6, 'mixed': 1,
  }  # fmt: skip
  for place, row in enumerate(found['systems']):
    total = sum(
      group['queries'] * group['systems'][place]['R@10']
      for group in groups.values()
    )
    assert total / (DOCUMENTS + 6) == pytest.approx(row['R@10'])
  bm25 = groups['new']['systems'][0]
  assert (bm25['name'], bm25['R@10']) == ('BM25', 1.0)
  printed = capsys.readouterr().out
  assert 'Queries by whether training saw their relevant documents' in printed


def test_an_index_with_new_documents_asks_for_their_folder(run_dir, grown):
  with pytest.raises(
    UserError, match=r'0 are missing and 6 are foreign; insert .* --data_dir'
  ):
    evaluate.evaluate(run_dir)
  corpus = grown / 'corpus.jsonl'
  corpus.write_text(corpus.read_text().replace('"piano cloud"', '"a"'))
  with pytest.raises(UserError, match="has another text of 'n5' than"):
    evaluate.evaluate(run_dir, data_dir=grown)


def test_a_control_without_the_new_documents_is_refused(run_dir, grown):
  index = load_index(run_dir / 'index')
  gone = Delete(list(index.document_ids)[30:])
  snapshot = Snapshot.of(index).apply(gone)
  searcher = types.SimpleNamespace(snapshot=snapshot)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(opening, 'open_searcher', lambda *_, **__: searcher)
    with pytest.raises(
      UserError, match=r'the 36 documents .*, it holds 30: in'
    ):
      evaluate._open_control(run_dir, SearchSettings(), index)


def test_other_texts_under_the_same_ids_are_refused(run_dir):
  corpus = run_dir.parent / 'toy' / 'corpus.jsonl'
  corpus.write_text(corpus.read_text().replace('apple', 'stone'))
  with pytest.raises(
    UserError, match=r'index is of a corpus of .*: bring back'
  ):
    evaluate.evaluate(run_dir)


def test_what_cannot_be_judged_leaves_nothing_behind(run_dir):
  with pytest.raises(UserError, match=r"no split 'dev'"):
    evaluate.evaluate(run_dir, split='dev')
  settings = run_folder.read_settings(run_dir)
  elsewhere = dataclasses.replace(settings, data_dir=str(run_dir / 'gone'))
  (run_dir / 'settings.json').write_text(json.dumps(to_json(elsewhere)))
  with pytest.raises(UserError, match='gone'):
    evaluate.evaluate(run_dir)
  (run_dir / 'settings.json').write_text('{')
  with pytest.raises(UserError, match='should be JSON'):
    evaluate.evaluate(run_dir)
  assert sorted(path.name for path in run_dir.iterdir()) == [
    'index', 'settings.json',
  ]  # fmt: skip


def test_the_door_says_one_line_and_ends_with_2(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'gr_jax.evaluate', f'--run_dir={tmp_path}'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr.startswith('error: ')
  assert done.stderr.count('\n') == 1
  assert 'no settings.json' in done.stderr
