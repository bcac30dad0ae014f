"""What every door shares: flags, and errors as one line.

Light on purpose: `--help` answers before anything heavy is imported.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from gr_jax.types import UserError

_OVERRIDE = '--gin.'


def run_main(main: Callable[[list[str]], int | None]) -> None:
  """Runs a door and exits with its status; a UserError is one line and 2.

  Args:
    main: takes the arguments after the program's name, returns the exit
      status (None is 0).
  """
  try:
    status = main(sys.argv[1:]) or 0
    sys.stdout.flush()
  except UserError as error:
    line = ' '.join(str(error).split('\n'))
    print(f'error: {line}', file=sys.stderr)
    status = 2
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    status = 130
  except BrokenPipeError:
    # The reader (`| head`) left. What is still buffered has no reader
    # either: without this the interpreter complains while it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    status = 141
  sys.exit(status)


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
