"""Identifiers of different lengths, for tries and beams of one length.

An identifier that ends early goes on with the code END, one above all others.
A beam that has ended goes on with END alone and keeps its score, so it competes
with longer ones by the sum of its own codes' scores and that of ending.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.decoding.continuations import LEAST_CODE_SCORE

Step = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


def ended(
  identifiers: Sequence[Sequence[int]], code_sizes: Sequence[int]
) -> tuple[np.ndarray, tuple[int, ...]]:
  """Identifiers of one length.

  Args:
    identifiers: of one code or more, of as many as there are positions at
      most. One may be the beginning of another.
    code_sizes: number of codes of each position.

  Returns:
    [N, L] int64 codes with END behind, and the sizes of the positions with it.

  Raises:
    ValueError: for an identifier of another length, or with a code that is
      none of its position.
  """
  end, length = max(code_sizes), len(code_sizes)
  codes_NL = np.full((len(identifiers), length), end, np.int64)
  for row, identifier in enumerate(identifiers):
    if not 1 <= len(identifier) <= length:
      raise ValueError(
        f'identifier {row} should have 1 to {length} codes, it has '
        f'{len(identifier)}'
      )
    sizes = code_sizes[: len(identifier)]
    if any(
      not 0 <= code < size for code, size in zip(identifier, sizes, strict=True)
    ):
      raise ValueError(
        f'identifier {row} should have codes below {list(sizes)}, it is '
        f'{list(identifier)}'
      )
    codes_NL[row, : len(identifier)] = identifier
  return codes_NL, (end + 1,) * length


def lengths(codes: np.ndarray | jax.Array, code_sizes: Sequence[int]) -> Any:
  """[...] int, codes of each of [..., L] identifiers before its END.

  Args:
    codes: from `ended`, or of beams.
    code_sizes: number of codes of each position, without END.
  """
  return (codes < max(code_sizes)).sum(axis=-1)


def with_ends(
  step_fn: Step,
  code_sizes: Sequence[int],
  end_fn: Callable[[Any, jax.Array], jax.Array] | None = None,
) -> Step:
  """A step of beam_search whose scores have END.

  Args:
    step_fn: scores [B, W, max(code_sizes)], as beam_search asks for.
    code_sizes: number of codes of each position, without END.
    end_fn: (state before the step, level) -> [B, W] score of ending instead of
      a code at `level`; 0 when None, which is for models without such a score.
  """
  end = max(code_sizes)

  def step(state, codes_BW, level):
    over_BW = (codes_BW == end) & (level > 0)
    # What a beam does that has ended is not looked at.
    codes_BW = jnp.where(over_BW, 0, codes_BW)
    zeros_BW = jnp.zeros(codes_BW.shape)
    ends_BW = zeros_BW if end_fn is None else end_fn(state, level)
    scores_BWK, state = step_fn(state, codes_BW, level)
    scores_BWK = jnp.where(over_BW[..., None], LEAST_CODE_SCORE, scores_BWK)
    ends_BW = jnp.where(over_BW, 0.0, ends_BW)
    both_BWK = jnp.concatenate([scores_BWK, ends_BW[..., None]], axis=-1)
    return both_BWK, state

  return step
