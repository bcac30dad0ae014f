"""Schedules of the step, for rates, temperatures and noise."""

import dataclasses

import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Schedule:
  """A value that moves from `start` to `end` and stays there.

  Attributes:
    start: value until `begin`.
    end: value from `finish` on.
    begin: step at which it starts to move, as a fraction of all steps.
    finish: step at which it arrives, as a fraction of all steps.
    kind: 'constant' (start throughout), 'linear' or 'cosine'.
  """

  start: float
  end: float = 0.0
  begin: float = 0.0
  finish: float = 1.0
  kind: str = 'linear'

  def at(self, step, steps):
    """The value at `step` (traced or not) of `steps`."""
    if self.kind == 'constant':
      return jnp.asarray(self.start, jnp.float32)
    span = max(self.finish - self.begin, 1e-9)
    moved = jnp.clip((step / steps - self.begin) / span, 0.0, 1.0)
    if self.kind == 'cosine':
      moved = 0.5 - 0.5 * jnp.cos(jnp.pi * moved)
    return self.start + (self.end - self.start) * moved


def learning_rate(peak, warmup, steps):
  """Linear warm-up over a fraction of the steps, then cosine to zero.

  Args:
    peak: the highest rate.
    warmup: fraction of the steps that warm up.
    steps: all steps.

  Returns:
    An optax schedule.
  """
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=peak,
    warmup_steps=max(int(warmup * steps), 1),
    decay_steps=max(steps, 2),
  )
