"""Layers whose inner values are computed again where gradients need them."""

import inspect

import jax
from flax import linen as nn

from gr_jax.types import check_option

# What is kept of a layer until its gradients: nothing but its input, or the
# products with weights besides (their results have no batch of matrices, as
# those inside attention have).
POLICIES = {
  'full': None,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
REMAT = ('none', *POLICIES)


def rematerialised(layer: type[nn.Module], remat: str) -> type[nn.Module]:
  """The same layer, computed again for its gradients.

  Parameters and their names stay as they are.

  Args:
    layer: a module whose call takes `deterministic`, Python's True or False.
    remat: of POLICIES.
  """
  check_option('remat', remat, REMAT)
  names = list(inspect.signature(layer.__call__).parameters)
  return nn.remat(
    layer,
    policy=POLICIES[remat],
    static_argnums=(names.index('deterministic'),),
  )
