"""The door of the identifier report, and the page that it writes."""

import html.parser
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import (
  RawEventFileLoader,
)
from tensorboard.compat.proto import event_pb2

from gr_jax import report_ids
from gr_jax.evaluation.id_page import page
from gr_jax.evaluation.identifiers import identifier_statistics
from gr_jax.index.index import Index
from gr_jax.run_settings import RunSettings
from gr_jax.settings import to_json
from gr_jax.training.logs import read_jsonl
from gr_jax.types import UserError

DOCUMENTS = 60
SIZES = (6, 3, 700)
EVIL = '</script><script>alert("é")</script>\x1b[31m'
VOID = {'meta', 'link', 'input', 'br'}


class NoVocabulary:
  """What an index asks of a vocabulary, and nothing of it in the report."""

  sha256 = '0' * 64

  def save(self, directory):
    (directory / 'vocabulary.txt').write_text('none\n')


def codes_of(seed):
  rng = np.random.default_rng(seed)
  return rng.integers(0, SIZES, (DOCUMENTS, 3))


def save(path, seed=0, documents=DOCUMENTS):
  """Writes an index of random codes; returns the codes."""
  codes_NL = codes_of(seed)[:documents]
  index = Index.build(
    codes_NL,
    SIZES,
    np.zeros((documents, 2), np.float16),
    [f'd{row}' for row in range(documents)],
    [EVIL if row % 2 else '' for row in range(documents)],
    [''] * documents,
  )
  index.save(path, {'w': np.zeros(1, np.float32)}, {}, NoVocabulary(), {})
  return codes_NL


@pytest.fixture
def run_dir(tmp_path):
  """A run with an index, a collection's judgements and an evaluation."""
  folder = tmp_path / 'run'
  data = tmp_path / 'toy'
  (data / 'qrels').mkdir(parents=True)
  lines = ['query-id\tcorpus-id\tscore']
  lines += [f'q{row}\td{row}\t1' for row in range(DOCUMENTS)]
  (data / 'qrels' / 'test.tsv').write_text('\n'.join(lines) + '\n')
  save(folder / 'index')
  settings = RunSettings(run_dir=str(folder), data_dir=str(data))
  (folder / 'settings.json').write_text(json.dumps(to_json(settings)))
  (folder / 'runs').mkdir()
  for name, first in (('gr_jax', 0), ('bm25', 30)):
    text = ''.join(
      f'q{row} Q0 d{row} 1 1 {name}\n' for row in range(first, DOCUMENTS)
    )
    (folder / 'runs' / f'{name}.test.trec').write_text(text)
  return folder


def numbers_of(folder):
  return json.loads((folder / 'report.json').read_text())


class Checker(html.parser.HTMLParser):
  """Holds elements to their ends; collects links, ids and scripts."""

  def __init__(self):
    super().__init__()
    self.open, self.links, self.ids, self.texts = [], [], [], {}

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    for name in ('src', 'href', 'xlink:href', 'action', 'data'):
      self.links += [attributes[name]] if name in attributes else []
    self.ids += [attributes['id']] if 'id' in attributes else []
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.handle_starttag(tag, attributes)
    self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, text):
    self.texts.setdefault(self.open[-1] if self.open else '', []).append(text)


def checked(text):
  """A page that is well formed and loads nothing."""
  checker = Checker()
  checker.feed(text)
  checker.close()
  assert checker.open == []
  assert checker.links == ['data:,']
  assert len(checker.ids) == len(set(checker.ids))
  # The name of a namespace is never fetched.
  outside = re.findall(r'https?://[^\'"\s<]+|@import|url\(', text)
  assert set(outside) == {'http://www.w3.org/2000/svg'}
  return checker


def test_the_page_the_numbers_and_the_scalars(run_dir, capsys):
  save(run_dir / 'index', seed=1)
  report_ids.main(
    [
      f'--index={run_dir / "index"}', f'--run_dir={run_dir}',
      f'--against={run_dir / "index" / "v000001"}',
    ]
  )  # fmt: skip
  output = run_dir / 'id_report'
  said = capsys.readouterr().out
  assert said.endswith(f'{output / "report.html"}\n')
  assert 'Uniqueness: 1.000 (at least 0.9)' in said
  text = (output / 'report.html').read_text()
  checker = checked(text)
  # Style and script are whole, and no title became an element.
  assert len(checker.texts['style']) == 1
  data, script = checker.texts['script']
  assert 'squarified' in script.lower()
  samples = json.loads(data)['tree']['samples']
  assert EVIL.replace('\x1b', ' ') in samples
  found = numbers_of(output)
  codes_NL = codes_of(1)
  expected = identifier_statistics(codes_NL, SIZES)
  assert found['statistics']['uniqueness'] == expected.uniqueness
  assert found['dead'][2] == sorted(set(range(700)) - set(codes_NL[:, 2]))
  assert [len(usage) for usage in found['usage']] == list(SIZES)
  assert found['churn']['changed'] == np.mean(
    np.any(codes_of(0) != codes_NL, axis=1)
  )
  rows = found['recall']['groupings'][0]['rows']
  assert found['recall']['systems'] == ['gr_jax', 'bm25']
  assert {row['recall'] for row in rows['gr_jax'] if row} == {1.0}
  assert min(row['recall'] for row in rows['bm25'] if row) < 1
  (line,) = read_jsonl(output / 'logs')
  assert (line['step'], line['ids/uniqueness']) == (2, expected.uniqueness)
  (events,) = (output / 'logs').glob('events.*')
  tags = {
    value.tag
    for data in RawEventFileLoader(str(events)).Load()
    for value in event_pb2.Event.FromString(data).summary.value
  }
  assert {'ids/churn', 'ids/prefix_entropy/3', 'ids/continuations/1'} <= tags


def test_titles_are_escaped_where_they_are_markup(tmp_path):
  save(tmp_path / 'index')
  report_ids.report_ids(tmp_path / 'index')
  text = (tmp_path / 'id_report' / 'report.html').read_text()
  checked(text)
  assert '<script>alert' not in text
  assert '&lt;script&gt;alert' in text
  assert '\x1b' not in text
  assert text.count('</script>') == 2


def test_what_is_missing_is_said_in_a_sentence(run_dir):
  for path in (run_dir / 'runs').iterdir():
    path.unlink()
  alone = run_dir.parent / 'alone'
  report_ids.report_ids(run_dir / 'index', run_dir=run_dir, output=alone)
  assert 'holds no evaluation' in numbers_of(alone)['recall']['missing']
  report_ids.report_ids(run_dir / 'index', output=alone)
  text = (alone / 'report.html').read_text()
  assert 'no --run_dir was given' in text
  assert 'no --against was given' in text
  (run_dir / 'runs' / 'gr_jax.test.trec').write_text('')
  (run_dir.parent / 'toy' / 'qrels' / 'test.tsv').unlink()
  report_ids.report_ids(run_dir / 'index', run_dir=run_dir, output=alone)
  assert 'no relevant document' in numbers_of(alone)['recall']['missing']


def test_a_report_that_is_made_again_replaces_the_former(tmp_path):
  save(tmp_path / 'index')
  for _ in range(2):
    report_ids.report_ids(tmp_path / 'index')
  output = tmp_path / 'id_report'
  assert [row['step'] for row in read_jsonl(output / 'logs')] == [1]
  assert sorted(p.name for p in output.iterdir()) == [
    'logs', 'report.html', 'report.json',
  ]  # fmt: skip


@pytest.mark.parametrize('documents', [1, 2])
def test_a_corpus_of_hardly_anything(tmp_path, documents):
  save(tmp_path / 'index', documents=documents)
  save(tmp_path / 'other')
  report_ids.report_ids(tmp_path / 'index', tmp_path / 'other')
  checked((tmp_path / 'id_report' / 'report.html').read_text())
  churn = numbers_of(tmp_path / 'id_report')['churn']
  assert churn['removed'] == DOCUMENTS - documents


def test_a_space_of_codes_of_one_size_alone(tmp_path):
  """Positions of one code, all documents on one ID."""
  index = Index.build(
    np.zeros((5, 2), int), (1, 1), np.zeros((5, 2), np.float16),
    list('abcde'), [''] * 5, [''] * 5,
  )  # fmt: skip
  index.save(tmp_path / 'index', {}, {}, NoVocabulary(), {})
  report_ids.report_ids(tmp_path / 'index')
  checked((tmp_path / 'id_report' / 'report.html').read_text())


def test_a_page_of_many_codes_stays_small(tmp_path):
  save(tmp_path / 'index')
  report_ids.report_ids(tmp_path / 'index')
  report = numbers_of(tmp_path / 'id_report')
  report['usage'] = [[row % 7 for row in range(65_536)]] * 8
  report['dead'] = [list(range(0, 65_536, 7))] * 8
  for name in ('position_entropy', 'utilisation'):
    report['statistics'][name] = [0.5] * 8
  assert len(page(report)) < 400_000


def test_bad_input_is_one_line(run_dir, tmp_path):
  index = run_dir / 'index'
  with pytest.raises(UserError, match='there is no index folder'):
    report_ids.report_ids(tmp_path / 'gone')
  with pytest.raises(UserError, match='there is no index folder'):
    report_ids.report_ids(index, tmp_path / 'gone')
  with pytest.raises(UserError, match='outside of the index'):
    report_ids.report_ids(index, output=index / 'report')
  with pytest.raises(UserError, match='should be a folder, it is a file'):
    report_ids.report_ids(index, output=run_dir / 'settings.json')
  with pytest.raises(UserError, match=r'no settings\.json'):
    report_ids.report_ids(index, run_dir=tmp_path)
  with pytest.raises(SystemExit):
    report_ids.main([f'--indx={index}'])
  assert not (run_dir / 'id_report').exists()


def test_an_old_version_that_is_damaged_is_refused(run_dir):
  save(run_dir / 'index', seed=1)
  old = run_dir / 'index' / 'v000001'
  (old / 'codes.npy').write_bytes(b'x')
  with pytest.raises(UserError, match=r'codes\.npy should have'):
    report_ids.report_ids(run_dir / 'index', old)
  (old / 'manifest.json').write_text('{')
  with pytest.raises(UserError, match=r'manifest\.json is no JSON'):
    report_ids.report_ids(run_dir / 'index', old)


def test_the_door_says_one_line_and_ends_with_2(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'gr_jax.report_ids', f'--index={tmp_path / "no"}'],
    capture_output=True,
    text=True,
    check=False,
    cwd=pathlib.Path(__file__).parent.parent,
  )
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr.startswith('error: there is no index folder')
  assert done.stderr.count('\n') == 1
