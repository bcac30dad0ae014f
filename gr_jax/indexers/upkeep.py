"""Codebooks kept up without gradients: moving averages, dead codes reseeded."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.indexers.usage import uniform_share
from gr_jax.precision import widened
from gr_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class UpkeepConfig:
  """What happens to codebooks besides their gradient steps.

  Attributes:
    average: decay of the moving average of what each code was given, which
      then replaces the codebooks' gradient steps (VQ-VAE's EMA, arXiv
      1711.00937, appendix A.1); 0 for none.
    reseed_every: steps between rescues of dead codes, which take a recent
      vector's place; 0 for none.
    dead: share of use, in units of uniform use, below which a code is dead.
  """

  average: float = 0.0
  reseed_every: int = 0
  dead: float = 0.05

  @property
  def active(self):
    """Whether there is anything to do."""
    return bool(self.average or self.reseed_every)

  def __post_init__(self):
    if not 0 <= self.average < 1:
      raise UserError(
        f'UpkeepConfig.average must be in [0, 1), got {self.average}'
      )
    if self.reseed_every < 0 or self.dead < 0:
      raise UserError(
        'UpkeepConfig.reseed_every and dead must be 0 or more, got '
        f'{self.reseed_every} and {self.dead}'
      )


class CodebookUpkeep(nn.Module):
  """Flax state 'usage': what the codes were given lately.

  Attributes:
    config: UpkeepConfig.
    codes: K, of the largest position.
  """

  config: UpkeepConfig
  codes: int

  @nn.compact
  def __call__(self, coded_BLX, codes_BL):
    """Takes a batch in.

    Args:
      coded_BLX: what each position coded, as wide as the codebooks.
      codes_BL: int32 codes that were chosen.
    """
    rows, positions, width = coded_BLX.shape
    shape = (positions, self.codes, width)
    coded_BLX = jax.lax.stop_gradient(widened(coded_BLX))
    if self.config.average:
      sums = self.variable('usage', 'sums', jnp.zeros, shape)
      counts = self.variable('usage', 'counts', jnp.zeros, shape[:2])
      if not self.is_initializing():
        onehot_BLK = jax.nn.one_hot(codes_BL, self.codes)
        decay = self.config.average
        sums.value = decay * sums.value + jnp.einsum(
          'BLK,BLX->LKX', onehot_BLK, coded_BLX
        )
        counts.value = decay * counts.value + jnp.sum(onehot_BLK, axis=0)
    if self.config.reseed_every:
      candidates = self.variable('usage', 'candidates', jnp.zeros, shape)
      if not self.is_initializing():
        # A batch is in random order: each code's candidate is a random row.
        taken_K = jnp.arange(self.codes) % rows
        candidates.value = coded_BLX[taken_K].swapaxes(0, 1)


def fresh_usage(usage, codebooks_LKX, sizes):
  """The state 'usage' for codes that have just started.

  What came before was of other codes: it would count as recent for many steps.

  Args:
    usage: the Flax state 'usage' until now.
    codebooks_LKX: that the codes start from.
    sizes: codes of each position.

  Returns:
    The state: all codes used alike, no recent document; the moving averages
    stand where the codebooks start, with the weight of one vector.
  """
  queue = usage['usage']
  fresh = {
    'usage': {
      'share': uniform_share(sizes),
      'codes': jnp.zeros_like(queue['codes']),
      'documents': jnp.full_like(queue['documents'], -1),
    }
  }
  if 'upkeep' in usage:
    starts = {
      'sums': codebooks_LKX,
      'counts': jnp.ones(codebooks_LKX.shape[:2]),
      'candidates': codebooks_LKX,
    }
    fresh['upkeep'] = {name: starts[name] for name in usage['upkeep']}
  return fresh


def keep_up(params, usage, step, config, sizes):
  """Codebooks after a step.

  Args:
    params: the model's parameters.
    usage: the Flax state 'usage' after the step.
    step: int32 steps done.
    config: UpkeepConfig.
    sizes: codes of each position.

  Returns:
    The parameters, and the usage with rescued codes counted as used.
  """
  if not config.active:
    return params, usage
  indexer, state = dict(params['indexer']), dict(usage['upkeep'])
  share_LK = usage['usage']['share']
  if config.average:
    counts_LK1 = state['counts'][..., None]
    indexer['codebooks'] = jnp.where(
      counts_LK1 > 0.5,
      state['sums'] / jnp.maximum(counts_LK1, 0.5),
      indexer['codebooks'],
    )
  if config.reseed_every:
    uniform_L1 = 1 / jnp.asarray(sizes, jnp.float32)[:, None]
    due = (step % config.reseed_every) == 0
    present_LK = jnp.arange(share_LK.shape[1])[None, :] * uniform_L1 < 1
    dead_LK = due & present_LK & (share_LK < config.dead * uniform_L1)
    fresh_LKX = state['candidates']
    fresh = {
      'codebooks': fresh_LKX,
      'keys': fresh_LKX,
      'bias': jnp.sum(fresh_LKX**2, axis=-1),
    }
    for name in fresh.keys() & indexer.keys():
      indexer[name] = _where(dead_LK, fresh[name], indexer[name])
    # Rescued codes get time to be chosen before they count as dead again.
    share_LK = jnp.where(dead_LK, uniform_L1, share_LK)
    if config.average:
      state['sums'] = _where(dead_LK, fresh_LKX, state['sums'])
      state['counts'] = jnp.where(dead_LK, 1.0, state['counts'])
  return {**params, 'indexer': indexer}, {
    'usage': {**usage['usage'], 'share': share_LK},
    'upkeep': state,
  }


def _where(chosen_LK, new, old):
  """Rows of `new` where chosen, of `old` elsewhere."""
  more = (1,) * (new.ndim - chosen_LK.ndim)
  return jnp.where(chosen_LK.reshape(chosen_LK.shape + more), new, old)
