"""Controls: the same run with one thing changed, trained once and kept."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from gr_jax import processes
from gr_jax.index.reader import IndexReader
from gr_jax.types import UserError, near_miss

# random_ids: codes drawn at random, so that what is left is memorisation.
# dense_only: the encoder trained on InfoNCE alone, the fair dense baseline.
NAMES = ('random_ids', 'dense_only')
_STAMP = 'control.json'
# Where things lie, which may change, and how an index is searched, which is
# said when it is opened. The hashes of the inputs stand for what the paths
# lead to, and that of the examples for how they were prepared.
_FREE = (
  'run_dir', 'data_dir', 'cache_dir', 'encoder_weights', 'preparation',
  'search',
)  # fmt: skip


def parse_names(text: str) -> tuple[str, ...]:
  """Reads the value of --controls: names with commas between them.

  Args:
    text: what was given; empty for no control.

  Returns:
    The names, each once, in the order given.
  """
  names = [name.strip() for name in text.split(',') if name.strip()]
  for name in names:
    if name not in NAMES:
      raise UserError(
        f'--controls should name {" or ".join(NAMES)}, got {name!r}'
        f'{near_miss(name, NAMES)}'
      )
  return tuple(dict.fromkeys(names))


def _stamp(
  settings: Mapping[str, object], inputs_sha256: Mapping[str, str]
) -> str:
  effective = {k: v for k, v in settings.items() if k not in _FREE}
  text = json.dumps([effective, dict(inputs_sha256)], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def ensure(
  folder: Path,
  settings: Mapping[str, object],
  inputs_sha256: Mapping[str, str],
  make: Callable[[Path], None],
) -> bool:
  """Makes a control unless the same one is there; every process calls it.

  A control that was interrupted goes on where it stopped (`make` resumes);
  one of other settings or inputs is made anew.

  Args:
    folder: RUN/controls/NAME.
    settings: the control's settings in JSON values.
    inputs_sha256: of what the run's index was made from, as its manifest says.
    make: trains in a folder and builds FOLDER/index last.

  Returns:
    Whether `make` was called.
  """
  stamp = _stamp(settings, inputs_sha256)
  if not processes.first(lambda: _begun(folder, stamp)):
    return False
  make(folder)
  finished = {'sha256': stamp, 'finished': True}
  processes.first(lambda: _write(folder / _STAMP, finished))
  return True


def _begun(folder: Path, stamp: str) -> bool:
  """Begins a control, or goes on with it, unless it is there.

  One of other settings goes.
  """
  mark = folder / _STAMP
  if mark.is_file():
    found = json.loads(mark.read_text(encoding='utf-8'))
    if found.get('sha256') != stamp:
      shutil.rmtree(folder)
    elif found.get('finished') and (folder / 'index').is_dir():
      return False
  elif folder.exists() and any(folder.iterdir()):
    raise UserError(
      f'{folder} should hold a control made here, it has no {_STAMP}: move '
      'it away'
    )
  folder.mkdir(parents=True, exist_ok=True)
  _write(mark, {'sha256': stamp, 'finished': False})
  return True


def check_inputs(folder: Path, inputs_sha256: Mapping[str, str]) -> None:
  """Refuses a control that was made from other inputs than its run.

  Args:
    folder: RUN/controls/NAME with its index.
    inputs_sha256: of the run's index.
  """
  found = IndexReader(folder / 'index').snapshot.base.manifest['inputs_sha256']
  changed = [name for name in found if found[name] != inputs_sha256[name]]
  if changed:
    raise UserError(
      f'{folder} was made from other {" and ".join(changed)} than its run: '
      f'delete it and bring back the former, or train in another RUN_DIR'
    )


def _write(path: Path, contents: Mapping[str, object]) -> None:
  partial = path.with_name(path.name + '.tmp')
  partial.write_text(json.dumps(contents) + '\n', encoding='utf-8')
  os.replace(partial, path)
