"""Codes drawn from scores: Gumbel-softmax, its gradients, its noise."""

import dataclasses

import jax
import jax.numpy as jnp

from gr_jax.indexers import interface
from gr_jax.indexers.rotation import rotated
from gr_jax.indexers.sinkhorn import sinkhorn
from gr_jax.types import check_option

GRADIENTS = ('straight_through', 'soft', 'rotation')
NOISES = ('schedule', 'frequency', 'uncertainty')
BALANCES = ('none', 'sinkhorn')


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """How codes are drawn while training; the index takes the best code always.

  Temperature and noise are in units of the spread of a position's scores:
  those of the last positions differ by a fraction of what those of the first
  do, and one scale for all would make the last codes random.

  Attributes:
    gradient: 'straight_through' (one-hot samples in the forward pass),
      'soft' (soft samples) or 'rotation' (one-hot; what the codeword passes
      back is rotated onto the vector, arXiv 2410.06424).
    noise: scale of the Gumbel noise: 'schedule' (TrainingSettings.noise for
      all codes), 'frequency' (the same, but only for codes whose share of use
      exceeds `frequent` / K, DIGER's FrqUD, arXiv 2601.19711) or 'uncertainty'
      (|s| times the temperature, with a learned s that falls with the
      generation loss, DIGER's SDUD; TrainingSettings.noise is not read).
    frequent: of 'frequency', in units of uniform use.
    uncertain: of 'uncertainty', where s starts.
    balance: 'none', or 'sinkhorn' for an equal share of the global batch for
      every code (RepCONC, arXiv 2110.05789).
    sinkhorn_scale: epsilon of 'sinkhorn', on scores centred to [-1, 1].
    sinkhorn_iterations: of its row and column scalings.
  """

  gradient: str = 'straight_through'
  noise: str = 'schedule'
  frequent: float = 1.5
  uncertain: float = 1.0
  balance: str = 'none'
  sinkhorn_scale: float = 0.01
  sinkhorn_iterations: int = 50

  def __post_init__(self):
    check_option('SamplingConfig.gradient', self.gradient, GRADIENTS)
    check_option('SamplingConfig.noise', self.noise, NOISES)
    check_option('SamplingConfig.balance', self.balance, BALANCES)


def sample_codes(logits_BK, config, *, temperature, noise, usage_K, rng):
  """A differentiable sample of one code per row.

  softmax((s + noise g) / tau), g ~ Gumbel(0, 1) (Jang et al., arXiv
  1611.01144); one-hot as onehot(z) - sg(y) + y.

  Args:
    logits_BK: scores of the codes.
    config: SamplingConfig.
    temperature: tau, in units of the spread of the logits.
    noise: scale of the Gumbel noise, in the same units; 0 for none.
    usage_K: recent share of use of each code.
    rng: key of the noise.

  Returns:
    [B, K] probabilities without noise and [B, K] samples, in float32; rows of
    both sum to 1.
  """
  present_BK = logits_BK > interface.ABSENT / 2
  scale = spread(logits_BK, present_BK)
  logits_BK = jnp.where(present_BK, logits_BK / scale, interface.ABSENT)
  gumbel_BK = jax.random.gumbel(rng, logits_BK.shape, logits_BK.dtype)
  if config.noise == 'frequency':
    frequent_K = usage_K * jnp.sum(present_BK[0]) > config.frequent
    gumbel_BK = jnp.where(frequent_K[None, :], gumbel_BK, 0.0)
  probs_BK = jax.nn.softmax(logits_BK / temperature)
  soft_BK = jax.nn.softmax((logits_BK + noise * gumbel_BK) / temperature)
  if config.gradient == 'soft':
    return probs_BK, soft_BK
  choice_BK = soft_BK
  if config.balance == 'sinkhorn':
    choice_BK = sinkhorn(
      logits_BK, config.sinkhorn_scale, config.sinkhorn_iterations
    )
  hard_BK = jax.nn.one_hot(jnp.argmax(choice_BK, axis=-1), soft_BK.shape[-1])
  return probs_BK, hard_BK - jax.lax.stop_gradient(soft_BK) + soft_BK


def spread(logits_BK, present_BK):
  """The standard deviation over codes of scores, its mean over the batch.

  Without gradient.

  Args:
    logits_BK: scores of the codes.
    present_BK: which of them a position has.
  """
  deviation_B = jnp.std(logits_BK, axis=-1, where=present_BK)
  return jax.lax.stop_gradient(jnp.maximum(jnp.mean(deviation_B), 1e-9))


def chosen_codewords(sample_BK, codebook_KX, coded_BX, config):
  """[B, X] y E, what the samples stand for.

  Args:
    sample_BK: from `sample_codes`.
    codebook_KX: codewords.
    coded_BX: what was coded; the rotation trick turns gradients onto it.
    config: SamplingConfig.
  """
  if config.gradient == 'rotation':
    return rotated(coded_BX, codebook_KX[jnp.argmax(sample_BK, axis=-1)])
  return jnp.matmul(sample_BK, codebook_KX, precision=jax.lax.Precision.HIGHEST)
