"""Queries apart by whether training saw their relevant documents."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gr_jax.index.index import Index
from gr_jax.types import Judgement

SEEN, NEW, MIXED = 'seen', 'new', 'mixed'


def query_groups(
  index: Index, judgements: Iterable[Judgement], query_ids: Sequence[str]
) -> Mapping[str, np.ndarray]:
  """Which queries ask for documents that training saw, or that came later.

  A query with relevant documents of both kinds is in neither of the two: it is
  'mixed', a group of its own, and counts like every other one in the rows over
  all queries.

  Args:
    index: says which documents are new.
    judgements: of the split.
    query_ids: B queries, each with a relevant document.

  Returns:
    [B] bool for each group that has a query; no group at all when the index
    holds no new document.
  """
  if not np.any(index.new_N):
    return {}
  is_new = dict(zip(index.document_ids, index.new_N.tolist(), strict=True))
  kinds: dict[str, set[bool]] = {}
  for judgement in judgements:
    if judgement.relevance > 0:
      of_query = kinds.setdefault(judgement.query_id, set())
      of_query.add(is_new[judgement.document_id])
  groups = {
    name: np.array([kinds[query_id] == wanted for query_id in query_ids])
    for name, wanted in (
      (SEEN, {False}), (NEW, {True}), (MIXED, {False, True}),
    )
  }  # fmt: skip
  return {name: mask_B for name, mask_B in groups.items() if mask_B.any()}
