"""Text: the decoder writes the tokens of one text, given another."""

import functools

import jax
import jax.numpy as jnp


def text_loss(states_BLM, head_MV, targets_BL, z_weight=0.0, parts=4):
  """Cross-entropy of a text's tokens, mean over those that are no padding.

  L = mean_t(log Z_t - s_t,y + z log^2 Z_t) with the scores s = states @ head
  and Z_t = sum_v exp s_t,v. The second term keeps scores from drifting (T5X's
  z-loss, 1e-4 there).

  The scores of all tokens are far larger than all else in a training step, and
  nothing but this loss reads them: they are made for a part of the positions at
  a time, and their gradients with them, before the next part takes their place.

  Args:
    states_BLM: the decoder's last states, scaled as the head wants them.
    head_MV: output head.
    targets_BL: int32 tokens to be written, 0 is padding.
    z_weight: z.
    parts: pieces that the L positions are cut into, one after the other; the
      largest number that divides L and is not above it is taken.

  Returns:
    The mean over tokens in nats, and metrics.
  """
  length = targets_BL.shape[1]
  parts = max(n for n in range(1, max(parts, 1) + 1) if length % n == 0)
  count = jnp.maximum(jnp.sum(targets_BL != 0), 1)
  total, hits = _summed(parts, z_weight, states_BLM, head_MV, targets_BL)
  return total / count, {
    'text': (jax.lax.stop_gradient(total), count),
    'token_accuracy': (hits, count),
  }


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _summed(parts, z_weight, states_BLM, head_MV, targets_BL):
  """Sums over the tokens: of the loss, and of those that score highest."""

  def add(sums, part):
    scores_BLV = _scores(part[0], head_MV)
    loss, hits, _ = _loss_of_scores(scores_BLV, part[1], z_weight)
    return (sums[0] + loss, sums[1] + hits), None

  cut = _cut(states_BLM, parts), _cut(targets_BL, parts)
  return jax.lax.scan(add, _nothing(states_BLM), cut)[0]


def _with_gradients(parts, z_weight, states_BLM, head_MV, targets_BL):
  """The sums, and the gradient of the first by states and head."""
  total, nobody = _nothing(states_BLM)

  def add(sums, part):
    some_BLM, those_BL = part
    scores_BLV = _scores(some_BLM, head_MV)
    loss, hits, slopes_BLV = _loss_of_scores(scores_BLV, those_BL, z_weight)
    slopes_BLV = slopes_BLV.astype(some_BLM.dtype)
    by_some_BLM = jnp.einsum('BLV,MV->BLM', slopes_BLV, head_MV)
    by_head_MV = jnp.einsum(
      'BLM,BLV->MV', some_BLM, slopes_BLV, preferred_element_type=total.dtype
    )
    sums = sums[0] + loss, sums[1] + hits, sums[2] + by_head_MV
    return sums, by_some_BLM.astype(some_BLM.dtype)

  nothing = total, nobody, jnp.zeros(head_MV.shape, total.dtype)
  cut = _cut(states_BLM, parts), _cut(targets_BL, parts)
  (loss, hits, by_head_MV), by_states = jax.lax.scan(add, nothing, cut)
  by_states_BLM = jnp.moveaxis(by_states, 0, 1).reshape(states_BLM.shape)
  return (loss, hits), (by_states_BLM, by_head_MV.astype(head_MV.dtype))


def _scaled(parts, z_weight, gradients, outer):
  """The gradients times that of the sum; targets have none."""
  by_states_BLM, by_head_MV = gradients
  slope = outer[0]
  return (
    (by_states_BLM * slope).astype(by_states_BLM.dtype),
    (by_head_MV * slope).astype(by_head_MV.dtype),
    None,
  )


_summed.defvjp(_with_gradients, _scaled)


def _cut(array_BL, parts):
  """[parts, B, L / parts, ...]: consecutive positions, all rows in each."""
  batch, length, *rest = array_BL.shape
  return jnp.moveaxis(
    array_BL.reshape(batch, parts, length // parts, *rest), 1, 0
  )


def _nothing(states):
  """Sums to begin with: of the loss, at least float32, and of the hits."""
  return jnp.zeros((), _exact(states)), jnp.int32(0)


def _exact(states):
  """The dtype of scores and sums."""
  return jnp.promote_types(states.dtype, jnp.float32)


def _scores(some_BLM, head_MV):
  """[B, L, V] scores of all tokens, at least float32."""
  return jnp.einsum(
    'BLM,MV->BLV', some_BLM, head_MV, preferred_element_type=_exact(some_BLM)
  )


def _loss_of_scores(scores_BLV, those_BL, z_weight):
  """Sum of the loss, sum of the hits, and [B, L, V] slopes of the loss."""
  real_BL = those_BL != 0
  best_BL = jnp.max(scores_BLV, axis=-1)
  powers_BLV = jnp.exp(scores_BLV - best_BL[..., None])
  sums_BL = jnp.sum(powers_BLV, axis=-1)
  log_sums_BL = jnp.log(sums_BL) + best_BL
  wanted_BL1 = jnp.take_along_axis(scores_BLV, those_BL[..., None], axis=-1)
  wanted_BL = wanted_BL1[..., 0]
  loss_BL = log_sums_BL - wanted_BL + z_weight * log_sums_BL**2
  share_BL = real_BL * (1 + 2 * z_weight * log_sums_BL) / sums_BL
  tokens_V = jnp.arange(scores_BLV.shape[-1])
  slopes_BLV = powers_BLV * share_BL[..., None] - jnp.where(
    those_BL[..., None] == tokens_V[None, None], real_BL[..., None], False
  )
  # A score level with the best counts as it: no second search for its place.
  hits_BL = (wanted_BL >= best_BL) & real_BL
  return jnp.sum(loss_BL * real_BL), jnp.sum(hits_BL), slopes_BLV
