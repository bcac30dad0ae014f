"""T5X's Trainer with what a run of ours needs of it."""

import functools

import flax.core
import jax
from t5x import trainer, utils

from gr_jax.indexers.upkeep import keep_up
from gr_jax.t5x.run import stage_end
from gr_jax.types import UserError


class RetrieverTrainer(trainer.Trainer):
  """Trains one stage: the step reaches the loss, noise is drawn as ours is."""

  def __init__(
    self,
    model,
    train_state,
    partitioner,
    eval_names,
    summary_dir,
    train_state_axes,
    rng,
    learning_rate_fn,
    num_microbatches=None,
    weight_metrics_computer=None,
  ):
    """As trainer.Trainer.

    Args:
      model: contract.RetrieverModel.
      train_state: None where it comes later, as in t5x.eval.
      partitioner: the same as trainer.Trainer has it.
      eval_names: the same.
      summary_dir: the same.
      train_state_axes: the same.
      rng: not read; RunSettings.seed and the step say what is drawn.
      learning_rate_fn: shown with the metrics; the optimizer has its own.
      num_microbatches: refused.
      weight_metrics_computer: the same.
    """
    if num_microbatches is not None and num_microbatches > 1:
      raise UserError(
        'T5X adds gradients of microbatches, in which in-batch criteria see '
        'less: set Trainer.num_microbatches = None'
      )
    self._end = None
    if train_state is not None:
      step = int(utils.get_local_data(train_state.step))
      self._end = _checked_end(model, step)
    super().__init__(
      model=model,
      train_state=train_state,
      partitioner=partitioner,
      eval_names=eval_names,
      summary_dir=summary_dir,
      train_state_axes=train_state_axes,
      rng=jax.random.key(model.settings.seed),
      learning_rate_fn=learning_rate_fn,
      num_microbatches=None,
      weight_metrics_computer=weight_metrics_computer,
    )

  def train(self, batch_iter, num_steps, start_step=None):
    """As BaseTrainer.train, to the end of a stage or round at most."""
    if start_step is None:
      start_step = int(utils.get_local_data(self.train_state.step))
    if start_step + num_steps > self._end:
      raise UserError(
        f'T5X would train to step {start_step + num_steps}, and the stage or '
        f'round that it trains ends at {self._end}: set TRAIN_STEPS = '
        f'{self._end}'
      )
    return super().train(batch_iter, num_steps, start_step)

  def _get_step_rng(self, step):
    # training.step's, of its only microbatch.
    return jax.random.split(super()._get_step_rng(step), 1)[0]

  @functools.cached_property
  def _partitioned_train_step(self):
    def train_step(train_state, batch):
      state, metrics = trainer.train_with_lr(
        train_state,
        {**batch, 'step': train_state.step},
        learning_rate=self._learning_rate_fn(train_state.step),
        dropout_rng=self._get_step_rng(train_state.step),
        model=self._model,
        num_microbatches=None,
        weight_metrics_computer=self._weight_metrics_computer,
        data_partition_spec=self._partitioner.data_partition_spec,
      )
      return _kept_up(self._model, train_state.step, state), metrics

    return self._partitioner.partition(
      train_step,
      in_axis_resources=(
        self._train_state_axes,
        self._partitioner.data_partition_spec,
      ),
      out_axis_resources=(self._train_state_axes, None),
      donate_argnums=(0,),
    )

  @functools.cached_property
  def _partitioned_eval_step(self):
    def eval_step(train_state, batch):
      batch = {**batch, 'step': train_state.step}
      return trainer.eval_step(self._model, train_state, batch)

    return self._partitioner.partition(
      eval_step,
      in_axis_resources=(
        self._train_state_axes,
        self._partitioner.data_partition_spec,
      ),
      out_axis_resources=None,
    )


def _checked_end(model, step: int) -> int:
  """Where the stage or round ends that `step` is in, if it is the model's."""
  training = model.settings.training
  if step >= training.steps:
    return training.steps
  stage = training.stage(step)
  if stage != model.stage:
    raise UserError(
      f'step {step} of this run is in the stage {stage!r}, and {model.stage!r} '
      'is to be trained: set STAGE; where one has just ended, python -m '
      'gr_jax.t5x.convert --from, then --to, begins the next'
    )
  return stage_end(training, step)


def _kept_up(model, step, state):
  """The state after upkeep of the codebooks, where there is some."""
  config = model.settings.model
  if model.stage != 'codes' or not config.upkeep.active:
    return state
  params, usage = keep_up(
    flax.core.unfreeze(state.params),
    flax.core.unfreeze(state.flax_mutables['usage']),
    step,
    config.upkeep,
    config.code_sizes,
  )
  state = state.replace_params(flax.core.freeze(params))
  mutables = state.flax_mutables.copy({'usage': flax.core.freeze(usage)})
  return state.replace_flax_mutables(mutables)
