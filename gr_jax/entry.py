"""What every door shares: flags, and errors as one line.

Light on purpose: `--help` answers before anything heavy is imported.
"""

import argparse
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from gr_jax import processes
from gr_jax.types import Terminated, UserError, is_refusal

_OVERRIDE = '--gin.'
_ERROR = 'error: '
_INTERRUPTED = 'interrupted'
_TERMINATED = 'terminated'
# Seconds that an interrupted process has to tidy up.
_TIDY_SECONDS = 3.0
_VIRTUAL = re.compile(r'--xla_force_host_platform_device_count=(\d+)')
# Threads of XLA for each virtual device: one deadlocks, two did not.
_DEVICE_THREADS = 8


def run_main(main: Callable[[list[str]], int | None]) -> None:
  """Runs a door and exits with its status.

  A UserError, or a disk that refuses, is one line and status 2; Ctrl-C is 130,
  SIGTERM 143, as shells say it.

  Args:
    main: takes the arguments after the program's name, returns the exit
      status (None is 0).
  """
  give_threads_to_virtual_devices(os.environ)
  before = signal.signal(signal.SIGTERM, _terminate)
  try:
    status = main(sys.argv[1:]) or 0
    sys.stdout.flush()
  except UserError as error:
    line = ' '.join(str(error).split('\n'))
    print(f'{_ERROR}{line}', file=sys.stderr)
    status = error.status
  except KeyboardInterrupt:
    print(_INTERRUPTED, file=sys.stderr)
    status = 130
  except Terminated:
    print(_TERMINATED, file=sys.stderr)
    status = 143
  except BrokenPipeError:
    # The reader (`| head`) left. What is still buffered has no reader
    # either: without this the interpreter complains while it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    status = 141
  except OSError as error:
    if not is_refusal(error):
      raise
    print(f'{_ERROR}{error.filename}: {error.strerror}', file=sys.stderr)
    status = 2
  finally:
    signal.signal(signal.SIGTERM, before)
  processes.leave(status)
  sys.exit(status)


def _terminate(number, frame):
  """Unwinds, so that nothing half-written stays; once, then in peace."""
  signal.signal(number, signal.SIG_IGN)
  raise Terminated


def run_apart(
  module: str, arguments: Sequence[str], silent: bool = False
) -> None:
  """Runs another door in a process of its own, as if it were this one.

  What it says appears as it comes, but its error line is raised here, so that
  there is one such line whoever asked. Its temporary files end with it,
  however it ends.

  Args:
    module: the door, for instance 'gr_jax.prepare'.
    arguments: what follows the program's name.
    silent: drops what it writes to standard output.

  Raises:
    UserError: when the door failed, with its reason.
  """
  reason = ''
  with tempfile.TemporaryDirectory(prefix='gr_jax_') as scratch:
    process = subprocess.Popen(
      [sys.executable, '-m', module, *arguments],
      stdout=subprocess.DEVNULL if silent else None,
      stderr=subprocess.PIPE,
      env={**os.environ, 'TMPDIR': scratch},
    )
    # With newline='' a bar, which returns to its start, is passed on too.
    said = io.TextIOWrapper(
      process.stderr, encoding='utf-8', errors='replace', newline=''
    )
    with process, said:
      try:
        for line in said:
          if line.startswith(_ERROR):
            reason = line.removeprefix(_ERROR).strip()
          elif line.strip() not in (_INTERRUPTED, _TERMINATED):
            sys.stderr.write(line)
            sys.stderr.flush()
      except Terminated:
        # Sent to this process alone, as a rule.
        process.terminate()
        _end(process)
        raise
      except BaseException:
        _end(process)
        raise
  if reason:
    raise UserError(reason)
  if process.returncode == -signal.SIGKILL:
    raise UserError(f'{module} was killed, as happens when memory runs out')
  if process.returncode:
    raise UserError(
      f'{module} ended with status {process.returncode}: see what it says above'
    )


def _end(process: subprocess.Popen) -> None:
  """Ends a process; a terminal has interrupted it together with this one."""
  for kind in (signal.SIGINT, signal.SIGKILL):
    try:
      process.wait(_TIDY_SECONDS)
    except subprocess.TimeoutExpired:
      process.send_signal(kind)


def keep_compiled() -> None:
  """Keeps compiled programs in the user's cache, so that starts are short.

  The folder is gr_jax/xla in XDG_CACHE_HOME (~/.cache). JAX's own variables
  win: JAX_COMPILATION_CACHE_DIR is another folder, and with
  JAX_ENABLE_COMPILATION_CACHE=false nothing is kept or read.
  """
  import jax

  if jax.config.jax_compilation_cache_dir:
    return
  cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  jax.config.update(
    'jax_compilation_cache_dir', os.path.join(cache, 'gr_jax', 'xla')
  )
  # By default only what took a second to compile is kept.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def give_threads_to_virtual_devices(environment) -> None:
  """Lets XLA have more threads than virtual CPU devices.

  An all-reduce holds its thread until the other devices come. XLA has as many
  threads as there are devices or cores, and one program's all-reduces of
  different groups may be under way together: when they hold all threads, the
  devices that they wait for never come. NPROC is read when devices are first
  asked for; one that is set is left.

  Args:
    environment: os.environ, before JAX asks for its devices.
  """
  found = _VIRTUAL.findall(environment.get('XLA_FLAGS', ''))
  if found and int(found[-1]) > 1:
    environment.setdefault('NPROC', str(_DEVICE_THREADS * int(found[-1])))


def refuse_several_processes() -> None:
  """Refuses to run as one of several processes: all would write the files.

  Raises:
    UserError: when jax.distributed has joined processes.
  """
  import jax

  if jax.process_count() > 1:
    raise UserError(
      f'expected one process, this is one of {jax.process_count()}: start it '
      'once, on one machine'
    )


def add_bad_records_flag(parser: argparse.ArgumentParser) -> None:
  """Adds --max_bad_records, of a door that reads a collection itself."""
  parser.add_argument(
    '--max_bad_records',
    type=int,
    default=0,
    metavar='N',
    help='of the collection that are left out',
  )


def add_gin_flags(parser: argparse.ArgumentParser) -> None:
  """Adds --gin_file; --gin.NAME=value is taken by `parse_arguments`."""
  parser.add_argument(
    '--gin_file',
    action='append',
    metavar='PATH',
    required=True,
    help='settings, found from the working directory, then the package;'
    ' may be repeated, the later file wins',
  )
  parser.add_argument(
    '--gin.NAME',
    dest='gin_example',
    action='store',
    metavar='VALUE',
    help='overrides a macro (NAME) or a setting (Settings.field)',
  )


def add_run_dir_flag(
  parser: argparse.ArgumentParser, required: bool = True
) -> None:
  """Adds --run_dir, the folder that a training run wrote."""
  parser.add_argument(
    '--run_dir',
    metavar='PATH',
    required=required,
    help='the folder of the run',
  )


def parse_arguments(
  parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
  """Parses a door's arguments.

  Args:
    parser: the door's parser.
    arguments: what follows the program's name.

  Returns:
    The namespace, and the overrides 'NAME=value' in order, free of --gin. .
  """
  flags, overrides = [], []
  words = iter(arguments)
  for word in words:
    if not word.startswith(_OVERRIDE):
      flags.append(word)
      continue
    override = word.removeprefix(_OVERRIDE)
    if '=' not in override:
      # As absl does it: --gin.NAME value.
      override = f'{override}={next(words, "")}'
    overrides.append(override)
  return parser.parse_args(flags), overrides
