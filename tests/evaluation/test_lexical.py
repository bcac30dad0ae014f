import math

import numpy as np
import pytest

from gr_jax.data.collection import Collection
from gr_jax.evaluation.judging import questions
from gr_jax.evaluation.lexical import Lexical
from gr_jax.evaluation.protocol import measure
from gr_jax.types import NO_DOC, Document, UserError

WORDS = ('apple', 'river', 'stone', 'cloud', 'horse', 'piano', 'green')


def corpus(documents=40, seed=0):
  rng = np.random.default_rng(seed)
  return [
    Document(f'd{n}', '', ' '.join(rng.choice(WORDS, rng.integers(1, 12))))
    for n in range(documents)
  ]


def oracle(documents, query, k1=0.9, b=0.4):
  """Lucene's BM25, a document at a time."""
  bags = [document.text.split() for document in documents]
  mean = sum(map(len, bags)) / len(bags)
  scores = []
  for bag in bags:
    total = 0.0
    for word in query.split():
      holding = sum(word in other for other in bags)
      idf = math.log(1 + (len(bags) - holding + 0.5) / (holding + 0.5))
      count = bag.count(word)
      total += idf * count / (count + k1 * (1 - b + b * len(bag) / mean))
    scores.append(total)
  return np.array(scores)


@pytest.mark.parametrize('k', [1, 5, 100])
def test_bm25_equals_its_formula(k):
  # No word of WORDS is changed by the stemmer in a way that joins two.
  documents = corpus()
  query = 'river horse green'
  found = Lexical(documents).search([query], k)
  expected = oracle(documents, query)
  matching = int((expected > 0).sum())
  best = np.sort(expected)[::-1][: min(k, matching)]
  np.testing.assert_allclose(found.scores_BC[0, : len(best)], best, rtol=1e-5)
  rows = found.rows_BC[0]
  np.testing.assert_allclose(expected[rows[: len(best)]], best, rtol=1e-5)
  assert (rows[len(best) :] == NO_DOC).all()
  assert found.documents_scored_B.tolist() == [matching]
  assert found.code_scores_B.tolist() == [0]


def test_words_are_stemmed_titles_count_and_unknown_words_find_nothing():
  lexical = Lexical(
    [Document('a', 'Running horses', ''), Document('b', '', 'quiet piano')]
  )
  found = lexical.search(['a horse that runs', 'zebra', 'the', ''], 3)
  assert found.rows_BC[0].tolist() == [0, NO_DOC, NO_DOC]
  assert (found.rows_BC[1:] == NO_DOC).all()
  assert found.documents_scored_B.tolist() == [1, 0, 0, 0]


def test_a_corpus_without_a_word_finds_nothing():
  found = Lexical([Document('a', '', 'the of and')]).search(['the apple'], 2)
  assert found.rows_BC.tolist() == [[NO_DOC, NO_DOC]]
  with pytest.raises(UserError, match='corpus is empty'):
    Lexical([])


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('squadshifts', (0.489, 0.699, 0.835, 0.557, 0.591)),
    ('scifact', (0.533, 0.801, 0.913, 0.641, 0.676)),
    ('cranfield', (0.063, 0.361, 0.717, 0.500, 0.334)),
  ],
)
def test_bm25_of_real_collections(collections_dir, name, expected):
  collection = Collection(collections_dir / name)
  asked = questions(collection, 'test')
  lexical = Lexical(collection.documents())
  measured = measure('BM25', lexical, asked.queries, asked.judgements)
  means = tuple(measured.scores.means().values())
  assert means == pytest.approx(expected, abs=0.003)
