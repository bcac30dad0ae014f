"""Several processes that work as one: how they find each other and wait.

Each has its own devices; a mesh spans them all, and all read and write the
same folders. Process 0 does what only one may do, the others wait for it, and
what it refuses all refuse. A process that is lost ends the others.

Light on purpose, as entry.py is: `--help` answers before jax is imported.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from gr_jax.types import UserError, is_refusal

# Seconds without a sign of life after which a process counts as lost.
HEARTBEAT = 100
# Seconds in which processes must have found each other.
_MEETING = 300
# Seconds that process 0 gives the others to read why it failed.
_FAREWELL = 20
# Seconds that it gives them to come to their own end after that.
_LEAVE_SECONDS = 10
# Seconds between two looks at what another process has said.
_LOOK, _LONGEST_LOOK = 0.02, 2.0
# What jax says, in an error of any of these kinds, of one that is gone.
_ERRORS = (RuntimeError, ValueError)
_SIGNS = (
  'Gloo ',
  'UNAVAILABLE',
  'DEADLINE_EXCEEDED',
  'heartbeat',
  'oordination service',
  'NCCL',
)

# Under this and its number a process says that it leaves.
_LEFT = 'gr_jax/left'

# How often processes have waited for each other: names the next occasion.
_occasions = 0
# Whether process 0 is doing something alone.
_alone = False


class LostProcess(UserError):
  """Another process is gone; the same commands go on from what was saved."""

  status = 75


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags by which a door becomes one of several processes."""
  group = parser.add_argument_group('several processes')
  group.add_argument(
    '--distributed',
    action='store_true',
    help='finds the others by what SLURM, Kubernetes, Cloud TPU or Open MPI '
    'say',
  )
  group.add_argument(
    '--coordinator',
    metavar='HOST:PORT',
    help='where process 0 listens, without a password: for a private network',
  )
  group.add_argument('--processes', type=int, metavar='N', help='of all')
  group.add_argument(
    '--process', type=int, metavar='I', help='number of this one, from 0'
  )
  group.add_argument(
    '--coordinator_bind',
    metavar='ADDRESS[:PORT]',
    help='address that process 0 listens at; default: HOST:PORT alone',
  )
  group.add_argument(
    '--heartbeat_timeout',
    type=int,
    default=HEARTBEAT,
    metavar='SECONDS',
    help=f'a process that is silent for so long is lost; default: {HEARTBEAT}',
  )


@contextlib.contextmanager
def joined(flags: argparse.Namespace) -> Iterator[None]:
  """Runs a door as one of several processes, where its flags ask for that.

  Args:
    flags: with those of `add_flags`.

  Raises:
    UserError: for flags that do not fit each other, or when the processes do
      not find each other; LostProcess when one is lost.
  """
  explicit = (flags.coordinator, flags.processes, flags.process)
  if not flags.distributed and explicit == (None, None, None):
    if flags.coordinator_bind:
      raise UserError('--coordinator_bind needs --coordinator or --distributed')
    yield
    return
  _join(flags, explicit)
  try:
    yield
  except _ERRORS as error:
    if several() and any(sign in str(error) for sign in _SIGNS):
      raise LostProcess(
        'another process failed or was lost: its own output says why. Start '
        f'all again, they go on from what was saved ({_first_line(error)})'
      ) from error
    raise


def _join(flags: argparse.Namespace, explicit: tuple) -> None:
  """Finds the other processes."""
  import jax
  from jax._src import clusters

  address, count, index = explicit
  local = None
  if flags.distributed:
    # What jax.distributed.initialize would do itself; done here because only
    # with the address can the coordinator be bound to it alone.
    address, count, index, local = (
      clusters.ClusterEnv.auto_detect_unset_distributed_params(
        *explicit, None, None, _MEETING
      )
    )
  if None in (address, count, index):
    given = 'found only' if flags.distributed else 'expected all of'
    raise UserError(
      f'{given} --coordinator={address} --processes={count} '
      f'--process={index}: give all three'
      + ('' if flags.distributed else ', or --distributed alone')
    )
  host, _, port = address.rpartition(':')
  if not host or not port.isdigit():
    raise UserError(f'--coordinator is HOST:PORT, got {address!r}')
  if not 0 <= index < count:
    raise UserError(
      f'--process={index} should be from 0 to {count - 1}, of '
      f'--processes={count}'
    )
  try:
    jax.distributed.initialize(
      address,
      count,
      index,
      local,
      cluster_detection_method='deactivate',
      coordinator_bind_address=_bind(flags.coordinator_bind or address, port),
      initialization_timeout=_MEETING,
      heartbeat_timeout_seconds=flags.heartbeat_timeout,
      shutdown_timeout_seconds=flags.heartbeat_timeout,
    )
  except RuntimeError as error:
    raise UserError(
      f'process {index} of {count} did not find the others at {address}: '
      f'{_first_line(error)}'
    ) from error


def _bind(address: str, port: str) -> str:
  """ADDRESS:PORT to listen at, '[::]' of IPv6 in brackets."""
  has_port = address.rpartition(':')[2].isdigit() and not address.endswith(']')
  return address if has_port else f'{address}:{port}'


def _first_line(error: BaseException) -> str:
  return str(error).partition('\n')[0][:200]


def several() -> bool:
  """Whether there are other processes that take part in what comes now."""
  return count() > 1


def count() -> int:
  """How many processes take part in what comes now."""
  # Without a client there is but one, and jax need not be asked, which would
  # make it take hold of its devices.
  return 1 if _alone or _client() is None else _state().num_processes


def index() -> int:
  """The number of this process among them."""
  return _state().process_id if several() else 0


def say(line: str) -> None:
  """Prints a line, of which the others would print copies."""
  if index() == 0:
    sys.stdout.write(f'{line}\n')
    sys.stdout.flush()


def first(action: Callable[[], Any]) -> Any:
  """Process 0 does something that only one may do; the others wait.

  Meanwhile process 0 counts as the only one, and what it computes stays on
  its own devices.

  Args:
    action: without arguments; what it returns goes through JSON.

  Returns:
    What it returned, on every process.

  Raises:
    UserError: on every process, for whatever process 0 refused; LostProcess
      on the others when it failed otherwise.
  """
  global _alone
  if not several():
    return action()
  name = _occasion()
  if index():
    return _answer(name)
  try:
    _alone = True
    with local_devices(always=True):
      value = action()
  except BaseException as error:
    line = _first_line(error) or type(error).__name__
    _publish(name, {'error': line, 'refused': is_refusal(error)})
    _part(name)
    raise
  finally:
    _alone = False
  _publish(name, {'value': value})
  return value


def _answer(name: str) -> Any:
  """What process 0 returned, once it has."""
  pause = _LOOK
  while (text := _read(name)) is None:
    time.sleep(pause)
    pause = min(pause * 1.5, _LONGEST_LOOK)
  answer = json.loads(text)
  if 'error' in answer:
    _part(name)
    # Launchers try again what was lost, not what was refused.
    kind = UserError if answer['refused'] else LostProcess
    raise kind(f'process 0: {answer["error"]}')
  return answer['value']


def _part(name: str) -> None:
  """Stays until the others know; the store of messages ends with process 0."""
  with contextlib.suppress(*_ERRORS):
    _client().wait_at_barrier(f'{name}/farewell', _FAREWELL * 1000)


def meet() -> None:
  """Returns when every process has come here."""
  if not several():
    return
  name = _occasion()
  _client().key_value_set(f'{name}/{index()}', '')
  pause = _LOOK
  while len(_client().key_value_dir_get(f'{name}/')) < count():
    time.sleep(pause)
    pause = min(pause * 1.5, _LONGEST_LOOK)


def agree(value: str, what: str) -> None:
  """Refuses to go on where processes would go on differently.

  Args:
    value: of this process, for instance a checksum.
    what: it is of.
  """
  if not several():
    return
  expected = first(lambda: value)
  if value != expected:
    raise UserError(
      f'process {index()} has another {what} than process 0 ({value[:12]}, '
      f'{expected[:12]}): let all of them have the same software and kind of '
      'machine'
    )


@contextlib.contextmanager
def local_devices(always: bool = False) -> Iterator[None]:
  """Computes on this process's own devices, not on the mesh of all.

  Args:
    always: also where this process counts as the only one.
  """
  import jax
  import numpy as np

  mesh = jax.sharding.get_mesh()
  if mesh.empty or not (several() or always):
    yield
    return
  devices = np.array(jax.local_devices())
  shape = (-1,) + (1,) * (len(mesh.axis_names) - 1)
  local = jax.sharding.Mesh(
    devices.reshape(shape), mesh.axis_names, axis_types=mesh.axis_types
  )
  with jax.set_mesh(local):
    yield


def leave(status: int) -> None:
  """Ends a process that failed, soon: others may never come to the end.

  Process 0 holds what tells the others why, and the end of it ends them: it
  stays until they have left, or for a moment.
  """
  if status and _client() is not None:
    import os

    sys.stdout.flush()
    sys.stderr.flush()
    if status != LostProcess.status:
      with contextlib.suppress(*_ERRORS):
        _let_leave()
    os._exit(status)


def _let_leave() -> None:
  """Says that this process leaves; process 0 waits for the others to."""
  if index():
    _publish(f'{_LEFT}/{index()}', {})
    return
  deadline = time.monotonic() + _LEAVE_SECONDS
  others = {f'{_LEFT}/{number}' for number in range(1, count())}
  while others and time.monotonic() < deadline:
    others = {name for name in others if _read(name) is None}
    time.sleep(0.05)


def _occasion() -> str:
  global _occasions
  _occasions += 1
  return f'gr_jax/{_occasions}'


def _publish(name: str, answer: dict) -> None:
  _client().key_value_set(name, json.dumps(answer))


def _read(name: str) -> str | None:
  """What stands under a name, None for nothing yet."""
  try:
    return _client().key_value_try_get(name)
  except _ERRORS as error:
    if 'NOT_FOUND' not in str(error):
      raise
    return None


def _client() -> Any:
  """The client of the store of messages, None for a single process."""
  return _state().client if 'jax' in sys.modules else None


def _state() -> Any:
  # What orbax goes by as well: jax has no public name for it.
  from jax._src import distributed

  return distributed.global_state
