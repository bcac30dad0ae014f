"""Gradients of a batch in parts, one after the other."""

import jax
import jax.numpy as jnp

from gr_jax.types import UserError


def accumulated(grad_fn, parts):
  """The mean gradient of `parts` microbatches, each with its own objective.

  Args:
    grad_fn: (params, frozen, usage, batch, step, rng) -> (gradients, (metrics,
      usage)).
    parts: microbatches; rows of the batch in multiples of it.

  Returns:
    A function like `grad_fn`.
  """

  def grads_of(params, frozen, usage, batch, step, rng):
    def microstep(carry, inputs):
      grads, usage = carry
      microbatch, key = inputs
      new, (metrics, usage) = grad_fn(
        params, frozen, usage, microbatch, step, key
      )
      return (jax.tree.map(jnp.add, grads, new), usage), metrics

    (grads, usage), metrics = jax.lax.scan(
      microstep,
      (jax.tree.map(jnp.zeros_like, params), usage),
      (in_parts(batch, parts), jax.random.split(rng, parts)),
    )
    grads = jax.tree.map(lambda g: g / parts, grads)
    return grads, (jax.tree.map(jnp.sum, metrics), usage)

  return grads_of


def in_parts(batch, parts):
  """Arrays [B, ...] as [parts, B / parts, ...].

  Every device keeps rows of each part, as it has rows of the batch.

  Args:
    batch: arrays.
    parts: how many.

  Raises:
    UserError: B is no multiple of it.
  """

  def split(x):
    if x.shape[0] % parts:
      raise UserError(
        f'a batch of {x.shape[0]} rows has no {parts} microbatches of one '
        'size: set an accumulate that divides LoaderSettings.batch_size'
      )
    rows = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
    return rows.swapaxes(0, 1)

  return jax.tree.map(split, batch)
