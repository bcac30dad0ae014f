"""One training step: batch in, new state and metrics out."""

import functools

import jax
import optax

from gr_jax.indexers.upkeep import keep_up
from gr_jax.objectives.weighted_sum import objective
from gr_jax.training.mesh import whole
from gr_jax.training.microbatches import accumulated


def make_step(model, *, optimizer, settings, objective_settings, upkeep, seed):
  """The training step as a jitted function that donates its state.

  Args:
    model: models.retriever.Retriever.
    optimizer: optax transformation.
    settings: TrainingSettings.
    objective_settings: ObjectiveSettings.
    upkeep: UpkeepConfig, None for codebooks that only gradients move.
    seed: of dropout and Gumbel noise; the step is folded in, so that a
      resumed run draws what an uninterrupted one draws.

  Returns:
    step(state, batch) -> (state, {'name': (total, count)}).
  """
  grad_fn = jax.grad(
    functools.partial(_loss, model, settings, objective_settings), has_aux=True
  )
  if settings.accumulate > 1:
    grad_fn = accumulated(grad_fn, settings.accumulate)

  def step_fn(state, batch):
    # The draws of one microbatch of one: runs of before stay what they were.
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    (rng,) = jax.random.split(rng, 1)
    grads, (metrics, usage) = grad_fn(
      state.params, state.frozen, state.usage, batch, state.step, rng
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics['gradient_norm'] = (optax.tree.norm(grads), 1)
    params = optax.apply_updates(state.params, updates)
    if upkeep is not None:
      sizes = model.config.code_sizes
      params, usage = keep_up(params, usage, state.step, upkeep, sizes)
    usage = whole(usage)
    state = state.replace(
      step=state.step + 1, params=params, opt_state=opt_state, usage=usage
    )
    return state, metrics

  return jax.jit(step_fn, donate_argnames=('state',))


def _loss(
  model, settings, objective_settings, params, frozen, usage, batch, step, rng
):
  """The objective of a batch; its metrics and the usage after it."""
  progress = settings.codes_progress(step)
  outputs, mutated = model.apply(
    {'params': {**frozen, **params}, 'usage': usage},
    batch,
    temperature=settings.temperature.at(progress),
    noise=settings.noise.at(progress),
    deterministic=False,
    rngs={'dropout': rng},
    mutable=['usage'],
  )
  documents_B, sizes = batch['document_index'], model.config.code_sizes
  loss, metrics = objective(
    outputs, documents_B, sizes, objective_settings, progress
  )
  return loss, (metrics, mutated['usage'])
