"""Reads the parameters of T5X checkpoints, without T5X and without orbax.

Three layouts are known. The legacy one, of the public checkpoints: a msgpack
file `checkpoint` holds the tree; its leaves are arrays, or describe zarr
arrays in folders beside it. The first orbax layout: the same, with leaves
that are placeholder strings. The present orbax layout: `_METADATA` lists the
names, the arrays are zarr in an OCDBT store or in folders. tensorstore reads
all of them.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
from flax import serialization, traverse_util

from gr_jax.models.weight_files import files_sha256
from gr_jax.types import UserError

_PLACEHOLDER = 'PLACEHOLDER://'
_INDEX = 'checkpoint'
_METADATA = '_METADATA'


def is_checkpoint(folder: pathlib.Path) -> bool:
  """Whether a folder looks like a T5X checkpoint of any layout."""
  return any(
    (place / name).is_file()
    for place in _places(folder)
    for name in (_INDEX, _METADATA)
  )


def read_checkpoint(
  folder: pathlib.Path,
) -> tuple[dict[str, np.ndarray], str]:
  """The parameters of a checkpoint (its 'target'), and a hash of its files.

  Args:
    folder: `checkpoint_<step>` of a T5X run.

  Returns:
    arrays by path, 'encoder/layers_0/...', and the sha256 of the files.
  """
  for place in _places(folder):
    if (place / _METADATA).is_file():
      arrays = _read_orbax(place)
      break
    if (place / _INDEX).is_file():
      arrays = _read_indexed(place)
      break
  else:
    raise UserError(
      f'{folder} is no T5X checkpoint: expected {_INDEX} or {_METADATA} in it.'
    )
  if not arrays:
    raise UserError(f'The checkpoint {folder} has no parameters in "target".')
  files = [path for path in folder.rglob('*') if path.is_file()]
  return arrays, files_sha256(files)


def _places(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
  """Where the tree may be: orbax keeps it in an item's folder."""
  return folder, folder / 'state', folder / 'default'


def _read_indexed(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The layouts whose tree is a msgpack file."""
  path = folder / _INDEX
  try:
    index = serialization.msgpack_restore(path.read_bytes())
  except ValueError as error:
    raise UserError(f'{path} is not a msgpack file: {error}.') from error
  tree = index.get('optimizer', index) if isinstance(index, dict) else {}
  target = tree.get('target') or {}
  arrays, stored = {}, {}
  leaves = traverse_util.flatten_dict(
    target, sep='/', is_leaf=lambda _, node: 'driver' in node
  )
  for name, leaf in leaves.items():
    if isinstance(leaf, np.ndarray):
      arrays[name] = leaf
    elif isinstance(leaf, Mapping) and 'kvstore' in leaf:
      # Only the name counts: the index may have been written elsewhere.
      stored[name] = pathlib.PurePosixPath(leaf['kvstore']['path']).name
    elif isinstance(leaf, str) and leaf.startswith(_PLACEHOLDER):
      stored[name] = leaf.removeprefix(_PLACEHOLDER)
    else:
      raise UserError(
        f'{path}: {name} is a {type(leaf).__name__}, which is neither an '
        'array nor a reference to one.'
      )
  specs = {
    name: _zarr(folder / _checked(stored_name, path))
    for name, stored_name in stored.items()
  }
  return arrays | _open_all(specs)


def _checked(name: str, path: pathlib.Path) -> str:
  """A stored name that stays in the folder of the checkpoint."""
  if not name or name in ('.', '..') or '/' in name:
    raise UserError(f'{path} refers to {name!r} outside its folder.')
  return name


def _zarr(folder: pathlib.Path) -> dict:
  """What tensorstore needs to open one array's folder."""
  return {
    'driver': 'zarr',
    'kvstore': {'driver': 'file', 'path': f'{folder.absolute()}/'},
  }


def _read_orbax(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The layout whose tree is listed in _METADATA."""
  path = folder / _METADATA
  try:
    metadata = json.loads(path.read_text(encoding='utf-8'))
    entries = metadata['tree_metadata'].values()
    keys = [[e['key'] for e in entry['key_metadata']] for entry in entries]
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f'{path} does not list a tree as orbax writes it: {error!r}.'
    ) from error
  driver = 'zarr3' if metadata.get('use_zarr3') else 'zarr'
  base = {'driver': 'file', 'path': f'{folder.absolute()}/'}
  specs = {}
  for names in keys:
    if names[0] != 'target':
      continue
    name = '.'.join(names)
    if metadata.get('use_ocdbt', True):
      kvstore = {'driver': 'ocdbt', 'base': base, 'path': f'{name}/'}
    else:
      kvstore = base | {'path': f'{base["path"]}{_checked(name, path)}/'}
    specs['/'.join(names[1:])] = {'driver': driver, 'kvstore': kvstore}
  return _open_all(specs)


def _open_all(specs: Mapping[str, dict]) -> dict[str, np.ndarray]:
  """Reads arrays, several at a time."""
  import tensorstore

  def read(futures: Iterable) -> list:
    results = []
    for name, future in zip(specs, futures, strict=True):
      try:
        results.append(future.result())
      except (ValueError, KeyError, OSError) as error:
        raise UserError(
          f'The array of {name} cannot be read: {str(error).splitlines()[0]}'
        ) from error
    return results

  opened = read([tensorstore.open(s, read=True) for s in specs.values()])
  return dict(zip(specs, read([array.read() for array in opened]), strict=True))
