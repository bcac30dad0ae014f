"""Divides the judged queries of a collection anew, to ask one thing of a model.

What a division gives are judgements by split; the texts of queries and
documents stay.
"""

import random
from collections.abc import Mapping, Sequence

import numpy as np

from gr_jax.evaluation.query_vectors import clusters
from gr_jax.types import Judgement, UserError

TRAIN, TEST = 'train', 'test'
INTERPOLATION, EXTRAPOLATION = 'interpolation', 'extrapolation'

Judgements = Mapping[str, Sequence[Judgement]]


def withheld_documents(
  splits: Judgements, share: float, seed: int
) -> dict[str, list[Judgement]]:
  """Training without the labels of some documents; the others judge them alone.

  Of documents that are judged relevant to a query of any split a share is
  drawn. No training label leads to these; dev and test keep the queries that
  ask for nothing else.

  Args:
    splits: judgements by split.
    share: of the documents, above 0 and below 1.
    seed: of the draw.

  Returns:
    Judgements by split.

  Raises:
    UserError: the share is none of the documents, or all.
  """
  judged = sorted(
    {
      judgement.document_id
      for judgements in splits.values()
      for judgement in judgements
      if judgement.relevance > 0
    }
  )
  count = round(share * len(judged))
  if not 0 < count < len(judged):
    raise UserError(
      f'a share of {share} withholds {count} of the {len(judged)} documents '
      'that are judged: give one that leaves some to both sides'
    )
  withheld = set(random.Random(seed).sample(judged, count))
  divided = {}
  for split, judgements in splits.items():
    inside = {j.query_id for j in judgements if _asks(j, withheld, True)}
    outside = {j.query_id for j in judgements if _asks(j, withheld, False)}
    if split == TRAIN:
      kept = [j for j in judgements if j.document_id not in withheld]
      divided[split] = [j for j in kept if j.query_id in outside]
    else:
      only = inside - outside
      divided[split] = [j for j in judgements if j.query_id in only]
  return divided


def held_out_queries(
  splits: Judgements, count: int, seed: int
) -> list[dict[str, list[Judgement]]]:
  """Folds of a cross-validation, for collections whose test has few queries.

  The training queries are put into parts at random, as equal as may be. A
  fold's test is one of them, its train all others; its dev is the collection's,
  whose test is in none.

  Args:
    splits: judgements by split.
    count: folds.
    seed: of the draw.

  Returns:
    For each fold the judgements by split.

  Raises:
    UserError: fewer training queries than folds.
  """
  judgements = splits.get(TRAIN, ())
  ids = sorted({judgement.query_id for judgement in judgements})
  if count > len(ids):
    raise UserError(
      'expected at least as many training queries as folds, got '
      f'{count} folds of {len(ids)} queries'
    )
  random.Random(seed).shuffle(ids)
  found = []
  for fold in range(count):
    held = set(ids[fold::count])
    found.append(
      {
        **splits,
        TRAIN: [j for j in judgements if j.query_id not in held],
        TEST: [j for j in judgements if j.query_id in held],
      }
    )
  return found


def _asks(judgement: Judgement, withheld: set[str], inside: bool) -> bool:
  """Whether a query asks for a document that is withheld, or is not."""
  there = judgement.document_id in withheld
  return judgement.relevance > 0 and there == inside


def folds(
  splits: Judgements,
  query_ids: Sequence[str],
  vectors_BD: np.ndarray,
  count: int,
  kind: str,
  seed: int,
) -> list[dict[str, list[Judgement]]]:
  """Near and far queries, after Zhan et al. (arXiv 2204.11447).

  All judged queries are put into clusters, of which each is a fold. A fold's
  dev and test queries are those that lie in its cluster. For extrapolation the
  training queries are those of all other clusters; for interpolation as many
  training queries, drawn from all clusters. How clusters become folds is our
  reconstruction.

  Args:
    splits: judgements by split.
    query_ids: B queries.
    vectors_BD: unit vectors of the queries.
    count: folds.
    kind: INTERPOLATION or EXTRAPOLATION.
    seed: of clusters and draws.

  Returns:
    For each fold the judgements by split.
  """
  if count > len(query_ids):
    raise UserError(
      'expected at least as many judged queries as folds, got '
      f'{count} folds of {len(query_ids)} queries'
    )
  of_query = dict(
    zip(query_ids, clusters(vectors_BD, count, seed).tolist(), strict=True)
  )
  found = []
  for fold in range(count):
    divided = {}
    for split, judgements in splits.items():
      inside = [j for j in judgements if of_query[j.query_id] == fold]
      divided[split] = inside
      if split == TRAIN:
        ids = sorted({j.query_id for j in judgements})
        kept = {name for name in ids if of_query[name] != fold}
        if kind == INTERPOLATION:
          draw = random.Random(f'{seed} {fold}')
          kept = set(draw.sample(ids, len(kept)))
        divided[split] = [j for j in judgements if j.query_id in kept]
    found.append(divided)
  return found


def some_documents(
  splits: Judgements, document_ids: Sequence[str], count: int, seed: int
) -> tuple[set[str], dict[str, list[Judgement]]]:
  """A small corpus: documents that test asks for, then dev, then any.

  Args:
    splits: judgements by split.
    document_ids: of the corpus.
    count: documents to keep.
    seed: of the draws.

  Returns:
    The ids that are kept, and their judgements by split; of queries none of
    whose relevant documents are kept there is none.
  """
  if count > len(document_ids):
    raise UserError(
      f'expected at most the {len(document_ids):,} documents of the corpus, '
      f'got {count:,}'
    )
  draw = random.Random(seed)
  kept: dict[str, None] = {}
  for split in sorted(splits, key=_importance):
    wanted = sorted({j.document_id for j in splits[split] if j.relevance > 0})
    draw.shuffle(wanted)
    # What is trained on is drawn like any other document.
    kept.update(dict.fromkeys(wanted if split != TRAIN else ()))
  others = [name for name in document_ids if name not in kept]
  draw.shuffle(others)
  ids = set([*kept, *others][:count])
  divided = {}
  for split, judgements in splits.items():
    there = [j for j in judgements if j.document_id in ids]
    asking = {j.query_id for j in there if j.relevance > 0}
    divided[split] = [j for j in there if j.query_id in asking]
  return ids, divided


def _importance(split: str) -> tuple[int, str]:
  order = ('test', 'dev')
  return (order.index(split) if split in order else len(order), split)
