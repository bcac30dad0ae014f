"""What a checkpoint holds: step, parameters, optimizer."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from gr_jax.training.optimizer import OptimizerSettings
from gr_jax.training.schedules import Schedule
from gr_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
  """How long and how the model trains.

  Attributes:
    steps: optimizer updates.
    dense_fraction: of the steps, the first ones, which train vectors alone
      (the bottleneck criterion); the codebooks start from k-means of what the
      vectors became.
    train_encoder: whether the text encoder trains too; if not, its vectors
      are computed once and kept on disk.
    accumulate: microbatches a step; in-batch criteria see one microbatch.
    optimizer: rates.
    temperature: tau of the Gumbel-softmax, in squared distance.
    noise: scale of the Gumbel noise, in squared distance.
    log_every: steps between log lines.
    evaluate_every: steps between evaluations on dev, 0 for none.
    checkpoint_every: steps between checkpoints; the last step has one always.
    keep_checkpoints: how many stay on disk.
  """

  steps: int = 900
  dense_fraction: float = 0.34
  train_encoder: bool = False
  accumulate: int = 1
  optimizer: OptimizerSettings = OptimizerSettings()
  temperature: Schedule = Schedule(0.05, 0.02)
  noise: Schedule = Schedule(0.02, 0.0, finish=0.8)
  log_every: int = 20
  evaluate_every: int = 0
  checkpoint_every: int = 500
  keep_checkpoints: int = 2

  def __post_init__(self):
    for name in ('steps', 'accumulate', 'log_every', 'checkpoint_every'):
      if getattr(self, name) < 1:
        raise UserError(f'{name} must be at least 1, got {getattr(self, name)}')
    if self.evaluate_every < 0:
      raise UserError(
        f'evaluate_every must be 0 for never, or more, got '
        f'{self.evaluate_every}'
      )
    # The whole of the steps would leave codebooks that never started.
    if not 0 <= self.dense_fraction < 1:
      raise UserError(
        f'dense_fraction must be from 0 to below 1, got {self.dense_fraction}'
      )

  @property
  def dense_steps(self):
    """Steps before there are codes."""
    return int(self.dense_fraction * self.steps)


@flax.struct.dataclass
class TrainState:
  """The state of training.

  Attributes:
    step: int32 updates done.
    params: parameters that train.
    frozen: parameters that do not, kept here so that a checkpoint is whole.
    opt_state: of the optimizer.
  """

  step: jax.Array
  params: dict
  frozen: dict
  opt_state: object

  def all_params(self):
    """The model's parameters, trained and frozen."""
    return {**self.frozen, **self.params}


def make_state(params, optimizer, train_encoder):
  """A state at step 0.

  Args:
    params: the model's parameters, by module.
    optimizer: optax transformation.
    train_encoder: whether params['encoder'] trains.

  Returns:
    The TrainState.
  """
  frozen_names = () if train_encoder else ('encoder',)
  frozen = {k: v for k, v in params.items() if k in frozen_names}
  trained = {k: v for k, v in params.items() if k not in frozen_names}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=trained,
    frozen=frozen,
    opt_state=optimizer.init(trained),
  )
