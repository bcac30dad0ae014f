"""The optimizer and its rates."""

import dataclasses

import jax
import optax

from gr_jax.training.schedules import learning_rate
from gr_jax.types import UserError, near_miss

# Adafactor's rate is relative to a parameter's size. One that starts at zero,
# as the code decoder's output map does, moves like one of the usual size.
_LEAST_SCALE = 0.02


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
  """How parameters follow their gradients.

  Attributes:
    name: 'adamw', 'adafactor' or 'lion'.
    learning_rate: peak rate of both stages.
    warmup: fraction of a stage's steps in which the rate rises linearly; it
      falls to zero as a cosine after that.
    weight_decay: decoupled, per unit of rate, not applied to vectors.
    clip: largest global norm of the gradient.
    codebook_rate: factor on the rate of the codebooks (RepCONC, arXiv
      2110.05789, trains centroids faster than the encoder).
  """

  name: str = 'adamw'
  learning_rate: float = 1e-3
  warmup: float = 0.05
  weight_decay: float = 0.0
  clip: float = 1.0
  codebook_rate: float = 1.0


def make_optimizer(settings, steps):
  """An optax transformation of `settings` for a stage of `steps` steps."""
  rate = learning_rate(settings.learning_rate, settings.warmup, steps)

  # Rank-1 parameters are scales and biases, which decay only harms.
  def matrices(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)

  decay = settings.weight_decay
  kinds = {
    'adamw': lambda: optax.adamw(rate, weight_decay=decay, mask=matrices),
    # optax.adafactor decays by the step and not by the rate.
    'adafactor': lambda: optax.chain(
      optax.scale_by_factored_rms(),
      optax.clip_by_block_rms(1.0),
      optax.scale_by_param_block_rms(_LEAST_SCALE),
      optax.add_decayed_weights(decay, mask=matrices),
      optax.scale_by_learning_rate(rate),
    ),
    'lion': lambda: optax.lion(rate, weight_decay=decay, mask=matrices),
  }
  if settings.name not in kinds:
    raise UserError(
      f'OptimizerSettings.name is one of {sorted(kinds)}, not '
      f'{settings.name!r}{near_miss(settings.name, kinds)}'
    )
  return optax.chain(
    optax.clip_by_global_norm(settings.clip),
    kinds[settings.name](),
    optax.masked(optax.scale(settings.codebook_rate), _codebooks),
  )


def _codebooks(params):
  """A tree that is True where a leaf is a codebook."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1] == jax.tree_util.DictKey('codebooks'), params
  )
