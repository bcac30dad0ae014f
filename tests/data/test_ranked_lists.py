"""Lists are drawn of a teacher's rankings, the positive first."""

import types

import numpy as np
import pytest

from gr_jax.data.ranked_lists import DrawnLists, ListSettings, join_rankings
from gr_jax.types import NO_DOC, UserError

IDS = [f'd{i}' for i in range(40)]


class Source:
  """Examples of queries q0, q1, ... and their documents."""

  def __init__(self, documents):
    self.document_indices = np.array(documents, np.int32)

  def __len__(self):
    return len(self.document_indices)

  def examples(self, rows):
    return [
      types.SimpleNamespace(
        query_id=f'q{row}', document_index=int(self.document_indices[row])
      )
      for row in rows
    ]


PREPARED = types.SimpleNamespace(
  document_ids=IDS,
  sources={'labelled': Source([3, 5, 7]), 'spans': Source([1])},
)
SETTINGS = ListSettings(path='t', lists=2, size=5, top=1, least=6, depth=10)


def ranked(names, scores, query=''):
  return types.SimpleNamespace(document_ids=names, scores=scores, query=query)


def ranking(*documents, query=''):
  """Documents with scores that fall by 1 from 0."""
  names = [f'd{d}' for d in documents]
  return ranked(names, [-float(i) for i in range(len(documents))], query)


RANKINGS = {
  # The positive is third of 12; one document is of no corpus.
  'q0': ranking(10, 11, 3, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21),
  # The teacher did not see the positive.
  'q1': ranked(
    [*(f'd{d}' for d in range(20, 28)), 'none'], [*range(8, 0, -1), 99.0]
  ),
  # Too short.
  'q2': ranking(7, 8, 9),
}


def joined():
  return join_rankings(PREPARED, RANKINGS, SETTINGS, ['labelled'])


def test_rankings_are_joined_with_their_queries():
  found, counts = joined()
  assert counts == {'labelled': (2, 3)} and list(found) == ['labelled']
  kept = found['labelled']
  np.testing.assert_array_equal(
    kept.documents_XC[0], [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
  )
  np.testing.assert_array_equal(kept.scores_XC[0, :3], [0, -1, -3])
  np.testing.assert_array_equal(
    kept.documents_XC[1], [*range(20, 28), NO_DOC, NO_DOC]
  )
  assert kept.own_X.tolist() == [-2, 8, 0]
  assert (kept.documents_XC[2] == NO_DOC).all()


def test_no_other_answer_of_a_query_is_among_the_negatives():
  ids = ['q0', 'q0', 'q1']
  documents = [3, 10, 5]
  examples = [
    types.SimpleNamespace(query_id=name, document_index=document)
    for name, document in zip(ids, documents, strict=True)
  ]
  source = Source(documents)
  source.examples = lambda rows: [examples[row] for row in rows]
  prepared = types.SimpleNamespace(
    document_ids=IDS, sources={'labelled': source}
  )
  found, _ = join_rankings(prepared, RANKINGS, SETTINGS, ['labelled'])
  kept = found['labelled']
  for row in (0, 1):
    np.testing.assert_array_equal(
      kept.documents_XC[row], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
    )
  assert kept.own_X.tolist() == [-2, 0, 8]


def test_too_short_rankings_are_refused():
  with pytest.raises(UserError, match='no training query has 6 ranked'):
    join_rankings(PREPARED, {'q2': RANKINGS['q2']}, SETTINGS, ['labelled'])


class Words:
  """A vocabulary of numbers."""

  def encode(self, text, length):
    return [int(word) for word in text.split()][:length]

  def decode(self, tokens):
    return ' '.join(map(str, tokens))


def test_a_ranking_is_of_the_text_of_its_query():
  source = Source([3])
  source.examples = lambda rows: [
    types.SimpleNamespace(
      query_id='d3:spans:0', document_index=3, query_tokens=np.array([4, 5])
    )
  ]
  prepared = types.SimpleNamespace(
    document_ids=IDS,
    sources={'spans': source},
    vocabulary=Words,
    query_length=2,
  )

  def joined_with(query):
    rankings = {'d3:spans:0': ranking(*range(10, 20), query=query)}
    return join_rankings(prepared, rankings, SETTINGS, ['spans'])

  # What stands past the length is not in the prepared query either.
  for query in ('', '4 5', '4 5 6'):
    assert joined_with(query)[1] == {'spans': (1, 1)}
  with pytest.raises(UserError, match=r"for '4 6' as 'd3:spans:0'.*'4 5'"):
    joined_with('4 6')


def batch_of(examples):
  documents = PREPARED.sources['labelled'].document_indices
  return {
    'source': np.zeros(len(examples), np.int32),
    'example': np.array(examples, np.int32),
    'document_index': documents[examples],
  }


def drawn(examples, seed, rows=None, settings=SETTINGS):
  rows = np.arange(len(examples)) if rows is None else rows
  draw = DrawnLists(joined()[0], ['labelled', 'spans'], settings, rows)
  return draw(batch_of(np.asarray(examples)[rows]), np.random.default_rng(seed))


def test_lists_hold_the_positive_the_best_and_others_in_order():
  kept = joined()[0]['labelled']
  seen = set()
  for seed in range(30):
    batch = drawn([0, 1, 2], seed)
    assert batch['list_index'].shape == (3, 2, 5)
    for row, own in ((0, 3), (1, 5)):
      others = [d for d in kept.documents_XC[row].tolist() if d != NO_DOC]
      for index, scores in zip(
        batch['list_index'][row], batch['list_scores'][row], strict=True
      ):
        assert index[0] == own and scores[0] == kept.own_X[row]
        # The one that the teacher likes best is in every list.
        places = [others.index(d) for d in index[1:]]
        assert places[0] == 0 and places == sorted(set(places))
        np.testing.assert_array_equal(scores[1:], kept.scores_XC[row][places])
        seen.update(places)
    # Without a ranking there is no list.
    assert (batch['list_index'][2] == NO_DOC).all()
  assert seen == set(range(10))


def test_a_row_is_the_same_whoever_reads_it():
  whole = drawn([0, 1, 0, 1], 7)
  parts = [drawn([0, 1, 0, 1], 7, np.array(rows)) for rows in ([0, 1], [2, 3])]
  for name in ('list_index', 'list_scores'):
    np.testing.assert_array_equal(
      np.concatenate([part[name] for part in parts]), whole[name]
    )


def test_short_rankings_give_short_lists():
  settings = ListSettings(path='t', lists=1, size=11, top=0, least=6, depth=10)
  index = drawn([1], 0, settings=settings)['list_index'][0, 0]
  assert index.tolist() == [5, *range(20, 28), NO_DOC, NO_DOC]


@pytest.mark.parametrize(
  'changes, expected',
  [
    ({'size': 1}, 'size must be at least 2'),
    ({'top': 5}, 'top must be at least 0 and below 5'),
    ({'least': 11}, 'must hold `least`'),
    ({'refresh_queries': 9}, 'is of refresh_every, which is 0'),
  ],
)
def test_settings_that_do_not_fit(changes, expected):
  settings = {'lists': 2, 'size': 5, 'least': 6, 'depth': 10, **changes}
  with pytest.raises(UserError, match=expected):
    ListSettings(**settings)
