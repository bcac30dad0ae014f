"""Ctrl-C and SIGTERM between two steps, never in the middle of a save."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from gr_jax.types import Terminated


class Stop:
  """What a training was asked by signals, answered where nothing is half done.

  A first Ctrl-C ends it before the next step, a second one at once. SIGTERM,
  which a scheduler sends some seconds before it kills, has the state of the
  current step saved first; more of them change nothing.
  """

  def __init__(self):
    """Nothing was asked yet."""
    # What `check` calls besides.
    self.also: Callable[[], None] = lambda: None
    self._asked: int | None = None
    self._ending = False
    self._waits = True

  def remember(self, number, frame):
    """The handler of both signals."""
    again = self._asked == number
    if number == signal.SIGTERM:
      self._asked = number
      if not self._waits:
        self._waits = True
        raise Terminated
    elif again or not self._waits:
      signal.default_int_handler(number, frame)
    else:
      self._asked = self._asked or number

  def asked(self, step: int) -> bool:
    """Whether this step is the last for now, its state to be saved.

    Of several processes all get the same answer, whichever was signalled.

    Args:
      step: updates done; every step is asked about.
    """
    if jax.process_count() > 1:
      ending = multihost_utils.reached_preemption_sync_point(step)
    else:
      ending = self._asked == signal.SIGTERM
    self._ending = self._ending or ending
    return self._ending

  def check(self) -> None:
    """Raises what was asked for, before a step.

    Raises:
      KeyboardInterrupt: there was a Ctrl-C.
      Terminated: there was a SIGTERM, and `asked` has said so.
      UserError: what `also` refuses.
    """
    self.also()
    if self._ending:
      raise Terminated
    if self._asked == signal.SIGINT:
      raise KeyboardInterrupt

  def finish(self) -> None:
    """Raises what came too late for `check`, once all is saved."""
    self._ending = self._ending or self._asked == signal.SIGTERM
    self.check()

  @contextlib.contextmanager
  def at_once(
    self,
    save: Callable[[int, Any, Any], None],
    step: int,
    state: Any,
    data_state: Any,
  ) -> Iterator[None]:
    """Does not wait for what is inside, which may take minutes.

    Args:
      save: (step, state, data_state) -> None, called on SIGTERM.
      step: updates done before it.
      state: of that step; what is inside must not donate it.
      data_state: of the batches at that step.

    Raises:
      KeyboardInterrupt: there was a Ctrl-C.
      Terminated: there was a SIGTERM, and the state is saved.
    """
    try:
      self._waits = False
      if self._asked == signal.SIGTERM and jax.process_count() == 1:
        raise Terminated
      yield
    except Terminated:
      self._waits = True
      # Nothing was done by step 0.
      if step:
        save(step, state, data_state)
      raise
    finally:
      self._waits = True


@contextlib.contextmanager
def deferred() -> Iterator[Stop]:
  """Takes over both signals; gives them back at the end.

  orbax saves on an event loop that an exception out of nowhere would leave
  half closed. SIGTERM of one of several processes is taken by JAX, which tells
  all of them.

  Yields:
    What was asked for; what nobody answered by the end is raised then.
  """
  stop = Stop()
  if threading.current_thread() is not threading.main_thread():
    # Only the main thread receives signals and may choose how.
    yield stop
    return
  signals = [signal.SIGINT]
  if jax.process_count() == 1:
    signals.append(signal.SIGTERM)
  before = {each: signal.signal(each, stop.remember) for each in signals}
  try:
    yield stop
  finally:
    for each, handler in before.items():
      signal.signal(each, handler)
  stop.finish()
