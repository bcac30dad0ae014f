import types

import numpy as np
import pytest

from gr_jax.evaluation.generative import Generative
from gr_jax.evaluation.protocol import measure
from gr_jax.retrieval.found import SearchBatch
from gr_jax.types import NO_DOC, Judgement, Query

FLOOR = np.float32(-1e30)


def fake_searcher(documents):
  """Answers query 'n' with documents n and n + 1, the others unscored."""

  def search_batch(texts, k):
    documents_BC = np.full((len(texts), k), NO_DOC)
    scores_BC = np.full((len(texts), k), FLOOR)
    for query, text in enumerate(texts):
      documents_BC[query, :2] = int(text), int(text) + 1
      scores_BC[query, :2] = 2.0, 1.0
    return SearchBatch(
      documents_BC,
      scores_BC,
      scores_BC,
      scores_BC,
      np.zeros_like(documents_BC),
      np.full(len(texts), 2),
      np.full(len(texts), 640),
    )

  ids = tuple(f'd{n}' for n in range(documents))
  return types.SimpleNamespace(document_ids=ids, search_batch=search_batch)


def test_a_searcher_is_judged_on_documents_with_its_costs():
  queries = [Query(f'q{n}', str(n)) for n in range(7)]
  # The odd ones are found at the second place.
  judgements = [Judgement(f'q{n}', f'd{n + n % 2}', 1) for n in range(7)]
  system = Generative(fake_searcher(10))
  found = measure('gr_jax', system, queries, judgements, batch=3)
  means = found.scores.means()
  assert means['R@1'] == pytest.approx(4 / 7)
  assert means['R@10'] == 1
  assert means['RR@10'] == pytest.approx((4 + 3 / 2) / 7)
  assert found.rankings.documents_scored_B.tolist() == [2] * 7
  assert found.rankings.code_scores_B.tolist() == [640] * 7
