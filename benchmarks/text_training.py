"""Our training step of a T5 on texts, as training/step.py has it."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gr_jax.models.t5 import T5Config
from gr_jax.models.t5_text import T5
from gr_jax.objectives.text import text_loss
from gr_jax.training.mesh import active, put_batch, shardings_for
from gr_jax.training.state import TrainState
from gr_jax.training.window import Window

Z_WEIGHT = 1e-4


def text_batches(
  config: T5Config, batch: int, length: int, targets: int, count: int
) -> list[dict[str, np.ndarray]]:
  """Batches of random texts without padding, under T5X's names.

  Args:
    config: whose vocabulary they are drawn from.
    batch: texts of each.
    length: tokens of a text.
    targets: tokens that are to be written for it.
    count: batches.
  """
  rng = np.random.default_rng(0)

  def draw(tokens):
    shape = batch, tokens
    return rng.integers(2, config.vocab_size, shape, dtype=np.int32)

  return [
    {
      'encoder_input_tokens': draw(length),
      'decoder_target_tokens': (written := draw(targets)),
      'decoder_input_tokens': np.pad(written, ((0, 0), (1, 0)))[:, :-1],
    }
    for _ in range(count)
  ]


def loss(model: T5, params: Any, batch: dict) -> tuple[jax.Array, dict]:
  """The loss of a batch and its metrics."""
  states_BLM, head_MV = model.apply(
    {'params': params},
    batch['encoder_input_tokens'],
    batch['decoder_input_tokens'],
    method=T5.before_head,
  )
  targets_BL = batch['decoder_target_tokens']
  return text_loss(states_BLM, head_MV, targets_BL, Z_WEIGHT)


def _broken(step: int, names: list[str], rows: dict) -> str:
  """Nothing to write where texts are random."""
  del step, names, rows
  return 'random texts'


class TextTraining:
  """A T5 that trains on texts.

  Attributes:
    step: (state, batch) -> (state, metrics), jitted; donates its state.
    state: where training stands.
  """

  def __init__(
    self,
    config: T5Config,
    optimizer,
    batch_size: int,
    mesh: jax.sharding.Mesh,
  ):
    """Draws the parameters.

    Args:
      config: sizes.
      optimizer: optax transformation.
      batch_size: texts of a step.
      mesh: of the devices; active in here alone, T5X does not bear it.
    """
    model = T5(config)
    self._batch_size = batch_size
    self._mesh = mesh
    self._put = functools.partial(put_batch, mesh)

    def start(key):
      tokens_BS = jnp.ones((1, 1), jnp.int32)
      variables = model.init(key, tokens_BS, tokens_BS)
      params = variables['params']
      return TrainState(
        jnp.int32(0), params, {}, optimizer.init(params), {}
      ), variables['params_axes']

    key = jax.random.key(0)
    axes = jax.eval_shape(lambda k: start(k)[1], key)
    abstract = jax.eval_shape(lambda k: start(k)[0], key)
    placed = shardings_for(mesh, axes, abstract)
    with active(mesh):
      self.state = jax.jit(lambda k: start(k)[0], out_shardings=placed)(key)
    self._gradient = jax.grad(functools.partial(loss, model), has_aux=True)
    self.loss = jax.jit(functools.partial(loss, model))

    def step(state, batch):
      gradients, metrics = self._gradient(state.params, batch)
      updates, opt_state = optimizer.update(
        gradients, state.opt_state, state.params
      )
      metrics['gradient_norm'] = (optax.tree.norm(gradients), 1)
      params = optax.apply_updates(state.params, updates)
      state = state.replace(
        step=state.step + 1, params=params, opt_state=opt_state
      )
      return state, metrics

    self.step = jax.jit(step, donate_argnames=('state',))

  def run(self, batches: Iterable[dict[str, np.ndarray]]) -> dict[str, float]:
    """Trains on batches as `loop.train_loop` does, to the log line."""
    window = Window(_broken, self._batch_size)
    with active(self._mesh):
      for batch in batches:
        self.state, metrics = self.step(self.state, self._put(batch))
        window.add(metrics, batch)
    values = window.close(int(self.state.step))
    jax.block_until_ready(self.state)
    return values
