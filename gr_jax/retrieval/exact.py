"""The k documents nearest to a query, out of all, a block at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.types import NO_DOC, UserError

# Stands for 'no document' among scores; finite, as -inf minus -inf is NaN.
_FLOOR = np.float32(np.finfo(np.float32).min)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _merge_block(best_BC, rows_BC, queries_BD, block_ND, first_row, count):
  """Merges the documents of one block into the best so far.

  Earlier rows stand first, so that equal scores keep the order of the corpus.
  """
  scores_BN = jnp.einsum(
    'BD,ND->BN',
    queries_BD,
    block_ND.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
  position_N = jnp.arange(block_ND.shape[0], dtype=jnp.int32)
  scores_BN = jnp.where(position_N[None, :] < count, scores_BN, _FLOOR)
  width = min(best_BC.shape[1], block_ND.shape[0])
  block_best_BC, block_rows_BC = jax.lax.top_k(scores_BN, width)
  candidates = jnp.concatenate([best_BC, block_best_BC], axis=1)
  candidate_rows = jnp.concatenate([rows_BC, block_rows_BC + first_row], axis=1)
  best_BC, at_BC = jax.lax.top_k(candidates, best_BC.shape[1])
  return best_BC, jnp.take_along_axis(candidate_rows, at_BC, axis=1)


def exact_top_k(
  queries_BD: np.ndarray,
  documents_ND: np.ndarray,
  k: int,
  block: int = 65_536,
) -> tuple[np.ndarray, np.ndarray]:
  """The k documents of the largest inner product, for each query.

  Args:
    queries_BD: query vectors.
    documents_ND: document vectors, in memory or a memmap, which is read a
      block at a time; any float type, products are in float32.
    k: places of a ranking, at most N are filled.
    block: documents in memory at once; block * max(B, D) floats are held.

  Returns:
    rows [B, k] (NO_DOC in places past N) and scores [B, k], best first, equal
    scores in the order of the rows.
  """
  if queries_BD.shape[1] != documents_ND.shape[1]:
    raise UserError(
      f'query vectors are {queries_BD.shape[1]} wide and document vectors '
      f'{documents_ND.shape[1]}: they come from different encoders'
    )
  documents, width = documents_ND.shape
  block = min(block, documents)
  batch = len(queries_BD)
  queries_BD = jnp.asarray(queries_BD, jnp.float32)
  best_BC = jnp.full((batch, k), _FLOOR)
  rows_BC = jnp.full((batch, k), NO_DOC, jnp.int32)
  for start in range(0, documents, block):
    block_ND = documents_ND[start : start + block]
    count = len(block_ND)
    if count < block:
      padding = np.zeros((block - count, width), block_ND.dtype)
      block_ND = np.concatenate([np.asarray(block_ND), padding])
    best_BC, rows_BC = _merge_block(
      best_BC, rows_BC, queries_BD, block_ND, np.int32(start), np.int32(count)
    )
  rows_BC, best_BC = np.array(rows_BC), np.array(best_BC)
  rows_BC[:, min(k, documents) :] = NO_DOC
  return rows_BC, best_BC
