"""The rotation trick: how a codeword's gradient reaches its vector."""

import jax
import jax.numpy as jnp


def rotated(vectors_BD, codewords_BD):
  """The codewords; their gradient reaches the vectors by rotation.

  lambda R x with R the rotation of x onto its codeword and lambda the ratio of
  their lengths, both without gradient (the rotation trick, Fifty et al., arXiv
  2410.06424); the codewords themselves get the gradient of a lookup.

  Args:
    vectors_BD: what was quantised.
    codewords_BD: what it was quantised to.

  Returns:
    [B, D], equal to `codewords_BD`.
  """
  stop = jax.lax.stop_gradient

  def length(x_BD):
    return jnp.maximum(jnp.linalg.norm(x_BD, axis=-1, keepdims=True), 1e-6)

  unit_BD = stop(vectors_BD / length(vectors_BD))
  target_BD = stop(codewords_BD / length(codewords_BD))
  ratio_B1 = stop(length(codewords_BD) / length(vectors_BD))
  middle_BD = unit_BD + target_BD
  middle_BD = middle_BD / length(middle_BD)
  along_middle_B1 = jnp.sum(middle_BD * vectors_BD, axis=-1, keepdims=True)
  along_unit_B1 = jnp.sum(unit_BD * vectors_BD, axis=-1, keepdims=True)
  turned_BD = ratio_B1 * (
    vectors_BD - 2 * middle_BD * along_middle_B1 + 2 * target_BD * along_unit_B1
  )
  return (
    stop(codewords_BD)
    + turned_BD
    - stop(turned_BD)
    + (codewords_BD - stop(codewords_BD))
  )
