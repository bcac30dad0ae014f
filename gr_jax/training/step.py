"""One training step: batch in, new state and metrics out."""

import functools

import jax
import jax.numpy as jnp
import optax

from gr_jax.indexers.upkeep import keep_up
from gr_jax.objectives.weighted_sum import objective


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

  def step_fn(state, batch):
    rng = jax.random.fold_in(jax.random.key(seed), state.step)

    def microstep(carry, inputs):
      grads, usage = carry
      microbatch, key = inputs
      new, (metrics, usage) = grad_fn(
        state.params, state.frozen, usage, microbatch, state.step, key
      )
      return (jax.tree.map(jnp.add, grads, new), usage), metrics

    parts = settings.accumulate
    (grads, usage), metrics = jax.lax.scan(
      microstep,
      (jax.tree.map(jnp.zeros_like, state.params), state.usage),
      (_microbatches(batch, parts), jax.random.split(rng, parts)),
    )
    grads = jax.tree.map(lambda g: g / parts, grads)
    metrics = jax.tree.map(jnp.sum, metrics)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics['gradient_norm'] = (optax.tree.norm(grads), 1)
    params = optax.apply_updates(state.params, updates)
    if upkeep is not None:
      sizes = model.config.code_sizes
      params, usage = keep_up(params, usage, state.step, upkeep, sizes)
    state = state.replace(
      step=state.step + 1, params=params, opt_state=opt_state, usage=usage
    )
    return state, metrics

  return jax.jit(step_fn, donate_argnames=('state',))


def _loss(
  model, settings, objective_settings, params, frozen, usage, batch, step, rng
):
  """The objective of a microbatch; its metrics and the usage after it."""
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


def _microbatches(batch, parts):
  """Arrays [B, ...] as [parts, B / parts, ...].

  Every device keeps rows of each microbatch, as it has rows of the batch.
  """

  def split(x):
    rows = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
    return rows.swapaxes(0, 1)

  return jax.tree.map(split, batch)
