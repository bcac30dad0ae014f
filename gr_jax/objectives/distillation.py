"""Distillation: a teacher's ranking of documents, by one of several losses."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from gr_jax.objectives.listwise import kl_loss, listnet_loss
from gr_jax.objectives.margin_mse import margin_mse_loss, prefix_margin_mse_loss
from gr_jax.objectives.margin_rank import (
  ltrgr_loss,
  margin_rank_loss,
  ranked_pairs,
)
from gr_jax.objectives.pairwise import lambda_loss, ranknet_loss
from gr_jax.types import UserError, check_option, check_range

LOSSES = (
  'margin_rank',
  'ltrgr',
  'ranknet',
  'lambda',
  'kl',
  'listnet',
  'margin_mse',
  'prefix_margin_mse',
)


@dataclasses.dataclass(frozen=True)
class DistillationSettings:
  """How the student's scores of a list follow the teacher's ranking.

  Attributes:
    loss: 'margin_rank' (DGR), 'ltrgr', 'ranknet', 'lambda', 'kl', 'listnet',
      'margin_mse' or 'prefix_margin_mse' (RIPOR).
    base_margin: m_base of 'margin_rank' and the margin of 'ltrgr', in units of
      the identifier's score.
    margin_gap: m_gap of 'margin_rank', what each further place in the list
      adds. (DGR: 300 and 100 for scores in the hundreds.)
    teacher_scale: what the teacher's scores are multiplied with before 'kl',
      'margin_mse' and 'prefix_margin_mse' compare them with the student's, and
      how far 'listnet', which reads the order alone, sets a document before the
      next; above 0.
    prefix_bend: b of 'prefix_margin_mse'.
    dense_weight: of the dense score, added to the identifier's, in what follows
      the teacher; 0 for the identifier's alone, and in 'prefix_margin_mse'.
      Searching fuses them by SearchSettings.
    still_hard: whether a list counts only while its positive does not lead all
      others by the base margin (DGR's filter).
  """

  loss: str = 'margin_rank'
  base_margin: float = 1.5
  margin_gap: float = 0.5
  teacher_scale: float = 1.0
  prefix_bend: float = 0.5
  dense_weight: float = 0.0
  still_hard: bool = False

  def __post_init__(self):
    check_option('DistillationSettings.loss', self.loss, LOSSES)
    check_range(
      self,
      {
        'base_margin': (0, jnp.inf),
        'margin_gap': (0, jnp.inf),
        'teacher_scale': (1e-9, jnp.inf),
        'prefix_bend': (0, 0.99),
        'dense_weight': (0, jnp.inf),
      },
    )
    if self.loss == 'prefix_margin_mse' and self.dense_weight:
      raise UserError(
        'DistillationSettings.loss prefix_margin_mse reads scores of prefixes, '
        f'which have no dense part: dense_weight must be 0, got '
        f'{self.dense_weight}; margin_mse reads it'
      )


@flax.struct.dataclass
class RankedLists:
  """Lists of documents in a teacher's order, as the student scores them.

  Attributes:
    scores_BML: the student's score of each code of each document.
    codes_BML: int32 identifiers of the documents.
    teacher_BM: float32 scores of the teacher, falling; the positive's may be
      lower than others'. Pairs of equal ones count in no loss of pairs.
    real_BM: bool, which places hold a document.
    dense_BM: dense scores of the documents, None without.
    teaching: how the ranking is followed.
  """

  scores_BML: jax.Array
  codes_BML: jax.Array
  teacher_BM: jax.Array
  real_BM: jax.Array
  dense_BM: jax.Array | None = None
  teaching: DistillationSettings = flax.struct.field(
    pytree_node=False, default=DistillationSettings()
  )


def distillation_loss(lists):
  """The loss of lists that their settings name.

  Documents of one identifier have one score unless the dense one is added.
  Without it none of them is put before another: no pair of them counts, the
  positive's do not keep a list hard, and in 'kl' and 'listnet' the first in
  the list stands for all, which is the positive or the teacher's best.

  Args:
    lists: RankedLists, the positive of each first.

  Returns:
    The loss, and metrics: it, and how often the student puts the positive
    before all that can stand after it ('list_accuracy').
  """
  settings, scores_BML = lists.teaching, lists.scores_BML
  scores_BM = jnp.sum(scores_BML, axis=-1)
  if settings.dense_weight:
    scores_BM += settings.dense_weight * lists.dense_BM
  same_BMM = _same_score(lists)
  others_BM = lists.real_BM[:, 1:] & ~same_BMM[:, 0, 1:]
  best_B = jnp.max(scores_BM[:, 1:], axis=-1, where=others_BM, initial=-jnp.inf)
  counted_B = lists.real_BM[:, 0] & jnp.any(others_BM, axis=-1)
  first = jnp.sum((scores_BM[:, 0] > best_B) & counted_B)
  metrics = {'list_accuracy': (first, jnp.maximum(jnp.sum(counted_B), 1))}
  if settings.still_hard:
    counted_B &= scores_BM[:, 0] < best_B + settings.base_margin
  real_BM = lists.real_BM & counted_B[:, None]
  pairs_BMM = ranked_pairs(real_BM, same_BMM)
  pairs_BMM &= _ordered(lists.teacher_BM)
  once_BM = real_BM & ~_repeated(real_BM, same_BMM)
  teacher_BM = settings.teacher_scale * lists.teacher_BM
  margins = settings.base_margin, settings.margin_gap
  losses = {
    'margin_rank': lambda: margin_rank_loss(scores_BM, pairs_BMM, *margins),
    'ltrgr': lambda: ltrgr_loss(scores_BM, pairs_BMM, settings.base_margin),
    'ranknet': lambda: ranknet_loss(scores_BM, pairs_BMM),
    'lambda': lambda: lambda_loss(scores_BM, pairs_BMM),
    'kl': lambda: kl_loss(scores_BM, teacher_BM, once_BM),
    'listnet': lambda: listnet_loss(scores_BM, once_BM, settings.teacher_scale),
    'margin_mse': lambda: margin_mse_loss(scores_BM, teacher_BM, pairs_BMM),
    'prefix_margin_mse': lambda: prefix_margin_mse_loss(
      scores_BML, teacher_BM, pairs_BMM, settings.prefix_bend
    ),
  }
  loss, measured = losses[settings.loss]()
  return loss, metrics | measured


def _same_score(lists):
  """[B, M, M] bool: documents of one identifier, where that is all they have.

  The dense score tells them apart.
  """
  codes_BML = lists.codes_BML
  if lists.teaching.dense_weight:
    return jnp.zeros((*codes_BML.shape[:2], codes_BML.shape[1]), bool)
  return jnp.all(codes_BML[:, :, None] == codes_BML[:, None], axis=-1)


def _repeated(real_BM, same_BMM):
  """[B, M] bool: places whose score an earlier document of the list has."""
  return jnp.any(ranked_pairs(real_BM, ~same_BMM), axis=1)


def _ordered(teacher_BM):
  """[B, M, M] bool: the positive before all, others where scores differ.

  Equal ones stand in the order of the corpus, which says nothing.
  """
  first_M = jnp.arange(teacher_BM.shape[-1]) == 0
  higher_BMM = teacher_BM[:, :, None] > teacher_BM[:, None]
  return higher_BMM | first_M[None, :, None]
