"""Optimizers that take the place of AdamW, by name."""

import optax

# Adafactor's rate is relative to a parameter's size. One that starts at zero,
# as the code decoder's output map does, moves like one of the usual size.
_LEAST_SCALE = 0.02


def _adafactor(rate, decay, mask):
  # optax.adafactor decays by the step and not by the rate.
  return optax.chain(
    optax.scale_by_factored_rms(),
    optax.clip_by_block_rms(1.0),
    optax.scale_by_param_block_rms(_LEAST_SCALE),
    optax.add_decayed_weights(decay, mask=mask),
    optax.scale_by_learning_rate(rate),
  )


def _lion(rate, decay, mask):
  return optax.lion(rate, weight_decay=decay, mask=mask)


# (rate, decay, mask of what decays) -> optax transformation.
OTHERS = {'adafactor': _adafactor, 'lion': _lion}
