"""What every semantic indexing module answers, whatever its kind.

An indexer is a Flax module with
  `__call__(vectors_BD, documents_B, *, temperature, noise, rng)` ->
    CodeAssignment, for training;
  `assign(vectors_BD, documents_B)` -> codes_BL, deterministic, for the index;
  `codebooks()` -> [L, K, D], what the decoder's head is tied to.
"""

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning


@flax.struct.dataclass
class CodeAssignment:
  """The codes of a batch of documents, as hard and as differentiable values.

  Attributes:
    probs_BLK: code probabilities without noise; rows sum to 1.
    sample_BLK: the (straight-through) Gumbel-softmax sample y_t.
    codes_BL: int32 argmax of the sample.
    codewords_BLD: y_t E_t, what each position's code stands for.
    quantised_BD: zhat, what the whole identifier stands for.
  """

  probs_BLK: jax.Array
  sample_BLK: jax.Array
  codes_BL: jax.Array
  codewords_BLD: jax.Array
  quantised_BD: jax.Array


def learned_codebooks(positions, codes, width):
  """Makes the parameter 'codebooks'; called from an indexer's `setup`.

  Args:
    positions: L.
    codes: K.
    width: D.

  Returns:
    [L, K, D] codewords, of unit length on average at the start.
  """
  return partitioning.param_with_axes(
    'codebooks',
    nn.initializers.normal(stddev=width**-0.5),
    (positions, codes, width),
    jnp.float32,
    axes=('code_positions', 'codes', 'embed'),
  )
