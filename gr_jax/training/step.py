"""One training step: batch in, new state and metrics out."""

import jax
import jax.numpy as jnp
import optax

from gr_jax.objectives.weighted_sum import objective


def make_step(model, *, optimizer, settings, objective_settings, seed):
  """The training step as a jitted function that donates its state.

  Args:
    model: models.retriever.Retriever.
    optimizer: optax transformation.
    settings: TrainingSettings.
    objective_settings: ObjectiveSettings.
    seed: of dropout and Gumbel noise; the step is folded in, so that a
      resumed run draws what an uninterrupted one draws.

  Returns:
    step(state, batch) -> (state, {'name': (total, count)}).
  """

  def loss_fn(params, frozen, batch, step, rng):
    outputs = model.apply(
      {'params': {**frozen, **params}},
      batch,
      temperature=settings.temperature.at(step, settings.steps),
      noise=settings.noise.at(step, settings.steps),
      deterministic=False,
      rngs={'dropout': rng},
    )
    return objective(outputs, batch['document_index'], objective_settings)

  def step_fn(state, batch):
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    grad_fn = jax.grad(loss_fn, has_aux=True)

    def microstep(grads, inputs):
      microbatch, key = inputs
      new, metrics = grad_fn(
        state.params, state.frozen, microbatch, state.step, key
      )
      return jax.tree.map(jnp.add, grads, new), metrics

    parts = settings.accumulate
    grads, metrics = jax.lax.scan(
      microstep,
      jax.tree.map(jnp.zeros_like, state.params),
      (_microbatches(batch, parts), jax.random.split(rng, parts)),
    )
    grads = jax.tree.map(lambda g: g / parts, grads)
    metrics = jax.tree.map(jnp.sum, metrics)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics['gradient_norm'] = (optax.tree.norm(grads), 1)
    state = state.replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      opt_state=opt_state,
    )
    return state, metrics

  return jax.jit(step_fn, donate_argnames=('state',))


def _microbatches(batch, parts):
  """Arrays [B, ...] as [parts, B / parts, ...].

  Every device keeps rows of each microbatch, as it has rows of the batch.
  """

  def split(x):
    rows = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
    return rows.swapaxes(0, 1)

  return jax.tree.map(split, batch)
