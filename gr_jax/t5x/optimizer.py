"""Our optimizers in T5X's wrapper."""

import flax.core
from flax import traverse_util
from jax.sharding import PartitionSpec
from t5x import optimizers


class StageOptimizer(optimizers.OptaxWrapper):
  """An optax transformation, its state sharded as the parameters.

  T5X derives axes for the transformations that it knows, and Adafactor's of
  optax is none of them. Here what ends like a parameter and has its rank lies
  like that parameter, as training.mesh has it; the rest is replicated. None for
  that would do for T5X's partitioner, but its checkpoints would come back as
  floats: counters of steps too.
  """

  def derive_logical_axes(self, optimizer, param_logical_axes):
    """Names of axes in place of the arrays of parameters and state.

    Args:
      optimizer: t5x.optimizers.Optimizer of arrays or shapes.
      param_logical_axes: names of each parameter's axes.
    """
    axes = traverse_util.flatten_dict(flax.core.unfreeze(param_logical_axes))
    state = traverse_util.flatten_dict(
      flax.core.unfreeze(optimizer.state_dict()['state'])
    )
    named = {path: _axes_of(path, leaf, axes) for path, leaf in state.items()}
    return optimizer.restore_state(
      {
        'target': flax.core.unfreeze(param_logical_axes),
        'state': traverse_util.unflatten_dict(named),
      }
    )


def _axes_of(path, leaf, axes):
  """A PartitionSpec of logical names."""
  shape = getattr(leaf, 'shape', ())
  for start in range(len(path)):
    names = axes.get(path[start:])
    if names is not None and len(names) == len(shape):
      # Adafactor keeps [1] in place of statistics that it does not need.
      sizes = zip(names, shape, strict=True)
      return PartitionSpec(*(None if n == 1 else name for name, n in sizes))
  return PartitionSpec(*(None for _ in shape))
