"""The optimizer and its rates."""

import dataclasses

import jax
import optax

from gr_jax.training.other_optimizers import OTHERS
from gr_jax.types import check_option


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
  """How parameters follow their gradients.

  Attributes:
    name: 'adamw', 'adafactor' or 'lion'.
    learning_rate: peak rate of each stage.
    warmup: fraction of a stage's steps in which the rate rises linearly; it
      falls to zero as a cosine after that.
    weight_decay: decoupled, per unit of rate, not applied to vectors.
    clip: largest global norm of the gradient.
    codebook_rate: factor on the rate of the codebooks (RepCONC, arXiv
      2110.05789, trains centroids faster than the encoder).
    vector_rate: factor on the rate of encoder and projections once codes
      train; 0 keeps the vectors that the dense stage ended with.
    decoder_rate: factor on the rate of the code decoder.
  """

  name: str = 'adamw'
  learning_rate: float = 1e-3
  warmup: float = 0.05
  weight_decay: float = 0.0
  clip: float = 1.0
  codebook_rate: float = 1.0
  vector_rate: float = 0.0
  decoder_rate: float = 0.3


def make_optimizer(settings, steps, factors=None):
  """An optax transformation of `settings` for a stage of `steps` steps.

  Args:
    settings: OptimizerSettings.
    steps: of the stage.
    factors: module -> factor on its rate, 1 for those that are not named.
  """
  rate = learning_rate(settings.learning_rate, settings.warmup, steps)
  kinds = {'adamw': _adamw, **OTHERS}
  check_option('OptimizerSettings.name', settings.name, kinds)
  return optax.chain(
    optax.clip_by_global_norm(settings.clip),
    kinds[settings.name](rate, settings.weight_decay, _matrices),
    _scaled(factors or {}, settings.codebook_rate),
  )


def learning_rate(peak, warmup, steps):
  """Linear warm-up over a fraction of the steps, then cosine to zero.

  Args:
    peak: the highest rate.
    warmup: fraction of the steps that warm up.
    steps: all steps.

  Returns:
    An optax schedule.
  """
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=peak,
    warmup_steps=max(int(warmup * steps), 1),
    decay_steps=max(steps, 2),
  )


def _matrices(params):
  """What decays: rank-1 parameters are scales and biases, which it harms."""
  return jax.tree.map(lambda p: p.ndim > 1, params)


def _adamw(rate, decay, mask):
  return optax.adamw(rate, weight_decay=decay, mask=mask)


def _scaled(factors, codebook_rate):
  """Scales the updates of modules, and of codebooks wherever they are."""

  def scale(path, update):
    factor = factors.get(path[0].key, 1.0)
    return update * (
      factor * codebook_rate if path[-1].key == 'codebooks' else factor
    )

  return optax.stateless(
    lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates)
  )
