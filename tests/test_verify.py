"""The door that reads every byte: what is whole, and what is named."""

import hashlib
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax import entry, locks, verify
from gr_jax.data import shard_files
from gr_jax.data.prepared import manifest_text
from gr_jax.index.changes import Delete
from gr_jax.index.index import Index
from gr_jax.index.living import LivingIndex
from gr_jax.training.checkpoints import Checkpoints

CHECKED = [
  'checkpoints/step_00000001',
  'checkpoints/step_00000002',
  'index/v000001',
  'prepared',
]


class Vocabulary:
  """What an index asks of a vocabulary."""

  sha256 = hashlib.sha256(b'words').hexdigest()

  def save(self, directory):
    (directory / 'vocabulary.txt').write_bytes(b'words')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A run with two checkpoints, a changed index and prepared examples."""
  run = tmp_path_factory.mktemp('made') / 'run'
  checkpoints = Checkpoints(run / 'checkpoints')
  state = {'params': {'w': jnp.arange(999.0)}, 'frozen': {'b': jnp.ones(3)}}
  for step in (1, 2):
    checkpoints.save(step, state, {'at': step}, {'vocabulary': 'a'})
  checkpoints.close()
  rng = np.random.default_rng(0)
  Index.build(
    rng.integers(0, 5, (20, 2)),
    (5, 300),
    rng.normal(size=(20, 4)).astype(np.float16),
    [f'd{row}' for row in range(20)],
    *[['text'] * 20] * 2,
  ).save(run / 'index', {'scale': 2.5}, {'seed': 3}, Vocabulary(), {})
  with LivingIndex(run / 'index') as living:
    living.apply(Delete(['d3']))
  prepared = run / 'prepared'
  prepared.mkdir()
  (prepared / 'document_ids.txt').write_text('d0\n')
  name = 'documents-00000.array_record'
  shard_files.write_shard(prepared / name, [shard_files.encode_tokens([7])])
  files = {
    path.name: {
      'bytes': path.stat().st_size,
      'sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    for path in prepared.iterdir()
  }
  text = manifest_text({'files': files, 'format': 1})
  (prepared / 'manifest.json').write_text(text)
  return run


@pytest.fixture
def run(made, tmp_path, monkeypatch):
  """The same in a place where it may be damaged; a path as users give it."""
  shutil.copytree(made, tmp_path / 'run')
  monkeypatch.chdir(tmp_path)
  return pathlib.Path('run')


def check(monkeypatch, capsys, *arguments):
  """Exit status and lines of the door."""
  monkeypatch.setattr(sys, 'argv', ['verify', *map(str, arguments)])
  with pytest.raises(SystemExit) as caught:
    entry.run_main(verify.main)
  said = capsys.readouterr()
  return caught.value.code, said.out.splitlines(), said.err.splitlines()


def test_what_is_whole_is_a_line_each(run, monkeypatch, capsys):
  (run / 'checkpoints' / 'step_00000003').mkdir()
  status, lines, errors = check(monkeypatch, capsys, run)
  assert (status, errors) == (0, [])
  places = [line.partition(' run/')[2].partition(':')[0] for line in lines]
  assert places == [*CHECKED[:2], 'checkpoints/step_00000003', *CHECKED[2:]]
  assert lines.pop(2).startswith('unfinished save, which does not count, run/')
  for line in lines:
    assert line.endswith(' bytes, ok')
  kinds = [line.partition(' run/')[0] for line in lines]
  assert kinds == ['checkpoint'] * 2 + ['index', 'prepared examples']
  # Each by itself, in the order of the arguments.
  paths = [run / 'index' / 'v000001', run / CHECKED[1], run / 'checkpoints']
  _, found, _ = check(monkeypatch, capsys, *paths)
  assert found[:3] == [lines[2], lines[1], lines[0]]


def test_every_file_is_read_to_its_last_bit(run, monkeypatch, capsys):
  files = [path for path in run.rglob('*') if path.is_file()]
  assert len(files) > 40
  for number, path in enumerate(sorted(files)):
    whole = path.read_bytes()
    if not whole:
      continue
    damaged = bytearray(whole)
    damaged[number * 7919 % len(whole)] ^= 1 << number % 8
    path.write_bytes(damaged)
    status, lines, _ = check(monkeypatch, capsys, run)
    named = [line for line in lines if str(path) in line]
    assert status == 1 and named, path
    assert sum(line.endswith('DAMAGED') for line in lines) == 1
    path.write_bytes(whole)
  assert check(monkeypatch, capsys, run)[0] == 0


def test_all_damaged_files_are_named(run, monkeypatch, capsys):
  gone = [
    'checkpoints/step_00000001/state/manifest.ocdbt',
    'index/v000001/vectors.npy',
    'prepared/document_ids.txt',
  ]
  grown = [
    'checkpoints/step_00000001/state/_METADATA',
    'index/v000001/trie_columns.npy',
    'prepared/documents-00000.array_record',
  ]
  for name in gone:
    (run / name).unlink()
  for name in grown:
    (run / name).write_bytes((run / name).read_bytes() + b' ')
  status, lines, _ = check(monkeypatch, capsys, run)
  assert status == 1
  for name in gone + grown:
    assert [line for line in lines if f'run/{name}' in line], name
  assert sum(line.endswith('2 DAMAGED') for line in lines) == 3


@pytest.mark.parametrize(
  ('path', 'reason'),
  [
    ('rnu', "there is none (did you mean 'run'?)"),
    ('run/index/CURRENT', 'it is a file'),
    ('empty', 'it holds none of them'),
  ],
)
def test_other_paths_are_refused_in_a_line(
  path, reason, run, monkeypatch, capsys
):
  pathlib.Path('empty').mkdir()
  status, lines, errors = check(monkeypatch, capsys, path)
  assert (status, lines, len(errors)) == (2, [], 1)
  assert errors[0].startswith(f'error: {path}: expected a run')
  assert reason in errors[0]


def damage(run, step):
  path = run / 'checkpoints' / f'step_{step:08d}' / 'state' / '_METADATA'
  path.write_bytes(path.read_bytes() + b' ')


def test_damaged_checkpoints_go_only_when_asked(run, monkeypatch, capsys):
  damage(run, 2)
  assert check(monkeypatch, capsys, run)[0] == 1
  assert Checkpoints(run / 'checkpoints').latest() == 2
  with locks.held(run / '.lock', 'training a', 'b'):
    status, _, errors = check(monkeypatch, capsys, run, '--drop_damaged')
  assert status == 2 and 'another process is training a' in errors[0]
  status, lines, _ = check(monkeypatch, capsys, run, '--drop_damaged')
  assert status == 1
  assert lines[-1].startswith('deleted run/checkpoints/step_00000002')
  assert Checkpoints(run / 'checkpoints').steps() == [1]
  assert check(monkeypatch, capsys, run, '--drop_damaged')[0] == 0
  # The last one stays: there is nothing to go on from instead.
  damage(run, 1)
  status, _, errors = check(monkeypatch, capsys, run, '--drop_damaged')
  assert status == 2 and 'no checkpoint is whole' in errors[0]
  assert (run / 'checkpoints' / 'step_00000001').exists()


def test_it_needs_no_jax(made):
  code = (
    'import sys\n'
    'from gr_jax.verify import main\n'
    'assert main(sys.argv[1:]) == 0\n'
    "heavy = {'jax', 'tensorflow', 'orbax', 'grain', 'flax'}\n"
    'assert not heavy & set(sys.modules), heavy & set(sys.modules)\n'
  )
  paths = [made / 'checkpoints', made / 'prepared']
  subprocess.run([sys.executable, '-c', code, *map(str, paths)], check=True)
