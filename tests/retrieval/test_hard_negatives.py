"""Hard negatives are the nearest documents that do not answer the query."""

import types

import numpy as np
import pytest

from gr_jax.retrieval import hard_negatives
from gr_jax.retrieval.frozen_vectors import FrozenVectors
from gr_jax.types import NO_DOC, UserError

DOCUMENTS, WIDTH = 60, 5


class Source:
  """Examples of queries, some of which ask for several documents."""

  def __init__(self, pairs):
    self.pairs = pairs

  def __len__(self):
    return len(self.pairs)

  def examples(self, rows):
    return [
      types.SimpleNamespace(query_id=self.pairs[r][0], document_index=d)
      for r in rows
      for d in [self.pairs[r][1]]
    ]


SOURCE = Source([('a', 3), ('b', 4), ('a', 7), ('', 8), ('', 9), ('a', 1)])


def inputs(documents=DOCUMENTS):
  rng = np.random.default_rng(0)
  # Of unequal lengths: directions count alone.
  vectors = rng.normal(size=(documents, WIDTH)) * rng.uniform(
    1, 9, (documents, 1)
  )
  queries = rng.normal(size=(len(SOURCE), WIDTH))
  return (
    FrozenVectors(
      vectors.astype(np.float32), {'labelled': queries.astype(np.float32)}
    ),
    types.SimpleNamespace(sources={'labelled': SOURCE}),
  )


@pytest.mark.parametrize('batch', [2, 4, 512])
@pytest.mark.parametrize('documents', [DOCUMENTS, 20])
def test_the_nearest_documents_but_the_positives(
  tmp_path, monkeypatch, batch, documents
):
  monkeypatch.setattr(hard_negatives, '_BATCH', batch)
  vectors, prepared = inputs(documents)
  found = hard_negatives.mined_negatives(
    tmp_path, vectors, prepared, lambda line: None
  )['labelled']
  assert found.shape == (len(SOURCE), hard_negatives.KEPT)
  units = vectors.documents / np.linalg.norm(
    vectors.documents, axis=1, keepdims=True
  )
  for row, (query_id, document) in enumerate(SOURCE.pairs):
    positives = {d for q, d in SOURCE.pairs if q == query_id and q}
    order = np.argsort(-units @ vectors.queries['labelled'][row])
    left = [d for d in order if d not in positives | {document}]
    expected = (left + [NO_DOC] * hard_negatives.KEPT)[: hard_negatives.KEPT]
    np.testing.assert_array_equal(found[row], expected)


def test_what_was_found_is_kept_beside_the_vectors(tmp_path):
  said = []
  vectors, prepared = inputs()
  first = hard_negatives.mined_negatives(
    tmp_path, vectors, prepared, said.append
  )
  again = hard_negatives.mined_negatives(
    tmp_path, vectors, prepared, said.append
  )
  np.testing.assert_array_equal(first['labelled'], again['labelled'])
  assert len(said) == 1 and "6 'labelled'" in said[0]
  files = [
    tmp_path / f'negatives_labelled.{kind}' for kind in ('crc32c', 'npy')
  ]
  assert sorted(tmp_path.iterdir()) == files
  # A version that kept no checksums has left such.
  files[0].unlink()
  hard_negatives.mined_negatives(tmp_path, vectors, prepared, said.append)
  assert len(said) == 2 and files[0].is_file()
  damaged = bytearray(files[1].read_bytes())
  damaged[-2] ^= 4
  files[1].write_bytes(damaged)
  with pytest.raises(UserError, match=r'labelled\.npy is damaged'):
    hard_negatives.mined_negatives(tmp_path, vectors, prepared, said.append)
