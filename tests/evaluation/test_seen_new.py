import dataclasses

import numpy as np
from test_judging import index_of

from gr_jax.evaluation.seen_new import query_groups
from gr_jax.types import Judgement

JUDGEMENTS = [
  Judgement('q1', 'old', 1),
  Judgement('q1', 'new', 0),
  Judgement('q2', 'new', 2),
  Judgement('q3', 'new', 1),
  Judgement('q3', 'older', 1),
  Judgement('q4', 'old', 1),
]
QUERIES = ('q4', 'q3', 'q2', 'q1')


def index(*new):
  whole = index_of(['old', 'new', 'older'])
  return dataclasses.replace(whole, new_N=np.array(new))


def test_queries_are_grouped_by_what_is_relevant_to_them():
  groups = query_groups(index(False, True, False), JUDGEMENTS, QUERIES)
  found = {name: mask_B.tolist() for name, mask_B in groups.items()}
  assert found == {
    'seen': [True, False, False, True],
    'new': [False, False, True, False],
    'mixed': [False, True, False, False],
  }
  assert sum(mask_B.astype(int) for mask_B in groups.values()).tolist() == [
    1, 1, 1, 1,
  ]  # fmt: skip


def test_groups_without_a_query_and_indexes_without_new_documents_have_none():
  groups = query_groups(index(False, True, False), JUDGEMENTS[:1], ['q1'])
  assert list(groups) == ['seen']
  assert query_groups(index(False, False, False), JUDGEMENTS, QUERIES) == {}
