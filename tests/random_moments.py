"""Ends a training, another process, at a random moment of some kind."""

import contextlib
import os
import pathlib
import random
import signal
import time

_DRAW = random.Random(0)
# How long a training takes to its first checkpoint, and a save, about.
_START_SECONDS, _SAVE_SECONDS = 20.0, 0.04
# Who is asked to end saves the step under way first.
_TERM_SECONDS = 30.0
MOMENTS = ('kill any', 'kill save', 'kill later', 'term any', 'term later')


def end(child, moment, run):
  """Waits for the moment, sends the signal, and waits for the end.

  Args:
    child: the process.
    moment: of MOMENTS: 'any' time since the start, amid a 'save', or 'later'
      than the first checkpoint of this process.
    run: the folder of the training.

  Returns:
    The status that waitpid gives; 'saved' if there was a checkpoint by then,
    'saving' if it was amid one, and 'late' if SIGTERM took more than 30 s.
  """
  kind, when = moment.split()
  begin, clock, before = time.time(), time.monotonic(), _whole(run)
  longest = clock + _DRAW.uniform(0.2, _START_SECONDS)
  while True:
    time.sleep(0.001)
    new = _whole(run) - before
    # 'any' ends early enough for all others to find steps that are left.
    if when != 'save' and new:
      break
    if when == 'save' and _unfinished(run, begin):
      break
    if when == 'any' and time.monotonic() > longest:
      break
  time.sleep(_DRAW.uniform(0, _SAVE_SECONDS))
  said = 'saved ' if _whole(run) else ''
  os.kill(child, signal.SIGKILL if kind == 'kill' else signal.SIGTERM)
  sent = time.monotonic()
  _, status = os.waitpid(child, 0)
  if time.monotonic() - sent > _TERM_SECONDS:
    said += 'late '
  return status, said + ('saving' if _unfinished(run, begin) else '')


def _steps(run):
  return pathlib.Path(run, 'checkpoints').glob('step_*')


def _whole(run):
  """Checkpoints that count."""
  return {path.name for path in _steps(run) if _listed(path)}


def _unfinished(run, since):
  """Whether a save has begun since then, and not ended."""
  for path in _steps(run):
    # What is looked at may be removed meanwhile.
    with contextlib.suppress(FileNotFoundError):
      if not _listed(path) and path.stat().st_mtime > since:
        return True
  return False


def _listed(path):
  return (path / 'manifest.json').exists()
