"""States of our launcher as T5X checkpoints, and back, bit for bit.

params    target          step       state/step
frozen    flax_mutables/frozen       opt_state  state/param_states
usage     flax_mutables/usage
"""

import pathlib

import flax.core
import jax
import numpy as np
from clu.data import dataset_iterator
from flax import serialization
from t5x import checkpoints, partitioning, train_state

from gr_jax.t5x.batches import place_of
from gr_jax.t5x.run import axis_rules
from gr_jax.types import UserError

_PREFIX = 'checkpoint_'


class _Place(dataset_iterator.DatasetIterator):
  """Stands for the iterator of T5X where a state is written."""

  def __init__(self, batches):
    self._batches = batches

  @property
  def element_spec(self):
    """Nothing: only its place is asked for."""
    return {}

  def __next__(self):
    raise StopIteration

  def save(self, filename):
    """Writes the place."""
    pathlib.Path(filename).write_text(place_of(self._batches))


def write(model, state, axes, model_dir: pathlib.Path) -> pathlib.Path:
  """Writes a state as a checkpoint that T5X goes on from.

  Args:
    model: contract.RetrieverModel of the stage that the state is in.
    state: training.state.TrainState.
    axes: logical axes of all parameters, the collection 'params_axes'.
    model_dir: T5X's MODEL_DIR.

  Returns:
    The folder of the checkpoint.
  """
  step = int(state.step)
  folder = model_dir.absolute() / f'{_PREFIX}{step}'
  if folder.exists():
    raise UserError(
      f'{folder} exists: choose another MODEL_DIR, or delete it to write step '
      f'{step} again'
    )
  folder.parent.mkdir(parents=True, exist_ok=True)
  # orbax forgets the type of what is a number and no array.
  state = jax.tree.map(np.asarray, state)
  filled = _like(model, state, axes).restore_state(
    {
      'target': state.params,
      'state': {
        'step': state.step,
        'param_states': _without_empty(state.opt_state),
      },
      'flax_mutables': {
        'frozen': state.frozen,
        'usage': flax.core.unfreeze(state.usage),
      },
    }
  )
  manager = _manager(filled, folder.parent, _Place(step))
  manager.save(filled)
  manager.close()
  return folder


def read(model, state, axes, folder: pathlib.Path):
  """The state that a checkpoint of T5X holds.

  Args:
    model: contract.RetrieverModel.
    state: a TrainState of the same shapes.
    axes: logical axes of all parameters, the collection 'params_axes'.
    folder: of the checkpoint, or of all, of which the last is read.

  Returns:
    A TrainState of numpy arrays.
  """
  folder = _latest(folder.absolute())
  like = _like(model, state, axes)
  manager = _manager(like, folder.parent, None)
  try:
    found = manager.restore(path=str(folder))
  except (KeyError, ValueError) as error:
    raise UserError(
      f'{folder} is no checkpoint of this run and stage: '
      f'{str(error).splitlines()[0]}'
    ) from error
  finally:
    manager.close()
  found = jax.tree.map(np.asarray, found)
  mutables = flax.core.unfreeze(found.flax_mutables)
  restored = state.replace(
    step=np.int32(found.step),
    params=flax.core.unfreeze(found.params),
    frozen=mutables['frozen'],
    opt_state=_plain(found.param_states),
    usage=mutables['usage'],
  )
  _compare(folder, restored, state)
  return restored


def _compare(folder, restored, state):
  """Refuses other shapes and types, of which T5X says nothing."""

  def check(path, was, now):
    was, now = (f'{leaf.dtype}{list(leaf.shape)}' for leaf in (was, now))
    if was != now:
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      raise UserError(
        f'{folder} is no checkpoint of this run: it holds {name} as {was}, the '
        f'run has {now}'
      )

  jax.tree_util.tree_map_with_path(check, restored, state)


def _like(model, state, axes):
  """A T5X state of the shapes of ours."""
  variables = model.variables(state.params, state.frozen, state.usage, axes)
  return train_state.FlaxOptimTrainState.create(
    model.optimizer_def, flax.core.freeze(variables)
  )


def _manager(like, directory, iterator):
  """T5X's checkpoints of a folder."""
  return checkpoints.OrbaxCheckpointManagerInterface(
    directory=str(directory),
    train_state=like,
    partitioner=partitioning.PjitPartitioner(
      model_parallel_submesh=(1, 1, 1, 1), logical_axis_rules=axis_rules()
    ),
    dataset_iterator=iterator,
  )


def _latest(folder: pathlib.Path) -> pathlib.Path:
  if folder.name.startswith(_PREFIX) and folder.is_dir():
    return folder
  steps = checkpoints.all_steps(str(folder)) if folder.is_dir() else ()
  if not steps:
    raise UserError(
      f'{folder} should be a MODEL_DIR of T5X or one of its {_PREFIX}STEP; it '
      'holds none'
    )
  return folder / f'{_PREFIX}{max(steps)}'


def _without_empty(opt_state):
  """A state of optax as nested dicts, without what holds no array."""
  state = serialization.to_state_dict(opt_state)

  def kept(node):
    if not isinstance(node, dict):
      return node
    below = {name: kept(value) for name, value in node.items()}
    return {k: v for k, v in below.items() if not isinstance(v, dict) or v}

  return kept(state)


def _plain(opt_state):
  """The same state of optax over plain dicts."""
  frozen = lambda node: isinstance(node, flax.core.FrozenDict)  # noqa: E731
  return jax.tree.map(
    lambda node: flax.core.unfreeze(node) if frozen(node) else node,
    opt_state,
    is_leaf=frozen,
  )
