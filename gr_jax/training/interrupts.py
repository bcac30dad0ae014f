"""Ctrl-C between two steps, never in the middle of a save."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], None]]:
  """Holds a first Ctrl-C back until it is asked for.

  orbax saves on an event loop that an exception out of nowhere would leave
  half closed. A second Ctrl-C interrupts at once.

  Yields:
    A function that raises KeyboardInterrupt if there was a Ctrl-C.
  """
  if threading.current_thread() is not threading.main_thread():
    # Only the main thread receives signals and may choose how.
    yield lambda: None
    return
  asked = False

  def remember(number, frame):
    nonlocal asked
    if asked:
      signal.default_int_handler(number, frame)
    asked = True

  def check():
    if asked:
      raise KeyboardInterrupt

  before = signal.signal(signal.SIGINT, remember)
  try:
    yield check
  finally:
    signal.signal(signal.SIGINT, before)
