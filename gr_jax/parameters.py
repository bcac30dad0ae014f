"""How modules make their parameters: float32, each axis with a logical name.

The names fill the `params_axes` collection, which T5X and our mesh rules read.
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
  """
  return partitioning.param_with_axes(name, init, shape, dtype, axes=axes)
