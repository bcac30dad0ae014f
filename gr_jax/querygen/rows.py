"""Work on rows of a batch that no device hands over to another."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec


def of_own_rows(function: Callable[..., Any], *rows: Any, whole: Sequence = ()):
  """Applies a function, on the active mesh each device to its own rows.

  Left to itself, the compiler brings all rows to every device for a top-k and
  for an index that names rows of the batch.

  Args:
    function: of trees of arrays, to a tree of arrays; their first axes are rows
      of the batch or a multiple of them, each of which depends on no other.
    *rows: its first arguments.
    whole: its last ones, the same for all rows.

  Returns:
    What it returns.
  """
  (batch,) = nn.logical_to_mesh_axes(('batch',)) or (None,)
  if batch is None or jax.sharding.get_abstract_mesh().empty:
    return function(*rows, *whole)
  axes = {batch} if isinstance(batch, str) else {*batch}
  spread, same = PartitionSpec(batch), PartitionSpec()
  return jax.shard_map(
    function,
    in_specs=(spread,) * len(rows) + (same,) * len(whole),
    out_specs=spread,
    # Scores of a vocabulary and heads may lie along the others.
    axis_names=axes,
  )(*rows, *whole)
