"""Likelihood of written texts, tokens of which may be copied from a source."""

import functools

import jax
import jax.numpy as jnp

# Of a copied share that is 0: its gradient is finite.
_TINY = 1e-30


def token_log_probs(states_RLM, head_MV, targets_RL, parts=1):
  """Log softmax of the scores of a whole vocabulary at given tokens.

  Args:
    states_RLM: decoder states.
    head_MV: output head.
    targets_RL: int32 tokens.
    parts: L is cut into as many, whose scores are made one after the other, and
      again for their gradients; 1 keeps them.

  Returns:
    [R, L] float32 log-probabilities.
  """
  if parts == 1:
    return _log_probs(states_RLM, head_MV, targets_RL)
  rows, length = targets_RL.shape
  padded = -length % parts
  states_RLM = jnp.pad(states_RLM, ((0, 0), (0, padded), (0, 0)))
  targets_RL = jnp.pad(targets_RL, ((0, 0), (0, padded)))
  cut = [
    jnp.moveaxis(x.reshape(rows, parts, -1, *x.shape[2:]), 1, 0)
    for x in (states_RLM, targets_RL)
  ]
  some = jax.checkpoint(functools.partial(_of_part, head_MV))
  _, found = jax.lax.scan(lambda _, part: (None, some(*part)), None, tuple(cut))
  return jnp.moveaxis(found, 0, 1).reshape(rows, -1)[:, :length]


def _of_part(head_MV, states_RlM, targets_Rl):
  return _log_probs(states_RlM, head_MV, targets_Rl)


def _log_probs(states_RLM, head_MV, targets_RL):
  scores_RLV = jnp.einsum(
    'RLM,MV->RLV', states_RLM, head_MV, preferred_element_type=jnp.float32
  )
  chosen_RL1 = jnp.take_along_axis(scores_RLV, targets_RL[..., None], axis=-1)
  return chosen_RL1[..., 0] - jax.nn.logsumexp(scores_RLV, axis=-1)


def mixed_log_probs(written, copied, gates):
  """log(g P_vocab + (1 - g) P_copy), the pointer-generator (arXiv 1704.04368).

  Args:
    written: log P_vocab.
    copied: P_copy, the attention to tokens of the source that are the token.
    gates: log-odds of g, of the same shape, or with a last axis of 1.

  Returns:
    Log-probabilities, of the shape of `written`.
  """
  log_copied = jnp.log(jnp.maximum(copied, _TINY))
  gates = jnp.broadcast_to(gates, written.shape)
  return jnp.logaddexp(
    jax.nn.log_sigmoid(gates) + written, jax.nn.log_sigmoid(-gates) + log_copied
  )


def writing_loss(log_probs_RL, targets_RL):
  """Cross-entropy of texts, a token.

  Args:
    log_probs_RL: of each token.
    targets_RL: int32 tokens, 0 where there is none.

  Returns:
    The mean over tokens in nats, and metrics.
  """
  real_RL = targets_RL > 0
  total = -jnp.sum(log_probs_RL, where=real_RL)
  count = jnp.sum(real_RL)
  loss = total / jnp.maximum(count, 1)
  return loss, {'token_loss': (total, count)}
