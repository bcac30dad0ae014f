"""Changes of an index on disk: acknowledged ones are never lost."""

import os
import random
import threading

import numpy as np
import pytest
from test_index import make_index, save

from gr_jax.index import changes, living, log, versions
from gr_jax.index.changes import Delete, Hide, Insert, Show
from gr_jax.index.living import LivingIndex
from gr_jax.index.reader import IndexReader, load_index
from gr_jax.types import Document, UserError


def new_documents(*names, replaces=False):
  rng = np.random.default_rng(len(names))
  documents = [
    Document(name, f'title {name}', f'text\nof {name}', {'tenant': name[:1]})
    for name in names
  ]
  return Insert.of(
    documents,
    rng.integers(0, 5, (len(names), 2)),
    rng.normal(size=(len(names), 4)).astype(np.float32),
    replaces,
  )


SOME = (
  new_documents('a', 'b', 'ç'),
  Delete(['b', 'd3']),
  Hide(['d5', 'a']),
  new_documents('d7', replaces=True),
  Show(['a']),
)


def names_in(index):
  return list(index.document_ids)


EXPECTED = [
  *(f'd{row}' for row in range(30) if row not in (3, 7)), 'a', 'ç', 'd7',
]  # fmt: skip


def assert_is_changed(index):
  """The index has all of SOME."""
  assert names_in(index) == EXPECTED
  hidden = np.flatnonzero(index.hidden_N)
  assert [index.document_ids[row] for row in hidden] == ['d5']
  row = EXPECTED.index('ç')
  assert index.titles[row] == 'title ç' and index.snippets[row] == 'text\nof ç'
  assert index.codes_NL[row].tolist() == SOME[0].codes_NL[2].tolist()
  np.testing.assert_allclose(
    index.vectors_ND[row], SOME[0].vectors_ND[2], atol=2e-3
  )
  assert index.new_N.tolist() == [False] * 28 + [True] * 3
  assert np.flatnonzero(index.fields.select({'tenant': 'ç'})).tolist() == [row]
  assert index.folded


def test_changes_are_there_when_the_index_is_opened_again(tmp_path):
  path = tmp_path / 'index'
  save(path)
  with LivingIndex(path) as index:
    for change in SOME:
      index.apply(change)
    assert_is_changed(index.snapshot.folded())
  assert [entry.name for entry in path.glob('v*')] == ['v000001']
  assert_is_changed(load_index(path, verify=True))
  with LivingIndex(path) as index:
    directory = index.fold()
    assert directory == path / 'v000002'
    index.apply(Delete(['ç']))
  assert_is_changed(load_index_of(directory))
  assert names_in(load_index(path, verify=True)) == [
    name for name in EXPECTED if name != 'ç'
  ]
  loaded = load_index(path)
  assert loaded.settings() and loaded.params()['scale'] == 2.5


def load_index_of(directory):
  """A version as it was written."""
  from gr_jax.checksums import file_sha256
  from gr_jax.index.index import Index

  return Index.load(directory, file_sha256(directory / 'manifest.json'), True)


def test_what_changes_while_a_version_is_written_is_in_its_log(
  tmp_path, monkeypatch
):
  path = tmp_path / 'index'
  save(path)
  writing, go_on = threading.Event(), threading.Event()
  sync_tree = versions.sync_tree

  def slow(directory):
    writing.set()
    assert go_on.wait(30)
    sync_tree(directory)

  monkeypatch.setattr(versions, 'sync_tree', slow)
  with LivingIndex(path) as index:
    for change in SOME[:2]:
      index.apply(change)
    index.fold_in_background()
    index.fold_in_background()  # one at a time
    assert writing.wait(30)
    for change in SOME[2:]:
      index.apply(change)
    assert names_in(load_index(path)) == EXPECTED
    go_on.set()
    index.wait()
    assert_is_changed(index.snapshot.folded())
    assert len(index.snapshot.added) == 1
  assert_is_changed(load_index(path, verify=True))
  versions_there = [entry.name for entry in path.glob('v*')]
  assert sorted(versions_there) == ['v000001', 'v000002']


def test_it_folds_by_itself_and_says_when_it_cannot(tmp_path, monkeypatch):
  path = tmp_path / 'index'
  save(path)
  folded = []
  with LivingIndex(path, 8, lambda: folded.append(1)) as index:
    for turn in range(12):
      index.apply(new_documents(f'n{turn}', f'm{turn}'))
      assert len(index.snapshot.added) <= 8
    index.wait()
    assert folded
    index.fold()  # How far it came by itself is chance.
  assert len(load_index(path)) == 54
  monkeypatch.setattr(
    living.Index, 'write', lambda *_: exec_error('no space left')
  )
  with pytest.raises(UserError, match='no space left'):  # noqa: SIM117
    with LivingIndex(path, 8) as index:
      index.apply(new_documents('x1', 'x2', 'x3', 'x4', 'x5', 'x6'))
  assert len(load_index(path, verify=True)) == 60
  assert not (path / '.building').exists()


def exec_error(message):
  raise UserError(message)


def test_readers_follow(tmp_path):
  path = tmp_path / 'index'
  save(path)
  reader = IndexReader(path)
  assert not reader.refresh()
  with LivingIndex(path) as index:
    for change in SOME[:3]:
      index.apply(change)
    assert reader.refresh() and not reader.refresh()
    np.testing.assert_array_equal(
      reader.snapshot.states_N, index.snapshot.states_N
    )
    index.fold()
    for change in SOME[3:]:
      index.apply(change)
    assert reader.refresh() and not reader.refresh()
    index.fold()
    index.fold()
    assert reader.refresh()
  assert_is_changed(reader.snapshot.folded())


def test_one_process_writes_and_a_folder_that_is_no_index_stays_none(tmp_path):
  path = tmp_path / 'index'
  with pytest.raises(UserError, match='there is no index folder'):
    LivingIndex(path)
  assert not path.exists()
  save(path)
  with LivingIndex(path):
    with pytest.raises(UserError, match='another process is changing'):
      LivingIndex(path)
    with pytest.raises(UserError, match='another process is changing'):
      save(path)
    assert len(load_index(path)) == 30
  LivingIndex(path).close()


def written_log(path):
  """The log after SOME, and where its records end."""
  save(path)
  ends = [0]
  with LivingIndex(path) as index:
    for change in SOME:
      index.apply(change)
      ends.append((path / 'v000001' / log.NAME).stat().st_size)
  return path / 'v000001' / log.NAME, ends


def test_what_a_killed_writer_leaves_is_no_change(tmp_path):
  file, ends = written_log(tmp_path / 'index')
  whole = file.read_bytes()
  rng = random.Random(0)
  for cut in [*ends, *rng.sample(range(len(whole)), 25)]:
    for tail in (b'', bytes(60)):
      file.write_bytes(whole[:cut] + (tail if cut in ends else b''))
      count = sum(end <= cut for end in ends) - 1
      reader = log.LogReader(file.parent, manifest_sha256(file.parent))
      assert len(list(reader.new())) == count
      assert reader.end == ends[count]
  # The next writer goes on where the last whole record ends.
  file.write_bytes(whole[: ends[3] + 11])
  with LivingIndex(tmp_path / 'index') as index:
    for change in SOME[3:]:
      index.apply(change)
  assert file.read_bytes() == whole


def manifest_sha256(directory):
  return (directory.parent / 'CURRENT').read_text().split()[1]


def test_every_flipped_bit_of_the_log_is_found(tmp_path):
  path = tmp_path / 'index'
  file, _ = written_log(path)
  whole = file.read_bytes()
  rng = random.Random(1)
  for _ in range(100):
    place = rng.randrange(len(whole) * 8)
    damaged = bytearray(whole)
    damaged[place // 8] ^= 1 << (place % 8)
    file.write_bytes(damaged)
    with pytest.raises(UserError, match=r'is damaged at byte \d+ .*truncate'):
      load_index(path)
  file.write_bytes(whole)
  # The log of another version is none of this one's.
  save(tmp_path / 'other', make_index(seed=3))
  other = tmp_path / 'other' / 'v000001' / log.NAME
  other.write_bytes(whole)
  with pytest.raises(UserError, match='damaged at byte 0'):
    load_index(tmp_path / 'other')


def test_bytes_that_are_no_change_are_refused():
  data = changes.to_bytes(SOME[1])
  assert changes.from_bytes(data) == SOME[1]
  for bad in (b'', b'x' * 40, data[:-1], data.replace(b'Delete', b'Deface')):
    with pytest.raises(ValueError, match='no change of an index'):
      changes.from_bytes(bad)


def test_a_full_disk_changes_nothing(tmp_path, monkeypatch):
  path = tmp_path / 'index'
  save(path)
  with LivingIndex(path) as index:
    index.apply(SOME[0])
    fsync, failing = os.fsync, [True]

    def full(descriptor):
      if failing:
        failing.pop()
        raise OSError(28, 'No space left on device')
      fsync(descriptor)

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match=r'No space left.*bytes are free'):
      index.apply(SOME[1])
    assert index.snapshot.count == 33
    for change in SOME[1:]:
      index.apply(change)
  assert_is_changed(load_index(path))


def test_damage_is_not_folded(tmp_path, monkeypatch):
  path = tmp_path / 'index'
  save(path)
  monkeypatch.setattr(living.manifest, 'SMALL_FILE', 0)
  vectors = path / 'v000001' / 'vectors.npy'
  whole = vectors.read_bytes()
  with LivingIndex(path) as index:
    index.apply(SOME[0])
    vectors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r'vectors\.npy is damaged'):
      index.fold()
    vectors.write_bytes(whole)
    index.apply(SOME[1])
    index.fold()
  assert len(load_index(path, verify=True)) == 31


def test_codes_that_are_damaged_are_refused_where_changes_are_read(
  tmp_path, monkeypatch
):
  path = tmp_path / 'index'
  written_log(path)
  monkeypatch.setattr(living.manifest, 'SMALL_FILE', 0)
  codes = path / 'v000001' / 'codes.npy'
  codes.write_bytes(codes.read_bytes()[:-2] + b'\xff\xff')
  with pytest.raises(UserError, match='do not go together'):
    load_index(path)
