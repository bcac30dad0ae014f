"""How modules name the axes of what they make: of parameters and activations.

The names of parameters fill the `params_axes` collection, which T5X and our
mesh rules read; those of activations tell the compiler how they are spread.
"""

import jax.numpy as jnp
from flax.linen import partitioning


def parameter(name, init, shape, axes, dtype=jnp.float32):
  """A parameter of the module that is being set up or called.

  Args:
    name: within the module.
    init: initializer.
    shape: of the array.
    axes: logical names, one for each axis.
    dtype: of the array; what trains is float32.

  Returns:
    The array, whole along 'embed', along which it may be kept in parts: left
    to itself, the compiler would spread the batch anew for some products.
  """
  kept = partitioning.param_with_axes(name, init, shape, dtype, axes=axes)
  return constrain(kept, *(None if axis == 'embed' else axis for axis in axes))


def constrain(array, *axes):
  """Tells the compiler over which mesh axes an activation is spread."""
  return partitioning.with_sharding_constraint(array, axes)
