"""Hard negatives by BM25: the best documents that are no positives."""

import types

import numpy as np
import pytest
import tiny_collection

from gr_jax.data.collection import Collection
from gr_jax.evaluation.lexical import Lexical
from gr_jax.evaluation.lexical_negatives import lexical_negatives
from gr_jax.types import NO_DOC, UserError

# Query id, text, number of the document that answers it.
EXAMPLES = [
  ('a', 'otter of the river', 0),
  ('a', 'otter of the river', 5),
  ('', 'lynx summit', 18),
  ('b', 'nothing', 3),
]


class Source:
  def __len__(self):
    return len(EXAMPLES)

  def examples(self, rows):
    return [
      types.SimpleNamespace(
        query_id=EXAMPLES[row][0], document_index=EXAMPLES[row][2]
      )
      for row in rows
    ]

  def query_tokens(self, rows):
    return [np.array([row]) for row in rows]


class Prepared:
  directory = 'prepared'

  def __init__(self, document_ids, inputs='x'):
    self.document_ids = document_ids
    self.sources = {'labelled': Source()}
    self.manifest = {'inputs_sha256': inputs}

  def vocabulary(self):
    return types.SimpleNamespace(decode=lambda ids: EXAMPLES[int(ids[0])][1])


@pytest.fixture(scope='module')
def collection(tmp_path_factory):
  return Collection(
    tiny_collection.write_collection(tmp_path_factory.mktemp('c') / 'c')
  )


def mined(folder, collection, prepared, said=None):
  report = said.append if said is not None else lambda line: None
  return lexical_negatives(folder, collection, prepared, ['labelled'], report)


def test_the_best_documents_but_the_positives(collection, tmp_path):
  ids = list(collection.document_index())
  found = mined(tmp_path / 'n', collection, Prepared(ids))['labelled']
  assert found.shape == (4, 30) and found.dtype == np.int32
  lexical = Lexical(collection.documents())
  answers = [{0, 5}, {0, 5}, {18}, {3}]
  for (_, text, _), known, row in zip(EXAMPLES, answers, found, strict=True):
    best = lexical.search([text], 40).rows_BC[0].tolist()
    kept = [number for number in best if number not in {*known, NO_DOC}][:30]
    assert row.tolist() == kept + [NO_DOC] * (30 - len(kept))
  assert found[0, 0] >= 0 and np.all(found[3] == NO_DOC)


def test_they_are_kept_and_found_anew_for_other_examples(collection, tmp_path):
  ids, said = list(collection.document_index()), []
  first = mined(tmp_path / 'n', collection, Prepared(ids), said)
  again = mined(tmp_path / 'n', collection, Prepared(ids), said)
  assert len(said) == 1
  np.testing.assert_array_equal(first['labelled'], again['labelled'])
  mined(tmp_path / 'n', collection, Prepared(ids, 'y'), said)
  assert len(said) == 2


def test_another_corpus_is_refused(collection, tmp_path):
  with pytest.raises(UserError, match='has other documents'):
    mined(tmp_path / 'n', collection, Prepared(['d1']))
