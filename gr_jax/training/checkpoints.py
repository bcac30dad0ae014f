"""Checkpoints that notice a flipped bit; the only file that imports orbax.

  DIRECTORY/step_00000500/
    state/          the arrays, by orbax
    data.json       where the loader stands (.bin for bytes), for any number of
                    processes
    manifest.json   written last: size and crc32c of each file, names, shapes
                    and types of the arrays, hashes of what it depends on

A step without a manifest was interrupted: it does not count, and the next
save clears it away. orbax restores a flipped bit silently, so every file is
checked before anything is read.
"""

import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import jax
import numpy as np
from orbax import checkpoint as ocp

from gr_jax import processes
from gr_jax.training.failed_saves import explained, silence_orbax
from gr_jax.training.manifests import (
  FileDamaged,
  check_files,
  describe_files,
  read_manifest,
  write_manifest,
)
from gr_jax.types import UserError

STEP = re.compile(r'step_(\d{8,})')
_MANIFEST = 'manifest.json'
_STATE = 'state'
_DATA = 'data'
# Besides the parameters that train, a state keeps those that do not.
_PARAMETERS = ('frozen', 'params')


@dataclasses.dataclass(frozen=True)
class Restored:
  """What a checkpoint held.

  Attributes:
    state: the pytree, with the types and shardings that were asked for.
    data_state: what the loader gave to `save`.
  """

  state: Any
  data_state: bytes | dict


class Checkpoints:
  """The checkpoints of a run.

  Saves run in the background: `save` returns as soon as the arrays are
  copied from the device. An error of a save is raised by the next call, of
  `check` for instance.
  """

  def __init__(self, directory: str | pathlib.Path, keep: int = 2):
    """Opens a folder; nothing is written or cleared before the first save.

    Args:
      directory: need not exist. orbax wants it absolute, and would say so
        only at the first save.
      keep: how many good steps stay.
    """
    if keep < 1:
      raise UserError(f'keep at least one checkpoint, got {keep}')
    self.directory = pathlib.Path(directory).absolute()
    if self.directory.exists() and not self.directory.is_dir():
      raise UserError(f'{self.directory} is a file, expected a folder')
    self._keep = keep
    silence_orbax()
    self._orbax = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
    self._background = futures.ThreadPoolExecutor(1, 'checkpoint')
    self._unfinished: futures.Future | None = None
    # The step whose state this process has saved or restored.
    self._same: int | None = None
    self._cleared = False

  def steps(self) -> list[int]:
    """The steps that were saved to the end, in order."""
    if not self.directory.is_dir():
      return []
    return sorted(
      int(match[1])
      for path in self.directory.iterdir()
      if (match := STEP.fullmatch(path.name)) and (path / _MANIFEST).exists()
    )

  def latest(self) -> int | None:
    """The last step that was saved to the end, or None."""
    return max(self.steps(), default=None)

  def check_space(self, state: Any) -> None:
    """Refuses to start where less than two checkpoints fit.

    Args:
      state: what will be saved, arrays or their shapes.
    """
    self._check_space(state, copies=2)

  def save(
    self,
    step: int,
    state: Any,
    data_state: bytes | dict,
    hashes: Mapping[str, str],
  ) -> None:
    """Saves in the background; every process calls it.

    Args:
      step: of the state. A checkpoint of the same step is replaced, unless it
        is this object's own: a save that a kill cuts short would lose it.
      state: pytree of arrays.
      data_state: of the loader, the same on every process.
      hashes: name to hash of what a restore must agree with, for instance
        the vocabulary.
    """
    self.wait()
    if step == self._same:
      return
    folder = self._folder(step)
    processes.first(lambda: self._make_folder(folder, state, data_state))
    with explained(folder):
      self._orbax.save(folder / _STATE, args=ocp.args.PyTreeSave(state))
    manifest = {
      'step': step,
      'arrays': _describe_arrays(state),
      'hashes': dict(hashes),
    }
    self._unfinished = self._background.submit(self._finish, folder, manifest)
    self._same = step

  def _make_folder(self, folder, state, data_state) -> None:
    """Makes room for a step; one process does it for all."""
    self._check_space(state, copies=1)
    with explained(folder):
      self._clear_unfinished()
      _remove_step(folder)
      folder.mkdir(parents=True)
      _write_data_state(folder, data_state)

  def check(self) -> None:
    """Raises what has gone wrong with a save by now; waits for nothing."""
    if self._unfinished is not None and self._unfinished.done():
      self.wait()

  def wait(self) -> None:
    """Returns when nothing is being written; raises what went wrong."""
    if self._unfinished is not None:
      unfinished, self._unfinished = self._unfinished, None
      unfinished.result()

  def close(self) -> None:
    """Waits and gives back orbax's threads."""
    try:
      self.wait()
    finally:
      self._background.shutdown()
      self._orbax.close()

  def verify(self, step: int) -> dict:
    """Checks every file of a checkpoint.

    Args:
      step: one of `steps()`.

    Returns:
      The manifest.

    Raises:
      UserError: names the first file that differs, and what to do.
    """
    folder = self._folder(step)
    if step not in self.steps():
      known = ', '.join(map(str, self.steps())) or 'none'
      raise UserError(
        f'{self.directory} has no checkpoint of step {step} (there are:'
        f' {known})'
      )
    try:
      manifest = read_manifest(folder / _MANIFEST)
      check_files(folder, manifest['files'])
    except FileDamaged as error:
      others = [s for s in self.steps() if s != step]
      remedy = f'go on from step {others[-1]}' if others else 'start again'
      raise UserError(f'{error}; delete {folder} to {remedy}') from error
    return manifest

  def restore(
    self, step: int, abstract_state: Any, hashes: Mapping[str, str]
  ) -> Restored:
    """Restores a checkpoint on this mesh, bit for bit.

    Args:
      step: one of `steps()`.
      abstract_state: pytree of jax.ShapeDtypeStruct with shardings (arrays do
        as well); the mesh may be another than that of the save.
      hashes: as given to `save`; each must be the same.

    Returns:
      The state and the data state.
    """
    manifest = processes.first(lambda: self.verify(step))
    folder = self._folder(step)
    _compare_hashes(folder, manifest['hashes'], hashes)
    _compare_arrays(folder, manifest['arrays'], abstract_state)
    state = self._orbax.restore(
      folder / _STATE,
      args=ocp.args.PyTreeRestore(
        item=abstract_state,
        restore_args=ocp.checkpoint_utils.construct_restore_args(
          abstract_state
        ),
      ),
    )
    return Restored(state, _read_data_state(folder))

  def resume(self, state: Any, batches: Any, hashes: Mapping[str, str]) -> Any:
    """The state of the last checkpoint, or the given one where there is none.

    Args:
      state: at step 0, with the types and shardings that are wanted.
      batches: an iterator with set_state, moved to where that state stands.
      hashes: of what a checkpoint depends on, see `save`.

    Raises:
      UserError: a checkpoint is damaged or of other inputs, or the disk is too
        small for the first one.
    """
    latest = processes.first(self.latest)
    if latest is None:
      processes.first(lambda: self.check_space(state))
      return state
    restored = self.restore(latest, state, hashes)
    batches.set_state(restored.data_state)
    self._same = latest
    return restored.state

  def restore_params(self, step: int) -> dict:
    """The model's parameters, for readers that know nothing of the training.

    Args:
      step: one of `steps()`.

    Returns:
      Nested dict of numpy arrays, trained and frozen parameters joined.
    """
    manifest = processes.first(lambda: self.verify(step))
    wanted: dict = {}
    for name, (shape, dtype) in manifest['arrays'].items():
      *path, leaf = name.split('/')
      if path and path[0] in _PARAMETERS:
        node = wanted
        for key in path:
          node = node.setdefault(key, {})
        node[leaf] = jax.ShapeDtypeStruct(shape, np.dtype(dtype))
    restored = self._orbax.restore(
      self._folder(step) / _STATE,
      args=ocp.args.PyTreeRestore(
        item=wanted,
        restore_args=jax.tree.map(
          lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
        ),
        partial_restore=True,
      ),
    )
    joined: dict = {}
    for part in _PARAMETERS:
      joined.update(restored.get(part, {}))
    return joined

  def _folder(self, step: int) -> pathlib.Path:
    return self.directory / f'step_{step:08d}'

  def _finish(self, folder: pathlib.Path, manifest: dict) -> None:
    """In the background: awaits orbax, then declares the step good."""
    with explained(folder):
      self._orbax.wait_until_finished()
      if jax.process_index() == 0:
        files = describe_files(folder)
        write_manifest(folder / _MANIFEST, {**manifest, 'files': files})
        for step in self.steps()[: -self._keep]:
          _remove_step(self._folder(step))

  def _clear_unfinished(self) -> None:
    """Removes what an interrupted save left, once a process."""
    if self._cleared or not self.directory.is_dir():
      return
    good = {self._folder(step) for step in self.steps()}
    for path in self.directory.iterdir():
      if STEP.fullmatch(path.name) and path not in good:
        shutil.rmtree(path)
    self._cleared = True

  def _check_space(self, state: Any, copies: int) -> None:
    place = self.directory
    while not place.exists():
      place = place.parent
    free = shutil.disk_usage(place).free
    size = sum(
      int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize
      for leaf in jax.tree.leaves(state)
    )
    if free < copies * size:
      raise UserError(
        f'{self.directory}: {free:,} bytes are free, a checkpoint takes'
        f' {size:,} and {copies} must fit; free some or set another RUN_DIR'
      )


def _remove_step(folder: pathlib.Path) -> None:
  """Removes a step; without its manifest it does not count any more."""
  (folder / _MANIFEST).unlink(missing_ok=True)
  if folder.exists():
    shutil.rmtree(folder)


def _write_data_state(folder: pathlib.Path, data_state: bytes | dict) -> None:
  if isinstance(data_state, bytes):
    (folder / f'{_DATA}.bin').write_bytes(data_state)
  else:
    (folder / f'{_DATA}.json').write_text(json.dumps(data_state))


def _read_data_state(folder: pathlib.Path) -> bytes | dict:
  # data_0 was written while there was but one process.
  for stem in (folder / _DATA, folder / f'{_DATA}_0'):
    if stem.with_suffix('.bin').exists():
      return stem.with_suffix('.bin').read_bytes()
    if stem.with_suffix('.json').exists():
      return json.loads(stem.with_suffix('.json').read_text())
  raise UserError(f'{folder} has no {_DATA}.json, where the loader stood')


def _describe_arrays(state: Any) -> dict[str, tuple[list[int], str]]:
  """{'params/encoder/kernel': ([8, 4], 'float32')}."""
  described = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    described[name] = (list(leaf.shape), np.dtype(leaf.dtype).name)
  return described


def _compare_hashes(
  folder: pathlib.Path, saved: Mapping[str, str], given: Mapping[str, str]
) -> None:
  for name in sorted({*saved, *given}):
    was, now = saved.get(name, 'absent'), given.get(name, 'absent')
    if was != now:
      raise UserError(
        f'{folder} was made with {name} {was[:12]}, this run has'
        f' {now[:12]}: bring back the former, or train into another RUN_DIR'
      )


def _compare_arrays(
  folder: pathlib.Path, saved: Mapping[str, list], abstract_state: Any
) -> None:
  """Refuses another tree, shape or type: orbax would cast silently."""
  given = _describe_arrays(abstract_state)
  for name in sorted({*saved, *given}):
    was = tuple(saved.get(name, ('absent', '')))
    now = given.get(name, ('absent', ''))
    if was != now:
      raise UserError(
        f'{folder} holds {name} as {was[1]}{was[0]}, this run has'
        f' {now[1]}{now[0]}: restore with the settings it was made with, or'
        ' train into another RUN_DIR'
      )
