"""Gumbel-softmax samples of codes, soft or straight-through."""

import jax
import jax.numpy as jnp


def gumbel_softmax(logits_BK, *, temperature, noise, straight_through, rng):
  """A differentiable sample of one code per row.

  softmax((s + noise g) / tau), g ~ Gumbel(0, 1) (Jang et al., arXiv
  1611.01144); straight-through: onehot(argmax y) - sg(y) + y.

  Args:
    logits_BK: scores of the codes.
    temperature: tau, in units of the logits.
    noise: scale of the Gumbel noise, in units of the logits; 0 for none.
    straight_through: whether the forward value is one-hot.
    rng: key of the noise.

  Returns:
    [B, K] samples, rows sum to 1, in float32.
  """
  logits_BK = logits_BK.astype(jnp.float32)
  gumbel_BK = jax.random.gumbel(rng, logits_BK.shape)
  soft_BK = jax.nn.softmax((logits_BK + noise * gumbel_BK) / temperature)
  if not straight_through:
    return soft_BK
  hard_BK = jax.nn.one_hot(jnp.argmax(soft_BK, axis=-1), soft_BK.shape[-1])
  return hard_BK - jax.lax.stop_gradient(soft_BK) + soft_BK
