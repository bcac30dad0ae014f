"""Controls: the same run with one thing changed, trained once and kept."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from gr_jax.types import UserError, near_miss

# random_ids: codes drawn at random, so that what is left is memorisation.
# dense_only: the encoder trained on InfoNCE alone, the fair dense baseline.
NAMES = ('random_ids', 'dense_only')
_STAMP = 'control.json'


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


def _stamp(settings: Mapping[str, object], corpus_sha256: str) -> str:
  text = json.dumps([settings, corpus_sha256], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def ensure(
  folder: Path,
  settings: Mapping[str, object],
  corpus_sha256: str,
  make: Callable[[Path], None],
) -> bool:
  """Makes a control unless the same one is there already.

  A control that was interrupted goes on where it stopped (`make` resumes);
  one of other settings or of another corpus is made anew.

  Args:
    folder: RUN/controls/NAME.
    settings: the control's settings in JSON values.
    corpus_sha256: of the corpus it is trained on.
    make: trains in a folder and builds FOLDER/index last.

  Returns:
    Whether `make` was called.
  """
  stamp = _stamp(settings, corpus_sha256)
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
  make(folder)
  _write(mark, {'sha256': stamp, 'finished': True})
  return True


def _write(path: Path, contents: Mapping[str, object]) -> None:
  partial = path.with_name(path.name + '.tmp')
  partial.write_text(json.dumps(contents) + '\n', encoding='utf-8')
  os.replace(partial, path)
