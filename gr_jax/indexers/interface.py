"""What every semantic indexing module answers, whatever its kind.

A kind is a frozen dataclass with `positions`, `codes` and `code_sizes`, and a
Flax module with
  `__call__(vectors_BD, *, temperature, noise, usage_LK, rng)` ->
    CodeAssignment, for training; kinds that never learn have none;
  `candidates(vectors_BD, beams)` -> identifiers_BWL and costs_BW, the nearest
    first, deterministic, for the index;
  `codebooks()` -> [L, K, D], what the decoder's head is tied to.
K is the largest position's; codes past a position's own size are never chosen.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gr_jax.parameters import constrain, parameter
from gr_jax.types import UserError

# Added to the score of a code that its position does not have.
ABSENT = -1e9
# Of what `assignment` joins, besides batch and positions.
_LAST_AXES = ('codes', 'codes', 'width', 'width')


@flax.struct.dataclass
class CodeAssignment:
  """The codes of a batch of documents, as hard and as differentiable values.

  Attributes:
    probs_BLK: code probabilities without noise; rows sum to 1.
    sample_BLK: the (straight-through) Gumbel-softmax sample y_t.
    codes_BL: int32 argmax of the sample.
    codewords_BLD: y_t E_t, what each position's code stands for.
    quantised_BD: zhat, what the whole identifier stands for.
    coded_BLX: what each position coded, as wide as its codewords' parameter.
  """

  probs_BLK: jax.Array
  sample_BLK: jax.Array
  codes_BL: jax.Array
  codewords_BLD: jax.Array
  quantised_BD: jax.Array
  coded_BLX: jax.Array


def code_sizes(positions, codes):
  """Codes of each position.

  Args:
    positions: L.
    codes: one number for all positions, or one for each.

  Returns:
    A tuple of L ints.
  """
  sizes = (codes,) * positions if isinstance(codes, int) else tuple(codes)
  if len(sizes) != positions or positions < 1 or min(sizes) < 1:
    raise UserError(
      f'codes should be one positive number, or one for each of {positions} '
      f'positions, got {codes}'
    )
  return sizes


def absent_codes(sizes):
  """[L, K] float32: 0 for a position's codes, ABSENT past its size."""
  past_LK = np.arange(max(sizes))[None, :] >= np.asarray(sizes)[:, None]
  return np.where(past_LK, np.float32(ABSENT), np.float32(0))


def learned_codebooks(sizes, width, name='codebooks'):
  """Makes a parameter of codewords; called from an indexer's `setup`.

  Args:
    sizes: codes of each position.
    width: D.
    name: of the parameter.

  Returns:
    [L, K, D] codewords, of unit length on average at the start.
  """
  return parameter(
    name,
    nn.initializers.normal(stddev=width**-0.5),
    (len(sizes), max(sizes), width),
    ('code_positions', 'codes', 'embed'),
  )


def assignment(by_position):
  """The CodeAssignment whose identifier stands for its codewords' sum.

  Args:
    by_position: [L, B, ...] probabilities, samples, codewords and what was
      coded.
  """
  probs_BLK, sample_BLK, codewords_BLD, coded_BLX = (
    constrain(values.swapaxes(0, 1), 'batch', 'code_positions', axis)
    for values, axis in zip(by_position, _LAST_AXES, strict=True)
  )
  return CodeAssignment(
    probs_BLK=probs_BLK,
    sample_BLK=sample_BLK,
    codes_BL=jnp.argmax(sample_BLK, axis=-1).astype(jnp.int32),
    codewords_BLD=codewords_BLD,
    quantised_BD=jnp.sum(codewords_BLD, axis=1),
    coded_BLX=coded_BLX,
  )


def given(codes_BL, codebooks_LKD):
  """The CodeAssignment of identifiers that stand still; nothing is drawn."""
  onehot_LBK = jax.nn.one_hot(codes_BL.T, codebooks_LKD.shape[1])
  codewords_LBD = onehot_LBK @ codebooks_LKD
  return assignment((onehot_LBK, onehot_LBK, codewords_LBD, codewords_LBD))


def stand_for(codebooks_LKD, codes_NL):
  """[N, D] sums of the codewords of given identifiers."""
  pairs = zip(codebooks_LKD, codes_NL.T, strict=True)
  return sum(codebook_KD[codes_N] for codebook_KD, codes_N in pairs)


def squared_distances(vectors_BD, codebook_KD):
  """[B, K] squared distances of vectors to codewords, in float32.

  At the highest precision: large terms cancel, and the fewer bits of an
  accelerator's default would choose other codes than a CPU does.
  """
  products_BK = jnp.matmul(
    vectors_BD, codebook_KD.T, precision=jax.lax.Precision.HIGHEST
  )
  return (
    jnp.sum(vectors_BD**2, axis=-1)[:, None]
    - 2 * products_BK
    + jnp.sum(codebook_KD**2, axis=-1)[None, :]
  )
