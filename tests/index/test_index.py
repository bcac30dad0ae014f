"""The index on disk: round trips, versions, damage and kills."""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from gr_jax.decoding.trie import ARRAYS
from gr_jax.index import manifest, versions
from gr_jax.index.index import SNIPPET_LENGTH, Index
from gr_jax.index.reader import load_index
from gr_jax.types import UserError

SETTINGS = {'__class__': 'Anything', 'seed': 3}


class OneFileVocabulary:
  def __init__(self, content='words'):
    self.content = content
    self.sha256 = hashlib.sha256(content.encode()).hexdigest()

  def save(self, directory):
    (directory / 'vocabulary.txt').write_text(self.content)


def make_index(documents=30, seed=0, dtype=np.float16):
  rng = np.random.default_rng(seed)
  return Index.build(
    rng.integers(0, 5, (documents, 2)),
    (5, 300),
    rng.normal(size=(documents, 4)).astype(dtype),
    [f'd{row}' for row in range(documents)],
    ['' if row % 2 else f'título {row}' for row in range(documents)],
    ['two\nlines', '', 'x' * 3000] + ['text'] * (documents - 3),
  )


def make_params(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'indexer': {'codebooks': rng.normal(size=(2, 3)).astype(np.float32)},
    'scale': np.float32(2.5),
  }


def save(path, index=None, params=None, vocabulary=None):
  return (index or make_index()).save(
    path,
    make_params() if params is None else params,
    SETTINGS,
    vocabulary or OneFileVocabulary(),
    {'corpus': 'c' * 64},
  )


@pytest.mark.parametrize('dtype', [np.float16, np.float32])
def test_what_is_saved_is_loaded(tmp_path, dtype):
  index = make_index(dtype=dtype)
  directory = save(tmp_path / 'index', index)
  loaded = load_index(tmp_path / 'index', verify=True)
  assert loaded.directory == directory == tmp_path / 'index' / 'v000001'
  for name in ('codes_NL', 'vectors_ND'):
    saved, read = getattr(index, name), getattr(loaded, name)
    assert saved.dtype == read.dtype
    np.testing.assert_array_equal(saved, read)
  assert index.codes_NL.dtype == np.uint16
  assert loaded.trie.code_sizes == (5, 300)
  for name in ARRAYS:
    np.testing.assert_array_equal(
      getattr(index.trie, name), getattr(loaded.trie, name)
    )
  for name in ('document_ids', 'titles', 'snippets'):
    assert list(getattr(loaded, name)) == list(getattr(index, name))
  assert len(loaded.snippets[2]) == SNIPPET_LENGTH
  assert loaded.manifest['inputs_sha256'] == {'corpus': 'c' * 64}
  params = loaded.params()
  np.testing.assert_array_equal(
    params['indexer']['codebooks'], make_params()['indexer']['codebooks']
  )
  assert params['scale'].shape == ()
  assert loaded.settings() == SETTINGS
  loaded.check_vocabulary(OneFileVocabulary())


def test_another_vocabulary_is_refused(tmp_path):
  save(tmp_path / 'index')
  with pytest.raises(UserError, match='was built with vocabulary'):
    load_index(tmp_path / 'index').check_vocabulary(OneFileVocabulary('other'))


def test_every_flipped_bit_is_found(tmp_path):
  directory = save(tmp_path / 'index')
  rng = np.random.default_rng(0)
  files = [path for path in directory.rglob('*') if path.is_file()]
  files.append(tmp_path / 'index' / 'CURRENT')
  assert len(files) == 24
  for path in files:
    whole = path.read_bytes()
    for _ in range(6):
      place = rng.integers(len(whole) * 8)
      damaged = bytearray(whole)
      damaged[place // 8] ^= 1 << (place % 8)
      path.write_bytes(damaged)
      with pytest.raises(UserError):
        load_index(tmp_path / 'index', verify=True)
    path.write_bytes(whole)
  load_index(tmp_path / 'index', verify=True)


@pytest.mark.parametrize(
  'name', ['codes.npy', 'model.safetensors', 'vocabulary/vocabulary.txt']
)
def test_missing_and_truncated_files_are_named(tmp_path, name):
  path = save(tmp_path / 'index') / name
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(UserError, match=f'{name} should have'):
    load_index(tmp_path / 'index')
  path.unlink()
  with pytest.raises(UserError, match=f'{name} is missing'):
    load_index(tmp_path / 'index')


@pytest.mark.parametrize(
  ('name', 'change', 'message'),
  [
    ('codes', lambda codes: codes.reshape(-1), r'\(60,\)'),
    ('vectors', lambda vectors: vectors.view(np.int16), 'it is int16'),
    ('trie_documents', lambda rows: rows.view('>i4'), 'it is >i4'),
    ('titles_offsets', lambda ends: ends.view('<f8'), 'int64'),
  ],
)
def test_an_array_of_another_form_is_refused(
  tmp_path, monkeypatch, name, change, message
):
  # As a large file, not hashed at load.
  monkeypatch.setattr(manifest, 'SMALL_FILE', 0)
  path = save(tmp_path / 'index') / f'{name}.npy'
  np.save(path, change(np.load(path, allow_pickle=False)))
  with pytest.raises(UserError, match=f'{name}.npy should be .*{message}'):
    load_index(tmp_path / 'index')


def seal(path, text):
  """Makes this the manifest, with its checksum in the pointer."""
  (path / 'v000001' / 'manifest.json').write_text(text)
  checksum = hashlib.sha256(text.encode()).hexdigest()
  (path / 'CURRENT').write_text(f'v000001 {checksum}\n')


@pytest.mark.parametrize(
  ('fact', 'value', 'message'),
  [
    ('format', [4], r'has format \[4\]'),
    ('documents', None, 'should have documents as int, it has None'),
    ('code_sizes', [5, 0], 'should have code_sizes above 0'),
    ('files', {'codes.npy': 7}, r'bytes and sha256 of codes\.npy, it has 7'),
  ],
)
def test_a_manifest_that_nobody_wrote_is_refused(
  tmp_path, fact, value, message
):
  path = tmp_path / 'index'
  whole = json.loads((save(path) / 'manifest.json').read_text())
  seal(path, json.dumps({**whole, fact: value}))
  with pytest.raises(UserError, match=message):
    load_index(path)


@pytest.mark.parametrize('text', ['', '[' * 100_000, '[1]', '{"format": '])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path, text):
  save(tmp_path / 'index')
  seal(tmp_path / 'index', text)
  with pytest.raises(UserError, match=r'is no JSON|should hold a JSON object'):
    load_index(tmp_path / 'index')


def test_the_model_of_another_index_is_refused(tmp_path, monkeypatch):
  # As a large file: not hashed at load, bound by what its header says.
  monkeypatch.setattr(manifest, 'SMALL_FILE', 0)
  directory = save(tmp_path / 'index')
  other = save(tmp_path / 'other', params=make_params(1))
  shutil.copy(other / 'model.safetensors', directory)
  with pytest.raises(UserError, match='is of another index'):
    load_index(tmp_path / 'index')


def test_no_index_is_said_in_one_line(tmp_path):
  with pytest.raises(UserError, match='there is no index folder'):
    load_index(tmp_path / 'index')
  (tmp_path / 'index').mkdir()
  with pytest.raises(UserError, match='no finished index'):
    load_index(tmp_path / 'index')
  save(tmp_path / 'index')
  (tmp_path / 'index' / 'CURRENT').write_text('v1')
  with pytest.raises(UserError, match='names no version'):
    load_index(tmp_path / 'index')
  (tmp_path / 'index' / 'CURRENT').write_text(f'v000007 {"0" * 64}\n')
  with pytest.raises(UserError, match='names v000007'):
    load_index(tmp_path / 'index')


def test_a_reader_keeps_its_version_while_the_next_ones_appear(tmp_path):
  path = tmp_path / 'index'
  save(path, make_index(10))
  reader = load_index(path)
  for documents in (20, 30):
    save(path, make_index(documents))
    assert len(load_index(path, verify=True)) == documents
  assert sorted(entry.name for entry in path.glob('v*')) == [
    'v000002',
    'v000003',
  ]
  assert reader.snippets[0] == 'two\nlines'
  assert reader.vectors_ND[9].shape == (4,)


def test_a_failed_build_leaves_the_current_version(tmp_path):
  path = tmp_path / 'index'
  save(path, make_index(10))
  with pytest.raises(ZeroDivisionError), versions.new_version(path) as building:
    (building / 'half').write_text('half')
    raise ZeroDivisionError
  assert len(load_index(path, verify=True)) == 10
  assert not (path / '.building').exists()


def test_a_foreign_folder_is_not_touched(tmp_path):
  (tmp_path / 'thesis.txt').write_text('mine')
  with pytest.raises(UserError, match=r'holds thesis\.txt'):
    save(tmp_path)
  assert [entry.name for entry in tmp_path.iterdir()] == ['thesis.txt']


def test_a_second_writer_is_refused(tmp_path):
  path = tmp_path / 'index'
  with (
    pytest.raises(UserError, match='another process is building'),
    versions.new_version(path),
  ):
    save(path)


def test_killed_builds_never_show(tmp_path):
  """A child kills itself before each step towards the disk."""
  path = tmp_path / 'index'
  save(path, make_index(10))
  script = textwrap.dedent("""
    import pathlib, sys
    sys.path.insert(0, sys.argv[1])
    import fatal_steps, test_index
    fatal_steps.die_before(int(sys.argv[3]))
    test_index.save(pathlib.Path(sys.argv[2]), test_index.make_index(20))
  """)
  here = pathlib.Path(__file__).parent
  root = here.parent.parent
  outcomes = []
  # 20 files and 2 folders are brought to the disk before the rename.
  for steps in (0, 7, 14, 20, 21, 22, 23, 24, 25, 40):
    result = subprocess.run(
      [sys.executable, '-c', script, here, path, str(steps)],
      env={**os.environ, 'PYTHONPATH': str(root)},
      capture_output=True,
      text=True,
      check=False,
    )
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    outcomes.append((result.returncode, len(load_index(path, verify=True))))
  assert outcomes[0] == (-signal.SIGKILL, 10)
  assert outcomes[-1] == (0, 20)
  assert [size for _, size in outcomes] == sorted(size for _, size in outcomes)
  names = sorted(entry.name for entry in path.iterdir())
  assert names[0] == 'CURRENT'
  assert all(name.startswith('v') for name in names[1:])
  assert len(names) <= 3


def test_parts_of_different_lengths_are_refused():
  index = make_index(10)
  with pytest.raises(UserError, match="'titles': 9"):
    Index(
      index.codes_NL,
      index.trie,
      index.vectors_ND,
      index.document_ids,
      index.titles[:9],
      index.snippets,
      index.new_N,
      index.hidden_N,
      index.fields,
    )


def test_the_manifest_lists_what_a_reader_wants_to_know(tmp_path):
  directory = save(tmp_path / 'index')
  facts = json.loads((directory / 'manifest.json').read_text())
  assert facts['documents'] == 30
  assert facts['code_sizes'] == [5, 300]
  again = save(tmp_path / 'again')
  assert facts == json.loads((again / 'manifest.json').read_text())
