"""A number that changes while training: rates, weights, noise."""

import dataclasses

import jax.numpy as jnp


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

  def at(self, progress):
    """The value when this share of all steps (traced or not) is done."""
    if self.kind == 'constant':
      return jnp.asarray(self.start, jnp.float32)
    span = max(self.finish - self.begin, 1e-9)
    moved = jnp.clip((progress - self.begin) / span, 0.0, 1.0)
    if self.kind == 'cosine':
      moved = 0.5 - 0.5 * jnp.cos(jnp.pi * moved)
    return self.start + (self.end - self.start) * moved
