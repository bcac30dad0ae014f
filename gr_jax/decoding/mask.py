"""What the trie allows, for nodes on the device: pure functions of arrays."""

import jax
import jax.numpy as jnp

from gr_jax.decoding.trie import WORD_BITS, TrieTables


def allowed_codes(
  tables: TrieTables, nodes_BW: jax.Array, codes: int
) -> jax.Array:
  """Which codes continue each node.

  Args:
    tables: the trie.
    nodes_BW: inner nodes.
    codes: K, the width of the scores that the mask is laid over.

  Returns:
    [B, W, K] bool.
  """
  words = tables.bitmaps[nodes_BW]
  bits = jnp.arange(WORD_BITS, dtype=jnp.uint32)
  mask = (words[..., None] >> bits[None, None, None, :]) & 1
  mask = mask.reshape(*nodes_BW.shape, words.shape[-1] * WORD_BITS) != 0
  if mask.shape[-1] < codes:
    missing = codes - mask.shape[-1]
    return jnp.pad(mask, ((0, 0), (0, 0), (0, missing)))
  return mask[..., :codes]


def child_nodes(
  tables: TrieTables, nodes_BW: jax.Array, codes_BW: jax.Array
) -> jax.Array:
  """The child of each node along an allowed code.

  Args:
    tables: the trie.
    nodes_BW: inner nodes.
    codes_BW: a code that `allowed_codes` allows for the node.

  Returns:
    [B, W] int32 global node numbers.
  """
  words = tables.bitmaps[nodes_BW]
  # Bits of each word that stand for codes below the chosen one.
  below = (
    codes_BW[..., None] - WORD_BITS * jnp.arange(words.shape[-1])[None, None, :]
  )
  below = jnp.clip(below, 0, WORD_BITS)
  keep = jnp.where(
    below < WORD_BITS,
    (jnp.uint32(1) << (below % WORD_BITS).astype(jnp.uint32)) - 1,
    jnp.uint32(0xFFFFFFFF),
  )
  rank_BW = jnp.sum(jax.lax.population_count(words & keep), axis=-1)
  return tables.first_child[nodes_BW] + rank_BW.astype(jnp.int32)
