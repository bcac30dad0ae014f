"""Margins of student and teacher made equal, also those of prefixes."""

import jax.numpy as jnp


def margin_mse_loss(scores_BM, teacher_BM, pairs_BMM):
  """MarginMSE (Hofstaetter et al. 2020, arXiv 2010.02666).

  ((s_0 - s_j) - (t_0 - t_j))^2 of the positive and each other document.

  Args:
    scores_BM: the student's scores of lists, the positive first.
    teacher_BM: the teacher's, in units of the student's.
    pairs_BMM: bool, the pairs i < j that count.

  Returns:
    The mean over the pairs of a list and over the lists, and metrics.
  """
  difference_BM = _margins(scores_BM) - _margins(teacher_BM)
  return _mean(difference_BM**2, pairs_BMM[:, 0], 'margin_mse')


def prefix_margin_mse_loss(scores_BML, teacher_BM, pairs_BMM, bend):
  """The same for every prefix of the identifiers (RIPOR, arXiv 2311.09134).

  mean_t ((S^t(d_0) - S^t(d_j)) - alpha_t (t_0 - t_j))^2 with S^t the sum of the
  first t scores. alpha_t rises to 1 and is concave, as RIPOR has it; its form
  (1 - b / t) / (1 - b / L) with b < 1 is our reconstruction.

  Args:
    scores_BML: the student's scores of each code, the positive first.
    teacher_BM: as `margin_mse_loss` takes it.
    pairs_BMM: the same.
    bend: b, from 0 (all prefixes alike) to below 1.

  Returns:
    The mean over prefixes, pairs and lists, and metrics.
  """
  length = scores_BML.shape[-1]
  prefixes = 1 + jnp.arange(length)
  alpha_L = (1 - bend / prefixes) / (1 - bend / length)
  wanted_BML = _margins(teacher_BM)[..., None] * alpha_L[None, None]
  found_BML = _margins(jnp.cumsum(scores_BML, axis=-1))
  squares_BM = jnp.mean((found_BML - wanted_BML) ** 2, axis=-1)
  return _mean(squares_BM, pairs_BMM[:, 0], 'prefix_margin_mse')


def _margins(scores):
  """s_0 - s_j of each list."""
  return scores[:, :1] - scores


def _mean(losses_BM, counted_BM, name):
  total_B = jnp.sum(losses_BM, axis=-1, where=counted_BM)
  loss_B = total_B / jnp.maximum(jnp.sum(counted_BM, axis=-1), 1)
  return jnp.mean(loss_B), {name: (jnp.sum(loss_B), loss_B.size)}
