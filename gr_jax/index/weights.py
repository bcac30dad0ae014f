"""The parameters inside an index, bound to its identifiers."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from gr_jax.types import UserError

NAME = 'model.safetensors'
# What must be equal in the manifest and inside the model's file.
_BOUND = ('model_sha256', 'vocabulary_sha256', 'id_table_sha256')
_BINDING = 'index'


def save(
  directory: pathlib.Path,
  flat: Mapping[str, np.ndarray],
  facts: Mapping[str, Any],
) -> None:
  """Writes the parameters.

  Args:
    directory: of the version.
    flat: from `flatten`.
    facts: of the manifest, with the hashes that are bound.
  """
  safetensors.numpy.save_file(
    flat, directory / NAME, metadata={_BINDING: _binding(facts)}
  )


def load(directory: pathlib.Path) -> dict[str, Any]:
  """The nested parameters of a version."""
  return unflatten(safetensors.numpy.load_file(directory / NAME))


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, np.ndarray]:
  """Nested parameters as {'indexer/codebooks': array}."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f'{prefix}{name}/'))
    else:
      flat[prefix + name] = np.require(np.asarray(value), requirements='C')
  return flat


def unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The inverse of `flatten`."""
  tree: dict[str, Any] = {}
  for path, value in flat.items():
    *parents, name = path.split('/')
    place = tree
    for parent in parents:
      place = place.setdefault(parent, {})
    place[name] = value
  return tree


def check(directory: pathlib.Path, manifest: Mapping[str, Any]) -> None:
  """Refuses parameters that belong to another index.

  Args:
    directory: of the version.
    manifest: of the version.
  """
  path = directory / NAME
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      inside = file.metadata() or {}
  except (safetensors.SafetensorError, OSError) as error:
    raise UserError(
      f'{path} cannot be read ({error}): build the index again'
    ) from error
  found, expected = inside.get(_BINDING), _binding(manifest)
  if found != expected:
    raise UserError(
      f'{path} is of another index: it should carry {expected}, it has {found}:'
      ' build the index again'
    )


def _binding(facts: Mapping[str, Any]) -> str:
  """The bound hashes as one entry: several come in random order in a file."""
  return json.dumps({name: facts[name][:16] for name in _BOUND})
