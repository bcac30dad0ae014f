"""Vectors on disk: encoded once, and never those of other inputs."""

import os
import types

import numpy as np
import pytest

from gr_jax import locks
from gr_jax.retrieval.frozen_vectors import frozen_vectors
from gr_jax.types import UserError

TOKENS = [np.full(2, n + 1, np.int32) for n in range(5)]


def rows(indices):
  return [TOKENS[i] for i in indices]


class Queries:
  query_tokens = staticmethod(rows)

  def __len__(self):
    return 3


PREPARED = types.SimpleNamespace(
  document_tokens=rows,
  document_ids=['a', 'b', 'c', 'd', 'e'],
  document_length=2,
  query_length=2,
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
  assert not (place / 'queries_spans.npy').exists()
  assert [p.name for p in tmp_path.iterdir()] == ['vectors']


def test_vectors_without_a_mark_are_not_trusted(tmp_path):
  """As when the process was killed while it removed the folder."""
  place = tmp_path / 'vectors'
  read(place, 1, 'x')
  (place / 'vectors.json').unlink()
  assert read(place, 2, 'y') == (TWICE, ['documents', 'queries_labelled'])


def test_the_mark_appears_whole(tmp_path, monkeypatch):
  def stop(*paths):
    raise KeyboardInterrupt

  place = tmp_path / 'vectors'
  monkeypatch.setattr(os, 'replace', stop)
  with pytest.raises(KeyboardInterrupt):
    read(place, 1, 'x')
  assert not (place / 'vectors.json').exists()


def test_one_process_encodes_and_all_may_read(tmp_path):
  place = tmp_path / 'vectors'
  read(place, 1, 'x')
  with locks.held(tmp_path / '.vectors.lock', 'encoding texts for a', 'wait'):
    assert read(place, 1, 'x') == (ONCE, [])
    with pytest.raises(UserError, match='another process is encoding texts'):
      read(place, 2, 'y')
  assert read(place, 1, 'x') == (ONCE, [])
