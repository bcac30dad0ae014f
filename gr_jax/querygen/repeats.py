"""Tokens that would write an n-gram of a query a second time."""

import functools

import jax
import jax.numpy as jnp


def repeating_tokens(
  tokens_RL: jax.Array, position: jax.Array, n: int, first: int, size: int
) -> jax.Array:
  """Which tokens would complete an n-gram that a sequence has already.

  Args:
    tokens_RL: int32 tokens written so far; what stands from `position` on is
      not read.
    position: int32 scalar, of the next token.
    n: tokens of an n-gram, 1 or more.
    first: position of the first token that counts.
    size: V, tokens there are.

  Returns:
    [R, V] bool.
  """
  length = tokens_RL.shape[1]
  if n > length:
    return jnp.zeros((len(tokens_RL), size), bool)
  # The n-gram that begins at x repeats where its first n - 1 tokens are the
  # last ones; its last token stands before the next one.
  starts_X = jnp.arange(length - n + 1)
  written_X = (starts_X >= first) & (starts_X + n <= position)
  repeats_RX = jnp.broadcast_to(
    written_X[None], (len(tokens_RL), len(starts_X))
  )
  for place in range(n - 1):
    # Where this is before the beginning nothing is written either.
    last_R1 = jax.lax.dynamic_slice_in_dim(
      tokens_RL, position - (n - 1) + place, 1, axis=1
    )
    ours_RX = tokens_RL[:, place : place + len(starts_X)]
    repeats_RX = repeats_RX & (ours_RX == last_R1)
  return jax.vmap(functools.partial(_marked, size))(
    tokens_RL[:, n - 1 :], repeats_RX
  )


def _marked(size, tokens_X, chosen_X):
  """[V] bool, which tokens are chosen somewhere."""
  return jnp.zeros(size, bool).at[tokens_X].max(chosen_X)
