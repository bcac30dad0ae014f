"""What one of several processes holds of batches and of a state."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gr_jax import processes
from gr_jax.training.mesh import BATCH, put_batch, replicated
from gr_jax.types import UserError

_BATCH = PartitionSpec(BATCH)


def rows_of(mesh: Mesh, batch_size: int) -> np.ndarray:
  """Which rows of each batch this process loads, in order.

  A batch is the same whatever the number of processes: each has the rows that
  its devices work on.

  Args:
    mesh: of all devices.
    batch_size: B, of all processes together.
  """
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  if batch_size < 1 or batch_size % parts:
    raise UserError(
      f'LoaderSettings.batch_size is {batch_size}, which {parts} data parts of '
      'the mesh cannot share evenly: change it, or MeshSettings'
    )
  rows_B = np.arange(batch_size)
  places = NamedSharding(mesh, _BATCH).addressable_devices_indices_map(
    (batch_size,)
  )
  return np.unique(np.concatenate([rows_B[place] for place in places.values()]))


def putter(
  mesh: Mesh, batch_size: int
) -> Callable[[Mapping[str, np.ndarray]], dict]:
  """What makes global arrays of the rows that each process has loaded.

  Args:
    mesh: of all devices.
    batch_size: B, of all processes together.
  """
  if not processes.several():
    return lambda batch: put_batch(mesh, batch)
  sharding = NamedSharding(mesh, _BATCH)
  rows = rows_of(mesh, batch_size)

  def put(batch):
    return {
      name: jax.make_array_from_callback(
        (batch_size, *array.shape[1:]),
        sharding,
        # A device's rows follow each other, so they do in `rows`.
        lambda place, array=array: array[
          np.searchsorted(rows, np.arange(batch_size)[place[0]])
        ],
      )
      for name, array in batch.items()
    }

  return put


def gathered(tree: Any) -> Any:
  """A tree with a copy of each array on each of this process's own devices.

  Every process calls it; a device needs the memory of the whole tree.

  Args:
    tree: of arrays; those that lie on this process's devices stay.
  """
  if not processes.several():
    return tree
  return jax.tree.map(_gathered, tree)


def _gathered(array: Any) -> Any:
  if not isinstance(array, jax.Array) or array.is_fully_addressable:
    return array
  if not array.is_fully_replicated:
    everywhere = replicated(array.sharding.mesh)
    array = jax.jit(lambda x: x, out_shardings=everywhere)(array)
  value = np.asarray(array.addressable_data(0))
  with processes.local_devices():
    return jax.device_put(value, replicated(jax.sharding.get_mesh()))


def led(hooks: Sequence[Callable]) -> tuple[Callable, ...]:
  """Hooks of the training loop that process 0 runs for all.

  Args:
    hooks: (step, state) -> {'name': value}, which look at parameters alone.
  """
  if not processes.several():
    return tuple(hooks)

  def lead(hook):
    def led_hook(step, state):
      state = state.replace(
        params=gathered(state.params), frozen=gathered(state.frozen)
      )
      return processes.first(lambda: _floats(hook(step, state)))

    return led_hook

  return tuple(lead(hook) for hook in hooks)


def _floats(values: Mapping[str, float]) -> dict[str, float]:
  return {name: float(value) for name, value in values.items()}


def together(stages: Mapping[str, tuple]) -> dict[str, tuple]:
  """Stages that processes begin alike, and whose programs they start at once.

  Args:
    stages: {'name': (begins, begin, step_fn)}, see loop.train_loop.
  """
  if not processes.several():
    return dict(stages)
  return {
    name: (begins, _begun_alike(begin), _started_at_once(step_fn))
    for name, (begins, begin, step_fn) in stages.items()
  }


def _begun_alike(begin):
  def begun(state):
    processes.meet()
    state = begin(state)
    processes.agree(_checksum(state), 'beginning of a stage')
    processes.meet()
    return state

  return begun


def _started_at_once(step_fn):
  """A step that no process runs before all have compiled it.

  Compiling may take one a minute longer than another, and processes that
  connect for a program's first sum wait for each other 30 s on CPU.
  """
  programs = {}

  def step(state, batch):
    leaves = jax.tree.leaves((state, batch))
    key = tuple((leaf.shape, leaf.sharding) for leaf in leaves)
    if key not in programs:
      programs[key] = step_fn.lower(state, batch).compile()
      processes.meet()
    return programs[key](state, batch)

  return step


def _checksum(state: Any) -> str:
  """Of the arrays of which every process has a copy."""
  sha256 = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    if leaf.is_fully_replicated:
      sha256.update(np.asarray(leaf.addressable_data(0)).tobytes())
  return sha256.hexdigest()
