"""Numbers that 32 bits cannot hold are refused, by shapes alone."""

import jax
import jax.numpy as jnp
import pytest

from gr_jax.decoding import top_k


def test_too_many_continuations_are_refused():
  totals_BWC = jax.ShapeDtypeStruct((1, 2**16, 2**15), jnp.float32)
  with pytest.raises(ValueError, match='take fewer beams'):
    jax.eval_shape(lambda totals: top_k.best_totals(totals, 9), totals_BWC)


def test_too_many_rows_are_refused():
  leaf = jax.ShapeDtypeStruct((2**12, 2**19, 3), jnp.float32)
  places_BW = jax.ShapeDtypeStruct((2**12, 5), jnp.int32)
  with pytest.raises(ValueError, match='search fewer queries'):
    jax.eval_shape(top_k.rows, leaf, places_BW)
