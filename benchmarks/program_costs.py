"""What a program costs before it runs: operations, compiling, memory."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.extend import core

from gr_jax.models.t5 import T5Config
from gr_jax.training.memory import peak_bytes

# Rows of the square product that the ceiling is measured with.
_PRODUCT_ROWS = {'cpu': 1024}
_PRODUCT_ROWS_ELSEWHERE = 8192
_PRODUCTS = 16


def t5_flops(config: T5Config, batch: int, length: int, targets: int) -> int:
  """Floating point operations of a training step of a T5 on texts.

  The products of matrices, two operations for each factor, and twice as many
  for their gradients as for themselves. Reading a table is none.

  Args:
    config: sizes.
    batch: texts.
    length: tokens of a text.
    targets: tokens that are written for it.
  """
  width, joined = config.emb_dim, config.num_heads * config.head_dim
  maps = 8 * width * joined
  block = 2 * width * config.mlp_dim * (len(config.mlp_activations) + 1)
  read = (
    config.num_encoder_layers * length * (maps + 4 * length * joined + block)
  )
  # Queries and results of the cross-attention; its keys and values are a
  # text's.
  written = targets * (
    maps + 4 * targets * joined + maps // 2 + 4 * length * joined + block
  )
  written = config.num_decoder_layers * (written + length * maps // 2)
  head = targets * 2 * width * config.vocab_size
  return 3 * batch * (read + written + head)


def product_flops(function: Callable, *args: Any) -> int:
  """Floating point operations of the matrix products in a program.

  Args:
    function: to be traced; a loop of unknown length counts once.
    *args: what it takes; arrays or shapes.
  """
  return _flops_of(jax.make_jaxpr(function)(*args).jaxpr)


def _flops_of(program: core.Jaxpr) -> int:
  total = 0
  for equation in program.eqns:
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      shape = equation.invars[0].aval.shape
      inner = np.prod([shape[axis] for axis in contracted], dtype=np.int64)
      total += 2 * int(inner) * equation.outvars[0].aval.size
    repeated = 1
    if equation.primitive.name == 'scan':
      repeated = equation.params['length']
    for value in jax.tree.leaves(
      list(equation.params.values()),
      is_leaf=lambda x: isinstance(x, core.ClosedJaxpr | core.Jaxpr),
    ):
      if isinstance(value, core.ClosedJaxpr):
        total += repeated * _flops_of(value.jaxpr)
      elif isinstance(value, core.Jaxpr):
        total += repeated * _flops_of(value)
  return total


class Product:
  """Square products of matrices, what a machine can reach at best.

  Several, since the first finds its factors in no cache.
  """

  def __init__(self, dtype: str):
    """Draws the factors.

    Args:
      dtype: of the factors.
    """
    platform = jax.devices()[0].platform
    rows = _PRODUCT_ROWS.get(platform, _PRODUCT_ROWS_ELSEWHERE)
    self.flops = _PRODUCTS * 2 * rows**3
    self._factor = jax.random.normal(jax.random.key(0), (rows, rows), dtype)
    self._multiply = jax.jit(jnp.matmul)

  def run(self, _) -> list[jax.Array]:
    """The products, one after the other."""
    return [
      self._multiply(self._factor, self._factor) for _ in range(_PRODUCTS)
    ]


@contextlib.contextmanager
def own_compilation_cache() -> Iterator[None]:
  """An empty compilation cache on disk, which keeps whatever is compiled."""
  wanted = {
    'jax_persistent_cache_min_compile_time_secs': 0.0,
    'jax_persistent_cache_min_entry_size_bytes': -1,
  }
  with tempfile.TemporaryDirectory(prefix='gr_jax_') as folder:
    wanted['jax_compilation_cache_dir'] = folder
    before = {name: getattr(jax.config, name) for name in wanted}
    try:
      _configure(wanted)
      yield
    finally:
      _configure(before)


def _configure(values: dict[str, Any]) -> None:
  for name, value in values.items():
    jax.config.update(name, value)
  # JAX looks at the folder once, when it first compiles.
  compilation_cache.reset_cache()


def costs(step: Callable, *args: Any) -> dict[str, float]:
  """Seconds of compiling a step, and what the compiled program asks for.

  Args:
    step: jitted; it is not run. To be called within `own_compilation_cache`.
    *args: what it takes.

  Returns:
    'trace_seconds' (Python to program), 'compile_seconds' (program to machine
    code), 'warm_seconds' (both, with the code in the cache on disk),
    'xla_flops' (operations as XLA counts them, those of a loop once),
    'peak_bytes' (arguments,
    results and all between at the worst moment), 'temporary_bytes' (what is
    between alone).
  """
  start = time.perf_counter()
  lowered = step.lower(*args)
  traced = time.perf_counter()
  lowered.compile()
  compiled = time.perf_counter()
  jax.clear_caches()
  start_warm = time.perf_counter()
  program = step.lower(*args).compile()
  return {
    'trace_seconds': traced - start,
    'compile_seconds': compiled - traced,
    'warm_seconds': time.perf_counter() - start_warm,
    **demands(program),
  }


def demands(program: jax.stages.Compiled) -> dict[str, float]:
  """What a compiled program asks for; names as in `costs`."""
  memory = program.memory_analysis()
  return {
    'xla_flops': program.cost_analysis()['flops'],
    'peak_bytes': peak_bytes(memory),
    'temporary_bytes': memory.temp_size_in_bytes,
  }
