import numpy as np

from gr_jax.evaluation.protocol import ask, measure
from gr_jax.evaluation.rankings import Rankings
from gr_jax.types import Judgement, Query


class Echo:
  """Finds the document whose number is the query's text."""

  def __init__(self):
    self.document_ids = [f'd{n}' for n in range(10)]
    self.batches = []

  def search(self, texts, k):
    self.batches.append(list(texts))
    rows_BC = np.array([[int(text)] for text in texts])
    ones = np.ones(len(texts), np.int64)
    return Rankings(rows_BC, np.ones_like(rows_BC), ones, ones)


def test_batches_have_one_size_and_the_warm_up_is_not_timed():
  times = iter([100.0, 102.0])
  system = Echo()
  texts = [str(n) for n in range(10)]
  found, rate = ask(system, texts, 100, 4, lambda: next(times))
  assert found.rows_BC[:, 0].tolist() == list(range(10))
  assert rate == 5.0
  assert [len(batch) for batch in system.batches] == [4, 4, 4, 4]
  assert system.batches[1] == ['0', '1', '2', '3']
  assert system.batches[-1] == ['8', '9', '9', '9']
  assert found.documents_scored_B.shape == (10,)


def test_the_warm_up_holds_the_shortest_and_the_longest_text():
  system = Echo()
  texts = ['3', '03', '000000003', '0003', '3', '3', '00000000000003']
  ask(system, texts, 100, 3)
  assert system.batches[0][0] == '3'
  assert system.batches[0][-1] == '00000000000003'


def test_few_queries_make_one_small_batch():
  system = Echo()
  ask(system, ['3'], 100, 256)
  assert system.batches == [['3'], ['3']]


def test_measure_judges_every_query():
  queries = [Query(f'q{n}', str(n)) for n in range(5)]
  judgements = [Judgement(f'q{n}', f'd{max(n, 1)}', 1) for n in range(5)]
  found = measure('echo', Echo(), queries, judgements, batch=2)
  assert found.scores.values['R@1'].tolist() == [0, 1, 1, 1, 1]
  assert found.queries_per_second > 0
