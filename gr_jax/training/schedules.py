"""The learning rate as a function of the step."""

import optax


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
