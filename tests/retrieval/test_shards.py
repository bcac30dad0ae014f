"""Vectors in shards: what is done stays done, and nothing else counts."""

import json

import numpy as np
import pytest

from gr_jax.retrieval import shards

TEXTS = [np.full(1 + row % 3, row + 1, np.int32) for row in range(10)]


def encode(folder, inputs='x', rows=4, stop_at=None):
  """The vectors, and which rows were read for them."""
  read = []

  def read_tokens(places):
    if stop_at in places:
      raise KeyboardInterrupt
    read.extend(places.tolist())
    return [TEXTS[row] for row in places]

  paths = shards.encode_shards(
    folder,
    lambda tokens_BS: tokens_BS[:, :1].astype(np.float32),
    read_tokens,
    len(TEXTS),
    3,
    inputs,
    rows,
  )
  return shards.joined(paths)[:, 0].tolist(), read


ALL = [float(row + 1) for row in range(10)]


@pytest.mark.parametrize('rows', [1, 4, 5, 10, 99])
def test_any_size_of_shards_gives_the_same(tmp_path, rows):
  assert encode(tmp_path / 's', rows=rows) == (ALL, list(range(10)))


def test_an_interrupted_encoding_goes_on_with_its_shard(tmp_path):
  folder = tmp_path / 's'
  with pytest.raises(KeyboardInterrupt):
    encode(folder, stop_at=5)
  assert encode(folder) == (ALL, [4, 5, 6, 7, 8, 9])
  assert encode(folder) == (ALL, [])
  # Another size of shards, or other inputs, have none of these.
  assert encode(folder, inputs='y') == (ALL, list(range(10)))
  assert encode(folder, inputs='y', rows=5) == (ALL, list(range(10)))


def test_only_what_is_marked_and_whole_is_done(tmp_path):
  folder = tmp_path / 's'
  encode(folder)
  (folder / '00000.done.json').unlink()
  damaged = bytearray((folder / '00002.npy').read_bytes())
  damaged[-1] ^= 1
  (folder / '00002.npy').write_bytes(damaged)
  assert encode(folder) == (ALL, [0, 1, 2, 3, 8, 9])
  # As it is left by a kill between a shard and its mark.
  (folder / '00001.done.json').write_text(json.dumps({'sha256': ''}))
  assert encode(folder) == (ALL, [4, 5, 6, 7])


def test_rows_of_any_kind_are_made_where_they_are_missing(tmp_path):
  made = []

  def make(places, show):
    made.extend(places.tolist())
    show(len(places), 1.0)
    return shards.columns(codes=np.stack([places, -places], 1), costs=places)

  for expected in (list(range(10)), [3, 4, 5]):
    made.clear()
    paths = shards.make_shards(tmp_path / 's', make, 10, 'x', 3, 'document')
    assert made == expected
    found = shards.joined(paths)
    np.testing.assert_array_equal(found['codes'][:, 1], -np.arange(10))
    np.testing.assert_array_equal(found['costs'], np.arange(10))
    (tmp_path / 's' / '00001.npy').unlink()


def test_joined_on_disk_as_in_memory(tmp_path):
  paths = shards.encode_shards(
    tmp_path / 's',
    lambda tokens_BS: tokens_BS[:, :1].astype(np.float32),
    lambda places: [TEXTS[row] for row in places],
    10,
    3,
    'x',
    4,
  )
  expected = shards.joined(paths)
  shards.join(paths, 10, tmp_path / 'all.npy')
  np.testing.assert_array_equal(np.load(tmp_path / 'all.npy'), expected)
  assert [path.name for path in tmp_path.iterdir()] == ['all.npy']
