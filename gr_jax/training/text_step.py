"""Training of a model of texts: its settings, its state and its step.

Such a model is a flax module with a method `loss(batch, deterministic)` that
gives a scalar and {'name': (total, count)}: a query generator, a cross-encoder.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gr_jax.training.mesh import made_on, put, replicated, shardings_for
from gr_jax.training.microbatches import accumulated
from gr_jax.training.optimizer import OptimizerSettings
from gr_jax.training.state import TrainState
from gr_jax.types import check_range

# The one stage of such a training.
STAGE = 'text'


@dataclasses.dataclass(frozen=True)
class TextTrainingSettings:
  """How long and how a model of texts trains.

  Attributes:
    steps: optimizer updates.
    accumulate: microbatches a step.
    optimizer: rates; OptimizerSettings.vector_rate is that of the encoder.
    log_every: steps between log lines.
    evaluate_every: steps between evaluations on dev, 0 for none.
    checkpoint_every: steps between checkpoints; the last step has one always.
    keep_checkpoints: how many stay on disk.
  """

  steps: int = 1000
  accumulate: int = 1
  optimizer: OptimizerSettings = OptimizerSettings(vector_rate=1.0)
  log_every: int = 20
  evaluate_every: int = 0
  checkpoint_every: int = 250
  keep_checkpoints: int = 1

  def __post_init__(self):
    positive = ('steps', 'accumulate', 'log_every', 'checkpoint_every')
    check_range(self, dict.fromkeys(positive, (1, math.inf)))
    check_range(self, {'evaluate_every': (0, math.inf)})

  @property
  def beginnings(self):
    """No step has anything done before it, as stages of a retriever have."""
    return frozenset()

  def stage(self, step):
    """The name of the only stage."""
    del step
    return STAGE


def first_text_state(model, batch, seed, optimizer, mesh, imported, frozen):
  """The state at step 0, each array where it belongs from the start.

  Args:
    model: flax module with `loss`.
    batch: a batch of any size, for the shapes of parameters.
    seed: of the draw.
    optimizer: optax transformation.
    mesh: of all devices.
    imported: {module: parameters} in place of drawn ones.
    frozen: modules that do not train.

  Returns:
    training.state.TrainState, without usage.
  """

  def init(key):
    return model.init(key, batch, deterministic=True, method='loss')

  key = jax.random.key(seed)
  axes = jax.eval_shape(init, key)['params_axes']
  params = made_on(
    mesh,
    axes,
    lambda key: {
      name: value
      for name, value in init(key)['params'].items()
      if name not in imported
    },
    key,
  )
  params |= jax.tree.map(put, imported, shardings_for(mesh, axes, imported))
  trained = {k: v for k, v in params.items() if k not in frozen}
  return TrainState(
    step=put(np.zeros((), np.int32), replicated(mesh)),
    params=trained,
    frozen={k: v for k, v in params.items() if k in frozen},
    opt_state=made_on(mesh, axes, optimizer.init, trained),
    usage={},
  )


def make_text_step(model, optimizer, accumulate, seed):
  """The training step as a jitted function that donates its state.

  Args:
    model: flax module with `loss`.
    optimizer: optax transformation.
    accumulate: microbatches.
    seed: of dropout; the step is folded in.

  Returns:
    step(state, batch) -> (state, {'name': (total, count)}).
  """
  grad_fn = jax.grad(functools.partial(_loss, model), has_aux=True)
  if accumulate > 1:
    grad_fn = accumulated(grad_fn, accumulate)

  def step_fn(state, batch):
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    grads, (metrics, _) = grad_fn(
      state.params, state.frozen, {}, batch, state.step, rng
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics['gradient_norm'] = (optax.tree.norm(grads), 1)
    params = optax.apply_updates(state.params, updates)
    state = state.replace(
      step=state.step + 1, params=params, opt_state=opt_state
    )
    return state, metrics

  return jax.jit(step_fn, donate_argnames=('state',))


def _loss(model, params, frozen, usage, batch, step, rng):
  """The loss of a batch; its metrics and the usage, which there is none of."""
  del step
  loss, metrics = model.apply(
    {'params': {**frozen, **params}},
    batch,
    deterministic=False,
    rngs={'dropout': rng},
    method='loss',
  )
  metrics = {'loss': (jnp.asarray(loss), 1), **metrics}
  return loss, (metrics, usage)
