"""Sinkhorn's assignment: an equal share of the batch for every code."""

import jax
import jax.numpy as jnp

from gr_jax.precision import widened


def sinkhorn(scores_BK, scale, iterations):
  """Assignments of which every code gets an equal share of the batch.

  Diag(u) exp(S' / epsilon) Diag(v) with rows that sum to 1 and columns that sum
  to B / K, by alternate scaling in log space; S' is the scores moved to
  [-1, 1] (RepCONC, arXiv 2110.05789; GenRet, arXiv 2304.04171). Over all
  devices, since the batch is.

  Args:
    scores_BK: higher is nearer; absent codes have interface.ABSENT.
    scale: epsilon.
    iterations: of both scalings.

  Returns:
    [B, K] assignments without gradient; absent codes have 0.
  """
  scores_BK = jax.lax.stop_gradient(widened(scores_BK))
  present_K = jnp.max(scores_BK, axis=0) > -1e8
  inside_BK = jnp.broadcast_to(present_K[None, :], scores_BK.shape)
  high = jnp.max(scores_BK, where=inside_BK, initial=-jnp.inf)
  low = jnp.min(scores_BK, where=inside_BK, initial=jnp.inf)
  half = jnp.maximum((high - low) / 2, 1e-9)
  centred_BK = jnp.where(inside_BK, (scores_BK - (high + low) / 2) / half, 0.0)
  log_BK = jnp.where(inside_BK, centred_BK / scale, -jnp.inf)
  share = jnp.log(scores_BK.shape[0] / jnp.sum(present_K))

  def step(log_BK, _):
    columns_K = jax.nn.logsumexp(log_BK, axis=0)
    log_BK = log_BK + jnp.where(present_K, share - columns_K, 0.0)[None, :]
    return log_BK - jax.nn.logsumexp(log_BK, axis=1, keepdims=True), None

  log_BK, _ = jax.lax.scan(step, log_BK, length=iterations)
  return jnp.exp(log_BK)
