"""Strict shapes, warnings as errors; 1 CPU device, 8 for `-m mesh` and `soak`.

A step that is spread over 8 devices takes three times as long to compile as on
one, and most tests are about other things.
"""

import os
import pathlib

# Before jax: a machine with an accelerator runs the same tests.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

# Most programs run once: optimizing them would take longer than they run. The
# emitters of fusions that go by way of MLIR take most of the rest, and so does
# cutting small programs up for threads to compile. And devices that share a
# busy machine wait for each other for longer than the 40 s after which XLA ends
# the process.
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_backend_optimization_level=0',
    '--xla_llvm_disable_expensive_passes=true',
    '--xla_cpu_use_fusion_emitters=false',
    '--xla_cpu_parallel_codegen_split_count=1',
    '--xla_cpu_collective_call_terminate_timeout_seconds=300',
  ]
)

import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')
# Compiling is most of a test run's time: keep what was compiled. jax names
# its entries by program, versions and flags, so none of them goes stale.
_CACHE = pathlib.Path(__file__).parent.parent / 'build' / 'xla_cache'
jax.config.update('jax_compilation_cache_dir', str(_CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def pytest_configure(config):
  devices = 8 if config.option.markexpr in ('mesh', 'soak') else 1
  jax.config.update('jax_num_cpu_devices', devices)
  # As doors do it for XLA_FLAGS that ask for virtual devices.
  if devices > 1:
    os.environ.setdefault('NPROC', str(8 * devices))


@pytest.fixture(scope='session')
def collections_dir() -> pathlib.Path:
  """The folder of real collections, named by GR_JAX_DATA."""
  folder = os.environ.get('GR_JAX_DATA')
  if not folder:
    pytest.skip('GR_JAX_DATA is unset: it names the folder of collections')
  path = pathlib.Path(folder)
  assert path.is_dir(), f'GR_JAX_DATA={folder} is no folder'
  return path
