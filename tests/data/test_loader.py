"""Prepared examples and their batches, without TensorFlow."""

import json
import subprocess
import sys
import types

import numpy as np
import pytest
from prepared_by_hand import DOCUMENTS, SIZES, digest, write_prepared

from gr_jax.data import loader, prepared
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.types import UserError


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  return write_prepared(tmp_path_factory.mktemp('prepared'))


@pytest.fixture
def data(directory):
  return prepared.PreparedData(directory)


def settings(**kwargs):
  defaults = {'batch_size': 16, 'rates': {'labelled': 1.0, 'spans': 3.0}}
  return loader.LoaderSettings(**{**defaults, **kwargs})


def test_records_survive_their_encoding(data):
  example = data.sources['spans'].example(7)
  assert example.query_id == 'q7é'
  assert example.query_tokens.tolist() == [1, 2]
  tokens, index = data.sources['spans'][7]
  assert tokens.dtype == np.int32
  assert index == data.sources['spans'].document_indices[7]
  found = data.document_tokens([29, 0, 21])
  assert [len(row) for row in found] == [3, 1, 4]
  assert data.document_ids[29] == 'd29'


def test_batches_join_queries_and_their_documents(data):
  batch = next(loader.batches(data, settings()))
  names = sorted(data.sources)
  assert batch['query_tokens'].shape == (16, 8)
  assert batch['document_tokens'].shape == (16, 12)
  assert all(value.dtype == np.int32 for value in batch.values())
  for row in range(16):
    source = data.sources[names[batch['source'][row]]]
    tokens, index = source[batch['example'][row]]
    assert batch['document_index'][row] == index
    document = data.document_tokens([index])[0]
    for name, ids in (('query', tokens), ('document', document)):
      padded = batch[f'{name}_tokens'][row]
      assert padded[: len(ids)].tolist() == ids.tolist()
      assert not padded[len(ids) :].any()


def test_vectors_take_the_place_of_tokens(data):
  vectors = types.SimpleNamespace(
    documents=np.arange(DOCUMENTS * 2, dtype=np.float32).reshape(-1, 2),
    queries={
      name: np.full((size, 2), size, np.float32) for name, size in SIZES.items()
    },
  )
  batch = next(loader.batches(data, settings(), vectors=vectors))
  assert 'query_tokens' not in batch
  expected = vectors.documents[batch['document_index']]
  np.testing.assert_array_equal(batch['document_vectors'], expected)
  names = sorted(data.sources)
  sizes = [SIZES[names[number]] for number in batch['source']]
  assert batch['query_vectors'][:, 0].tolist() == sizes
  vectors.documents = vectors.documents[:-1]
  with pytest.raises(UserError, match='encode them again'):
    loader.batches(data, settings(), vectors=vectors)


def test_rates_are_kept_and_every_epoch_is_whole_and_new(data):
  iterator = loader.batches(data, settings(rates={'labelled': 1, 'spans': 3}))
  rows = [next(iterator) for _ in range(40)]
  names = sorted(data.sources)
  source = np.concatenate([row['source'] for row in rows])
  example = np.concatenate([row['example'] for row in rows])
  spans = example[source == names.index('spans')]
  assert len(spans) == 480
  epochs = spans[:450].reshape(5, 90)
  for epoch in epochs:
    assert sorted(epoch.tolist()) == list(range(90))
  assert len({tuple(epoch.tolist()) for epoch in epochs}) == 5


@pytest.mark.parametrize('step', [1, 7])
def test_resumed_batches_are_the_same(data, step):
  whole = loader.batches(data, settings(seed=5))
  for _ in range(step):
    next(whole)
  state = json.loads(json.dumps(whole.get_state()))
  expected = [digest(next(whole)) for _ in range(4)]
  resumed = loader.batches(data, settings(seed=5))
  resumed.set_state(state)
  assert [digest(next(resumed)) for _ in range(4)] == expected
  other = loader.batches(data, settings(seed=6))
  other.set_state(state)
  assert digest(next(other)) != expected[0]


def negatives(data, width=6):
  """Candidates that tell whose they are; every tenth has one alone."""
  found = {}
  for number, name in enumerate(sorted(SIZES)):
    rows = np.arange(SIZES[name])[:, None]
    found[name] = (rows * 7 + np.arange(width) * (number + 1)) % DOCUMENTS
    found[name] = found[name].astype(np.int32)
    found[name][::10, 1:] = -1
  return found


@pytest.mark.parametrize('count', [2, 4])
def test_processes_read_together_what_one_reads(data, count):
  def batches(rows=None):
    return loader.batches(
      data, settings(hard_negatives=3), rows, candidates=negatives(data)
    )

  whole = batches()
  parts = [batches(rows) for rows in np.split(np.arange(16), count)]
  for _ in range(5):
    expected = next(whole)
    shares = [next(part) for part in parts]
    for name, array in expected.items():
      found = np.concatenate([share[name] for share in shares])
      np.testing.assert_array_equal(found, array, err_msg=name)
  # Where they stand does not say how many they were.
  assert parts[0].get_state() == whole.get_state()
  alone = batches()
  alone.set_state(parts[-1].get_state())
  assert digest(next(alone)) == digest(next(whole))


def test_hard_negatives_are_drawn_of_each_query_anew(data):
  candidates = negatives(data)
  names = sorted(SIZES)

  def drawn(count=12, seed=0, start=None):
    batches = loader.batches(
      data, settings(hard_negatives=3, seed=seed), candidates=candidates
    )
    if start is not None:
      batches.set_state(start)
    return [(next(batches), batches.get_state()) for _ in range(count)]

  seen = {}
  batches = drawn()
  for batch, _ in batches:
    assert batch['negative_index'].shape == (16, 3)
    assert batch['negative_tokens'].shape == (16, 3, data.document_length)
    for row in range(16):
      name, example = names[batch['source'][row]], batch['example'][row]
      real = [d for d in batch['negative_index'][row] if d >= 0]
      assert len(set(real)) == len(real) == (1 if example % 10 == 0 else 3)
      assert set(real) <= set(candidates[name][example].tolist())
      seen.setdefault((name, example), set()).add(tuple(real))
      tokens = batch['negative_tokens'][row, : len(real)]
      for document, ids in zip(real, tokens, strict=True):
        assert np.count_nonzero(ids) == len(data.document_tokens([document])[0])
  # Another epoch draws others.
  assert any(len(draws) > 1 for draws in seen.values())
  # By seed and position: the same again, from any place on.
  for (batch, _), (again, _) in zip(batches, drawn(), strict=True):
    assert digest(batch) == digest(again)
  (resumed, _), *_ = drawn(1, start=batches[4][1])
  assert digest(resumed) == digest(batches[5][0])
  (other, _), *_ = drawn(1, seed=1)
  assert digest(other) != digest(batches[0][0])


def test_hard_negatives_of_a_frozen_encoder_are_vectors(data):
  vectors = types.SimpleNamespace(
    documents=np.arange(DOCUMENTS)[:, None] * np.ones((1, 4), np.float32),
    queries={
      name: np.zeros((size, 4), np.float32) for name, size in SIZES.items()
    },
  )
  batch = next(
    loader.batches(
      data,
      settings(hard_negatives=2),
      vectors=vectors,
      candidates=negatives(data),
    )
  )
  there = batch['negative_index'] >= 0
  np.testing.assert_array_equal(
    batch['negative_vectors'][there][:, 0], batch['negative_index'][there]
  )
  assert 'negative_tokens' not in batch


def test_more_hard_negatives_than_are_kept_are_refused(data):
  with pytest.raises(UserError, match="is 7, of each 'labelled' query 6 are"):
    loader.batches(data, settings(hard_negatives=7), candidates=negatives(data))


def test_refuses_what_does_not_fit(data):
  with pytest.raises(UserError, match=r"no source 'span'.*mean 'spans'"):
    loader.batches(data, settings(rates={'span': 1.0}))
  with pytest.raises(UserError, match='none of'):
    loader.batches(data, settings(rates={'pseudo': 1.0}))
  with pytest.raises(UserError, match='must be 0 or more'):
    loader.batches(data, settings(rates={'spans': float('nan')}))
  with pytest.raises(UserError, match='batch_size is 1 or more, got 0'):
    loader.batches(data, settings(batch_size=0))
  used = loader.used_rates(data, {'pseudo': 1, 'spans': 1})
  assert used == {'spans': 1.0}


def test_damage_is_named(directory, tmp_path):
  copy = tmp_path / 'copy'
  copy.mkdir()
  for file in directory.iterdir():
    (copy / file.name).write_bytes(file.read_bytes())
  prepared.PreparedData(copy).verify()
  path = copy / 'examples-spans-00000.array_record'
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(UserError, match=f'{path}: damaged'):
    prepared.PreparedData(copy).verify()
  path.write_bytes(content[:-1])
  with pytest.raises(UserError, match=f'{path}: expected'):
    prepared.PreparedData(copy)
  assert not prepared.is_current(PreparationSettings(data_dir='x'), copy)
  (copy / 'manifest.json').unlink()
  with pytest.raises(UserError, match='no prepared examples'):
    prepared.PreparedData(copy)


_PROCESS = """
import sys
from gr_jax.data.loader import LoaderSettings, batches
from gr_jax.data.prepared import PreparedData
data = PreparedData(sys.argv[1])
next(batches(data, LoaderSettings(batch_size=4, rates={'spans': 1.0})))
assert 'array_record' in sys.modules
assert not {'tensorflow', 'seqio', 'tensorflow_datasets'} & set(sys.modules)
"""


def test_training_never_imports_tensorflow(directory):
  subprocess.run([sys.executable, '-c', _PROCESS, str(directory)], check=True)
