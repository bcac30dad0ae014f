"""For processes that kill themselves before a step towards the disk."""

import os
import pathlib
import signal

from gr_jax.index import versions


def die_before(step):
  """Kills this process before so many steps more were made, from 0."""
  left = [step]

  def fatal(name, place):
    real = getattr(place, name)

    def wrapped(*args, **kwargs):
      left[0] -= 1
      if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
      return real(*args, **kwargs)

    setattr(place, name, wrapped)

  fatal('sync', versions)
  fatal('rename', pathlib.Path)
  fatal('replace', pathlib.Path)
