"""What a position looks for, moved by the codewords before it."""

from flax import linen as nn

from gr_jax.parameters import parameter


def prefix_maps(positions, width):
  """Makes the parameter; called from an indexer's `setup`.

  Args:
    positions: L.
    width: D.

  Returns:
    [L, D, D] maps of what the codewords so far stand for; they start at zero.
  """
  return parameter(
    'condition',
    nn.initializers.zeros_init(),
    (positions, width, width),
    ('code_positions', 'width', 'embed'),
  )
