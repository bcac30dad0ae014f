"""What another run trained, to begin with: its text encoder, or all of it."""

import hashlib
import pathlib

import jax
import numpy as np

from gr_jax.training.checkpoints import Checkpoints
from gr_jax.types import UserError

RUN = 'run:'
_MODULES = ('encoder', 'projection')


def import_run(params, source):
  """Puts encoder and projection of a run in place of drawn ones.

  Args:
    params: from `initial.init_params`.
    source: 'run:FOLDER'; its last checkpoint is read.

  Returns:
    The parameters, and a SHA-256 of what was read.

  Raises:
    UserError: where there is no checkpoint, or an encoder of other shapes.
  """
  found = _last_params(source.removeprefix(RUN), source)
  replaced = {name: params[name] for name in _MODULES if name in params}
  for name, drawn in replaced.items():
    if _shapes(drawn) != _shapes(found.get(name, {})):
      raise UserError(
        f'{source} has another {name}: use the gin files of its model'
      )
    replaced[name] = found[name]
  return {**params, **replaced}, params_sha256(replaced)


def params_sha256(params):
  """A SHA-256 of all arrays of a tree, in the order of their names."""
  sha256 = hashlib.sha256()
  for leaf in jax.tree.leaves(params):
    sha256.update(leaf.tobytes())
  return sha256.hexdigest()


def check_identifiers(params, folder):
  """Refuses to keep the identifiers of a run that gave none.

  Args:
    params: from `begin_with`.
    folder: of that run.
  """
  if np.all(np.asarray(params['identifiers']['table']) < 0):
    raise UserError(
      f'{folder} has given no document an identifier to keep: set '
      'TrainingSettings.settled_rounds = 1 or more, or name a run with a '
      'settled stage (TrainingSettings.settled_fraction)'
    )


def begin_with(params, folder):
  """All that a run trained, in place of what was drawn.

  Args:
    params: of the model, its encoder imported already.
    folder: of the run; its last checkpoint is read.

  Returns:
    The parameters, and a SHA-256 of what was read.

  Raises:
    UserError: where there is no checkpoint, parameters of other shapes, or
      another encoder than the run was trained upon.
  """
  found = _last_params(folder, folder)
  for name, drawn in params.items():
    if _shapes(drawn) != _shapes(found.get(name, {})):
      raise UserError(
        f'{folder} has another {name}: go on with the gin files of its model, '
        'on its collection'
      )
  same = jax.tree.map(
    lambda mine, theirs: np.array_equal(np.asarray(mine), theirs),
    params['encoder'],
    found['encoder'],
  )
  if not all(jax.tree.leaves(same)):
    raise UserError(
      f'{folder} was trained upon another encoder: set '
      f"RunSettings.encoder_weights to its own, or to '{RUN}{folder}' where "
      'it trained one'
    )
  found = {name: found[name] for name in params}
  return found, params_sha256(found)


def _last_params(folder, source):
  """The parameters of a run's last checkpoint, as numpy arrays."""
  checkpoints = Checkpoints(pathlib.Path(folder).absolute() / 'checkpoints')
  step = checkpoints.latest()
  if step is None:
    raise UserError(
      f'{source} should name the folder of a run with a checkpoint'
    )
  found = checkpoints.restore_params(step)
  checkpoints.close()
  return found


def _shapes(module):
  """{path: shape} of a module's parameters."""
  leaves = jax.tree_util.tree_leaves_with_path(module)
  return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
