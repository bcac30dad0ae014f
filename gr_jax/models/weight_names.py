"""Fitting foreign arrays into a parameter tree, with every name checked."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from gr_jax.types import UserError, near_miss

# How many names an error lists before it only counts.
_LISTED = 3


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where a parameter stands in foreign weights.

  Attributes:
    name: the foreign name.
    transposed: whether the foreign matrix is [output, input].
  """

  name: str
  transposed: bool = False


def parameter_shapes(module: nn.Module, *inputs) -> dict[str, tuple[int, ...]]:
  """Shapes of a module's parameters by path, without making them.

  Args:
    module: the module.
    *inputs: what it is called with; only shapes and dtypes are read.

  Returns:
    shapes by path, 'encoder/layers_0/...'.
  """
  variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  flat = traverse_util.flatten_dict(variables['params'], sep='/')
  return {path: leaf.shape for path, leaf in flat.items()}


def fit(
  arrays: Mapping[str, np.ndarray],
  shapes: Mapping[str, tuple[int, ...]],
  origin: Callable[[str], Origin],
  ignored: Callable[[str], bool],
  source: str,
) -> dict:
  """Puts foreign arrays where the parameters of a module stand.

  Args:
    arrays: foreign arrays by foreign name.
    shapes: shapes of all parameters by path.
    origin: the foreign name of a path.
    ignored: whether a foreign name may be left over.
    source: named in errors.

  Returns:
    the tree of parameters, float32.
  """
  origins = {path: origin(path) for path in shapes}
  wanted = {o.name for o in origins.values()}
  missing = [name for name in wanted if name not in arrays]
  extra = [n for n in arrays if n not in wanted and not ignored(n)]
  if missing or extra:
    raise UserError(_name_error(source, sorted(missing), sorted(extra)))
  params = {}
  for path, shape in shapes.items():
    array = arrays[origins[path].name]
    # ml_dtypes' bfloat16 is no np.floating, but it is to jax.
    if not jnp.issubdtype(array.dtype, jnp.floating):
      raise UserError(
        f'{source}: {origins[path].name} is of type {array.dtype}, but '
        'weights are floating-point numbers: export them unquantised.'
      )
    array = array.T if origins[path].transposed else array
    if array.shape != tuple(shape):
      raise UserError(
        f'{source}: {origins[path].name} has the shape {array.shape}, but '
        f'{path} expects {tuple(shape)}: the configuration beside the weights '
        'is of another model.'
      )
    params[path] = np.ascontiguousarray(array, dtype=np.float32)
  return traverse_util.unflatten_dict(params, sep='/')


def _name_error(source: str, missing: list[str], extra: list[str]) -> str:
  """One line that names the first missing and unexpected arrays."""
  parts = []
  if missing:
    named = [f'{name}{near_miss(name, extra)}' for name in missing[:_LISTED]]
    parts.append(f'{len(missing)} arrays are missing: {", ".join(named)}')
  if extra:
    parts.append(f'{len(extra)} are not expected: {", ".join(extra[:_LISTED])}')
  return (
    f'{source} does not hold the weights of its configuration; '
    f'{"; ".join(parts)}.'
  )
