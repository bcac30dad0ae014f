"""Devices as a mesh, and which logical axis lies along which mesh axis.

Our launcher is `with active(mesh):` around `jax.jit`. T5X brings its own
`with mesh:` and `pjit`; crossing the pairs drops every constraint without a
word, so nothing here enters a mesh in the other way.

What lies where, by RULES:
  rows of a batch, of texts that are encoded, of vectors that k-means sees:
    along data and fsdp; sums over them are over all devices.
  heads, feed-forward blocks, scores of codes: along model besides.
  parameters and moments of the optimizer, along model and fsdp:
    token tables ('vocab', 'embed'), attention ('embed', 'joined_kv'),
    feed-forward ('embed', 'mlp'), codebooks and keys of codes ('codes',
    'embed'), projections ('embed'), norms ('embed'). For use they are gathered
    along fsdp, layer by layer.
  the query means of the corpus, 2 D bytes a document: along data and fsdp, each
    device some numbers of every document, where D is a multiple of them.
  whole on every device: what is small (usage of codes and the queue,
    sharpness, noise, Adafactor's factors), and the identifiers of the corpus, 4
    bytes a code.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from flax.linen import partitioning
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gr_jax.types import UserError, near_miss

# Along which the rows of a batch lie.
BATCH = ('data', 'fsdp')

# Logical axis to mesh axis, the first that is free wins. The upper part has
# T5X's names, so that its launcher shards our models by its own rules.
RULES = (
  ('batch', BATCH),
  ('queries', BATCH),
  ('documents', BATCH),
  ('vocab', 'model'),
  ('mlp', 'model'),
  ('heads', 'model'),
  ('joined_kv', 'model'),
  ('embed', 'fsdp'),
  ('kv', None),
  ('length', None),
  ('relpos_buckets', None),
  ('abspos_buckets', None),
  ('layers', None),
  ('stack', None),
  ('codes', 'model'),
  ('code_positions', None),
  ('beams', None),
  ('rows', None),
  ('means', BATCH),
  ('width', None),
)


@dataclasses.dataclass(frozen=True)
class MeshSettings:
  """How the devices are arranged.

  Attributes:
    data: replicas of the model; -1 takes the devices that are left.
    fsdp: devices that share parameters and optimizer, each with its own part
      of the batch.
    model: devices that share each matrix product.
  """

  data: int = -1
  fsdp: int = 1
  model: int = 1

  def __post_init__(self):
    for name in ('fsdp', 'model'):
      if getattr(self, name) < 1:
        raise UserError(
          f'MeshSettings.{name} is a number of devices, got'
          f' {getattr(self, name)}'
        )
    if self.data < 1 and self.data != -1:
      raise UserError(
        f'MeshSettings.data is a number of devices or -1, got {self.data}'
      )


def make_mesh(settings: MeshSettings, devices: Any = None) -> Mesh:
  """The mesh of all devices.

  Args:
    settings: how many along each axis.
    devices: taken in place of all there are.

  Returns:
    A mesh with the axes 'data', 'fsdp' and 'model', all Auto.
  """
  devices = jax.devices() if devices is None else list(devices)
  inner = settings.fsdp * settings.model
  data = len(devices) // inner if settings.data == -1 else settings.data
  if data * inner != len(devices):
    raise UserError(
      f'MeshSettings data={settings.data} x fsdp={settings.fsdp} x'
      f' model={settings.model} does not cover {len(devices)} devices'
    )
  return jax.make_mesh(
    (data, settings.fsdp, settings.model),
    ('data', 'fsdp', 'model'),
    # Linen cannot use make_mesh's default, Explicit.
    axis_types=(AxisType.Auto,) * 3,
    devices=devices,
  )


@contextlib.contextmanager
def active(mesh: Mesh):
  """Makes the constraints in models mean this mesh, for jax.jit inside.

  jit does not look at the rules when it decides whether it has compiled a
  function: enter once, around everything.
  """
  with nn.logical_axis_rules(RULES), jax.set_mesh(mesh):
    yield mesh


def check_axis_names(params_axes: Mapping) -> None:
  """Refuses a logical axis without a rule: flax would replicate it silently.

  Args:
    params_axes: the collection that `param_with_axes` fills.
  """
  known = {name for name, _ in RULES}
  for path, names in _named_axes(params_axes).items():
    for name in names:
      if name is not None and name not in known:
        raise UserError(
          f'{"/".join(path)} has the axis {name!r}, for which'
          f' training/mesh.py has no rule{near_miss(name, known)}'
        )


def shardings_for(mesh: Mesh, params_axes: Mapping, abstract: Any) -> Any:
  """Where each leaf of a tree lies.

  Args:
    mesh: from `make_mesh`.
    params_axes: the collection that `param_with_axes` fills.
    abstract: parameters, or a state that holds them and what mirrors them
      (moments of the optimizer); arrays or shapes. A leaf that belongs to no
      parameter is replicated.

  Returns:
    A tree of NamedSharding of the same structure.
  """
  check_axis_names(params_axes)
  axes = _named_axes(params_axes)
  parts = mesh.shape['data'] * mesh.shape['fsdp']

  def place(path, leaf):
    keys = jax.tree_util.keystr(path, simple=True, separator='/').split('/')
    names = _axes_of(tuple(keys), leaf.ndim, axes)
    # Adafactor keeps [1] in place of statistics that it does not need, and the
    # width of query means was not chosen for the number of devices.
    sizes = zip(names, leaf.shape, strict=True)
    names = [
      None if size == 1 or (name == 'means' and size % parts) else name
      for name, size in sizes
    ]
    spec = nn.logical_to_mesh_axes(names, RULES)
    _check_divides(mesh, spec, leaf.shape, keys)
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(place, abstract)


def made_on(mesh: Mesh, params_axes: Mapping, make: Callable, given: Any):
  """What a function makes, each array from the start where it belongs.

  No device and no host ever holds all of it.

  Args:
    mesh: from `make_mesh`.
    params_axes: the collection that `param_with_axes` fills.
    make: a function of arrays that can be traced.
    given: its argument.

  Returns:
    What it returns, placed as `shardings_for` says.
  """
  shardings = shardings_for(mesh, params_axes, jax.eval_shape(make, given))
  return jax.jit(make, out_shardings=shardings)(given)


def put(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
  """A copy of an array where it belongs; of a host's, each device its part."""
  if isinstance(array, jax.Array):
    return jax.device_put(jnp.array(array, copy=True), sharding)
  array = np.asarray(array)
  return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def whole(tree: Any) -> Any:
  """Keeps arrays whole on every device, for jitted functions under `active`.

  Left to itself, the compiler would lay what a step returns otherwise than what
  it was given, and the next step would be compiled anew.
  """
  return jax.tree.map(
    lambda x: nn.with_logical_constraint(x, (None,) * x.ndim), tree
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """A copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict:
  """Spreads the first axis of each array over the data and fsdp axes.

  Args:
    mesh: from `make_mesh`.
    batch: this process's part, name to [B, ...].

  Returns:
    The global arrays.
  """
  sharding = NamedSharding(mesh, PartitionSpec(BATCH))
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  for name, array in batch.items():
    size = len(array) * jax.process_count()
    if size % parts:
      raise UserError(
        f'{name} has {size} rows, which {parts} data parts of the mesh'
        ' cannot share evenly: change the batch size or MeshSettings'
      )
  return {
    name: jax.make_array_from_process_local_data(sharding, array)
    for name, array in batch.items()
  }


def _named_axes(params_axes: Mapping) -> dict[tuple[str, ...], tuple]:
  """{('encoder', 'kernel'): ('embed', 'mlp')}."""
  names = partitioning.get_axis_names(params_axes)
  flat = traverse_util.flatten_dict(
    names, is_leaf=lambda _, value: isinstance(value, PartitionSpec)
  )
  return {path: tuple(spec) for path, spec in flat.items()}


def _axes_of(keys: tuple[str, ...], rank: int, axes: Mapping) -> tuple:
  """The axes of the parameter whose path ends this one, the longest first.

  Adafactor's row and column statistics end like their parameter and have
  another rank: they are small, and replicated.
  """
  for start in range(len(keys)):
    names = axes.get(keys[start:])
    if names is not None and len(names) == rank:
      return names
  return (None,) * rank


def _check_divides(mesh, spec, shape, keys) -> None:
  for size, names in zip(shape, spec, strict=True):
    group = names if isinstance(names, tuple) else (names,)
    parts = math.prod(mesh.shape[name] for name in group if name)
    if size % parts:
      raise UserError(
        f'{"/".join(keys)} {list(shape)} cannot be cut into {parts} along'
        f' the mesh axis {names!r}: change MeshSettings.{group[0]}'
      )
