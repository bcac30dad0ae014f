"""Margins between the documents of a list: DGR's loss, and LTRGR's."""

import jax.numpy as jnp

# Of the pairs with the positive, the first row of a list (DGR's code).
_FIRST_ROW = 3.0


def margin_rank_loss(scores_BM, pairs_BMM, base_margin, margin_gap):
  """DGR's distilled RankNet (arXiv 2402.10769), as its published code has it.

  h_ij = max(0, s_j - s_i + m_base + (j - i - 1) m_gap) for i < j, weighed by
  w_0 = 3 and w_i = 1 / (i + 1); the mean over the pairs with w_i h_ij > 0 of
  each list, and over the lists.

  Args:
    scores_BM: the student's scores of lists in the teacher's order, the
      positive first.
    pairs_BMM: bool, the pairs i < j that count, from `ranked_pairs`.
    base_margin: m_base, between neighbours in a list, in units of the scores.
    margin_gap: m_gap, what each further place adds.

  Returns:
    The loss and metrics; a list without an active pair gives 0.
  """
  places = jnp.arange(scores_BM.shape[-1])
  distance_MM = places[None, :] - places[:, None]
  margin_MM = base_margin + (distance_MM - 1) * margin_gap
  weights_M1 = jnp.where(places == 0, _FIRST_ROW, 1 / (places + 1))[:, None]
  losses_BMM = weights_M1[None] * _hinges(scores_BM, margin_MM)
  return _mean_of_active(losses_BMM, pairs_BMM, 'margin_rank')


def ltrgr_loss(scores_BM, pairs_BMM, base_margin):
  """LTRGR's margin loss (arXiv 2306.15222): the positive above each other one.

  max(0, s_j - s_0 + m), the mean over the active pairs of a list as above; it
  asks no teacher.

  Args:
    scores_BM: as `margin_rank_loss` takes them.
    pairs_BMM: the same.
    base_margin: m.

  Returns:
    The loss and metrics.
  """
  places = jnp.arange(scores_BM.shape[-1])
  first_BMM = pairs_BMM & (places == 0)[None, :, None]
  losses_BMM = _hinges(scores_BM, jnp.full((1, 1), base_margin))
  return _mean_of_active(losses_BMM, first_BMM, 'ltrgr')


def ranked_pairs(real_BM, same_BMM):
  """[B, M, M] bool: the pairs i < j of a list whose scores can differ.

  Args:
    real_BM: which places hold a document.
    same_BMM: which places have one score whatever the student learns.
  """
  places = jnp.arange(real_BM.shape[-1])
  later_MM = places[:, None] < places[None, :]
  real_BMM = real_BM[:, :, None] & real_BM[:, None, :]
  return later_MM[None] & real_BMM & ~same_BMM


def _hinges(scores_BM, margin_MM):
  """[B, M, M] max(0, s_j - s_i + margin)."""
  ahead_BMM = scores_BM[:, None, :] - scores_BM[:, :, None]
  return jnp.maximum(ahead_BMM + margin_MM[None], 0.0)


def _mean_of_active(losses_BMM, pairs_BMM, name):
  active_BMM = pairs_BMM & (losses_BMM > 0)
  total_B = jnp.sum(losses_BMM, axis=(1, 2), where=active_BMM)
  loss_B = total_B / jnp.maximum(jnp.sum(active_BMM, axis=(1, 2)), 1)
  return jnp.mean(loss_B), {name: (jnp.sum(loss_B), loss_B.size)}
