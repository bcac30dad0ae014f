"""What a checkpoint holds: step, parameters, optimizer, usage of codes."""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp

from gr_jax.schedule import Schedule
from gr_jax.training.optimizer import OptimizerSettings
from gr_jax.types import UserError, check_range


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
  """How long and how the model trains.

  Attributes:
    steps: optimizer updates.
    dense_fraction: of the steps, the first ones, which train vectors alone
      (the bottleneck criteria); the codes start from what the vectors became.
    settled_fraction: of the steps, the last ones, in which identifiers stand
      still, and the codewords and the decoder learn to find them.
    settled_rounds: of that stage; each begins with giving the whole corpus its
      identifiers anew. 0 for one in which documents keep those that they had
      before the run, see RunSettings.trained_run.
    train_encoder: whether the text encoder trains too; if not, its vectors
      are computed once and kept on disk.
    accumulate: microbatches a step; in-batch criteria see one microbatch.
    encoder_chunks: that the texts of a microbatch are encoded in, to keep the
      activations of one chunk at a time; in-batch criteria see the whole
      microbatch (models/cached_gradients.py). Each text is encoded twice.
    optimizer: rates.
    temperature: tau of the Gumbel-softmax, in units of the spread of a
      position's scores, over the stage in which codes move.
    noise: scale of the Gumbel noise, in the same units, over the same stage.
    log_every: steps between log lines.
    evaluate_every: steps between evaluations on dev, 0 for none.
    checkpoint_every: steps between checkpoints; the last step has one always.
    keep_checkpoints: how many stay on disk.
  """

  steps: int = 900
  dense_fraction: float = 0.34
  settled_fraction: float = 0.33
  settled_rounds: int = 2
  train_encoder: bool = False
  accumulate: int = 1
  encoder_chunks: int = 1
  optimizer: OptimizerSettings = OptimizerSettings()
  temperature: Schedule = Schedule(0.25, 0.1)
  noise: Schedule = Schedule(0.1, 0.0, finish=0.8)
  log_every: int = 20
  evaluate_every: int = 0
  checkpoint_every: int = 500
  keep_checkpoints: int = 2

  def __post_init__(self):
    positive = (
      'steps', 'accumulate', 'encoder_chunks', 'log_every', 'checkpoint_every',
    )  # fmt: skip
    check_range(self, dict.fromkeys(positive, (1, math.inf)))
    check_range(
      self, dict.fromkeys(('evaluate_every', 'settled_rounds'), (0, math.inf))
    )
    # The whole of the steps would leave codebooks that never started.
    check_range(self, {'dense_fraction': (0, 1), 'settled_fraction': (0, 1.01)})
    if self.dense_fraction + self.settled_fraction > 1:
      raise UserError(
        'dense_fraction and settled_fraction must leave steps for the codes, '
        f'got {self.dense_fraction} and {self.settled_fraction}'
      )

  @property
  def first_steps(self):
    """{'dense' | 'codes' | 'settled': first step} of the stages, in order."""
    codes = int(self.dense_fraction * self.steps)
    settled = self.steps - int(self.settled_fraction * self.steps)
    return {'dense': 0, 'codes': codes, 'settled': settled}

  @property
  def round_steps(self):
    """Steps of a round of the last stage, 1 at least; the last may be short."""
    settled = self.steps - self.first_steps['settled']
    return max(-(-settled // max(self.settled_rounds, 1)), 1)

  @property
  def beginnings(self):
    """First steps of the stages, and of each round of the last one."""
    rounds = range(self.first_steps['settled'], self.steps, self.round_steps)
    return {*self.first_steps.values(), *rounds}

  def codes_progress(self, step):
    """Share of the stage in which codes move that is done by `step`."""
    begin, end = self.first_steps['codes'], self.first_steps['settled']
    return jnp.clip((step - begin) / max(end - begin, 1), 0.0, 1.0)

  def stage(self, step):
    """The name of the stage that a step is in."""
    return [name for name, at in self.first_steps.items() if at <= step][-1]


@flax.struct.dataclass
class TrainState:
  """The state of training.

  Attributes:
    step: int32 updates done.
    params: parameters that train.
    frozen: parameters that do not, kept here so that a checkpoint is whole.
    opt_state: of the optimizer.
    usage: Flax state of indexers.usage.CodeUsage.
  """

  step: jax.Array
  params: dict
  frozen: dict
  opt_state: object
  usage: dict

  def all_params(self):
    """The model's parameters, trained and frozen."""
    return {**self.frozen, **self.params}
