"""Vectors on disk: encoded once, and never those of other inputs."""

import json
import os
import types

import numpy as np
import pytest

from gr_jax import locks, verify
from gr_jax.retrieval import frozen_vectors as frozen_vectors_module
from gr_jax.retrieval.frozen_vectors import frozen_vectors, share_vectors
from gr_jax.types import UserError

TOKENS = [np.full(2, n + 1, np.int32) for n in range(5)]


def rows(indices):
  return [TOKENS[i] for i in indices]


class Queries:
  query_tokens = staticmethod(rows)

  def __len__(self):
    return 3


# Checksums of what is encoded.
PARTS = {name: name for name in ('documents', 'labelled', 'spans')}
PREPARED = types.SimpleNamespace(
  document_tokens=rows,
  document_ids=['a', 'b', 'c', 'd', 'e'],
  document_length=2,
  query_length=2,
  part_sha256=lambda part: PARTS[part],
  sources={'labelled': Queries(), 'spans': Queries()},
)


def read(directory, scale, fingerprint, sources=('labelled',)):
  """The first column of the documents, and what was encoded for it."""
  said = []
  vectors = frozen_vectors(
    directory,
    lambda tokens_BS: scale * tokens_BS[:, :1].astype(np.float32),
    PREPARED,
    sources,
    fingerprint,
    said.append,
  )
  assert list(vectors.queries) == list(sources)
  return vectors.documents[:, 0].tolist(), [line.split("'")[1] for line in said]


ONCE, TWICE = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0, 10.0]


def test_texts_are_encoded_once_for_the_same_inputs(tmp_path):
  place = tmp_path / 'vectors'
  assert read(place, 1, 'x') == (ONCE, ['documents', 'queries_labelled'])
  assert read(place, 2, 'x') == (ONCE, [])
  sources = ('labelled', 'spans')
  assert read(place, 2, 'x', sources) == (ONCE, ['queries_spans'])
  assert read(place, 2, 'y') == (TWICE, ['documents', 'queries_labelled'])
  assert [p.name for p in tmp_path.iterdir()] == ['vectors']


def test_only_the_texts_that_changed_are_encoded(tmp_path, monkeypatch):
  place = tmp_path / 'vectors'
  sources = ('labelled', 'spans')
  read(place, 1, 'x', sources)
  found = [place / f'negatives_{name}.npy' for name in sources]
  for path in found:
    path.touch()
  monkeypatch.setitem(PARTS, 'spans', 'others')
  assert read(place, 2, 'x', sources) == (ONCE, ['queries_spans'])
  assert [path.exists() for path in found] == [True, False]
  monkeypatch.setitem(PARTS, 'documents', 'others')
  assert read(place, 2, 'x', sources) == (TWICE, ['documents'])
  assert not found[0].exists()


@pytest.mark.parametrize('links', [True, False])
def test_vectors_are_taken_from_another_folder(tmp_path, monkeypatch, links):
  def refuse(*paths):
    raise OSError

  if not links:
    monkeypatch.setattr(os, 'link', refuse)
  read(tmp_path / 'a', 1, 'x')
  monkeypatch.setitem(PARTS, 'labelled', 'others')
  share_vectors(tmp_path / 'b', [tmp_path / 'a', tmp_path / 'b'])
  assert read(tmp_path / 'b', 2, 'x') == (ONCE, ['queries_labelled'])
  # What lies in the other folder stays as it was.
  assert np.load(tmp_path / 'a' / 'queries_labelled.npy')[0, 0] == 1
  share_vectors(tmp_path / 'b', [tmp_path / 'a'])
  assert read(tmp_path / 'b', 3, 'x') == (ONCE, [])


def test_vectors_that_are_not_there_yet_are_not_taken(tmp_path):
  read(tmp_path / 'a', 1, 'x')
  (tmp_path / 'a' / 'documents.npy').unlink()
  share_vectors(tmp_path / 'b', [tmp_path / 'a'])
  assert read(tmp_path / 'b', 2, 'x') == (TWICE, ['documents'])


def test_vectors_without_a_mark_are_not_trusted(tmp_path):
  """As when the process was killed while it removed them."""
  place = tmp_path / 'vectors'
  read(place, 1, 'x')
  (place / 'documents.json').unlink()
  assert read(place, 2, 'x') == (TWICE, ['documents'])


@pytest.mark.parametrize('name', ['documents', 'queries_labelled'])
def test_a_flipped_bit_is_refused_by_name(tmp_path, name):
  place = tmp_path / 'vectors'
  read(place, 1, 'x')
  whole = (place / f'{name}.npy').read_bytes()
  rng = np.random.default_rng(0)
  for bit in rng.choice(8 * len(whole), 50, replace=False):
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    (place / f'{name}.npy').write_bytes(flipped)
    with pytest.raises(UserError, match=f'{name}.npy is damaged: crc32c'):
      read(place, 1, 'x')
    (found,) = verify.check(place)
    assert len(found.damaged) == 1 and f'{name}.npy' in found.damaged[0]
  (place / f'{name}.npy').unlink()
  assert read(place, 1, 'x') == (ONCE, [name])
  (found,) = verify.check(tmp_path)
  assert (found.kind, len(found.files), found.damaged) == ('vectors', 2, [])


def test_vectors_without_a_checksum_are_encoded_anew(tmp_path):
  place = tmp_path / 'vectors'
  read(place, 1, 'x')
  mark = place / 'documents.json'
  inputs = json.loads(mark.read_text())['inputs']
  mark.write_text(json.dumps({'inputs': inputs}))
  assert read(place, 2, 'x') == (TWICE, ['documents'])
  assert read(place, 1, 'x') == (TWICE, [])


def test_a_kill_while_vectors_are_taken_is_no_damage(tmp_path, monkeypatch):
  """Between the vectors and their mark."""
  read(tmp_path / 'a', 1, 'x')
  shared = tmp_path / 'b'

  def killed(path, _):
    raise KeyboardInterrupt

  monkeypatch.setattr(frozen_vectors_module, 'write_whole', killed)
  with pytest.raises(KeyboardInterrupt):
    share_vectors(shared, [tmp_path / 'a'])
  monkeypatch.undo()
  assert [path.name for path in shared.iterdir()] == ['documents.npy']
  assert frozen_vectors_module.damaged_files(shared) == ({}, [])
  assert read(shared, 2, 'x')[0] == TWICE


def test_a_kill_before_the_vectors_have_their_name(tmp_path, monkeypatch):
  place = tmp_path / 'vectors'
  real = os.replace

  def stop(source, target):
    if str(target).endswith('documents.npy'):
      raise KeyboardInterrupt
    real(source, target)

  monkeypatch.setattr(os, 'replace', stop)
  with pytest.raises(KeyboardInterrupt):
    read(place, 1, 'x')
  monkeypatch.undo()
  # Its shards are there: nothing is encoded anew.
  assert read(place, 2, 'x')[0] == ONCE


def test_the_mark_appears_whole(tmp_path, monkeypatch):
  def stop(*paths):
    raise KeyboardInterrupt

  place = tmp_path / 'vectors'
  monkeypatch.setattr(os, 'replace', stop)
  with pytest.raises(KeyboardInterrupt):
    read(place, 1, 'x')
  assert not (place / 'documents.json').exists()


def test_one_process_encodes_and_all_may_read(tmp_path):
  place = tmp_path / 'vectors'
  read(place, 1, 'x')
  with locks.held(tmp_path / '.vectors.lock', 'encoding texts for a', 'wait'):
    assert read(place, 1, 'x') == (ONCE, [])
    with pytest.raises(UserError, match='another process is encoding texts'):
      read(place, 2, 'y')
  assert read(place, 1, 'x') == (ONCE, [])
