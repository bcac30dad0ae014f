"""Pairs of a list by a logistic loss: RankNet, and LambdaRank's weights."""

import jax
import jax.numpy as jnp


def ranknet_loss(scores_BM, pairs_BMM):
  """RankNet (Burges et al. 2005): log(1 + exp(s_j - s_i)) where i is above j.

  Args:
    scores_BM: the student's scores of lists in the teacher's order.
    pairs_BMM: bool, the pairs i < j that count.

  Returns:
    The mean over the pairs of a list and over the lists, in nats, and metrics.
  """
  return _mean_of_pairs(_logistic(scores_BM), pairs_BMM, 'ranknet')


def lambda_loss(scores_BM, pairs_BMM):
  """RankNet's pairs weighed by what their exchange does to nDCG.

  LambdaRank in the frame of LambdaLoss (Wang et al. 2018, the metric-driven
  weights |G_i - G_j| |1 / D_i - 1 / D_j|): D is 1 / log2(place + 1) of the
  student's present ranking. A teacher's list has no grades: the gain of a
  document is here that of its place, 1 / log2(place + 1) (our choice).

  Args:
    scores_BM: as `ranknet_loss` takes them.
    pairs_BMM: the same.

  Returns:
    The weighed sum over the pairs of a list, the mean over the lists, in nats,
    and metrics.
  """
  counted_BM = jnp.any(pairs_BMM, axis=1) | jnp.any(pairs_BMM, axis=2)
  shown_BM = jnp.where(counted_BM, jax.lax.stop_gradient(scores_BM), -jnp.inf)
  order_BM = jnp.argsort(-shown_BM, axis=-1)
  places_BM = jnp.argsort(order_BM, axis=-1)
  discount_BM = 1 / jnp.log2(places_BM + 2.0)
  gains_M = 1 / jnp.log2(jnp.arange(scores_BM.shape[-1]) + 2.0)
  apart_BMM = jnp.abs(discount_BM[:, :, None] - discount_BM[:, None, :])
  ideal_B = jnp.sum(gains_M[None] ** 2, axis=-1, where=counted_BM)
  gaps_MM = jnp.abs(gains_M[:, None] - gains_M[None, :])
  weights_BMM = apart_BMM * gaps_MM[None]
  losses_BMM = weights_BMM * _logistic(scores_BM)
  total_B = jnp.sum(losses_BMM, axis=(1, 2), where=pairs_BMM)
  loss_B = total_B / jnp.maximum(ideal_B, 1.0)
  return jnp.mean(loss_B), {'lambda': (jnp.sum(loss_B), loss_B.size)}


def _logistic(scores_BM):
  """[B, M, M] -log P(i above j)."""
  return jax.nn.softplus(scores_BM[:, None, :] - scores_BM[:, :, None])


def _mean_of_pairs(losses_BMM, pairs_BMM, name):
  total_B = jnp.sum(losses_BMM, axis=(1, 2), where=pairs_BMM)
  loss_B = total_B / jnp.maximum(jnp.sum(pairs_BMM, axis=(1, 2)), 1)
  return jnp.mean(loss_B), {name: (jnp.sum(loss_B), loss_B.size)}
