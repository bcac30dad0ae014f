"""Deletes, hides or shows documents of an index, or folds its changes.

python -m gr_jax.change_index --index=runs/NAME/index --delete ID ID ...
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from gr_jax import entry
from gr_jax.types import UserError

_STDIN = '-'


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.change_index',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument(
    '--index', required=True, metavar='PATH', help='as runs/quickstart/index'
  )
  for name, meaning in (
    ('delete', 'take documents out'),
    ('hide', 'keep documents from being found'),
    ('show', 'let hidden documents be found again'),
  ):
    parser.add_argument(
      f'--{name}',
      nargs='+',
      default=[],
      metavar='ID',
      help=f'{meaning}; {_STDIN} reads ids from stdin, one a line',
    )
  parser.add_argument(
    '--fold',
    action='store_true',
    help='then write a version that has all changes, instead of a log of them',
  )
  return parser


def change_index(
  index: pathlib.Path,
  delete: Sequence[str] = (),
  hide: Sequence[str] = (),
  show: Sequence[str] = (),
  fold: bool = False,
) -> str:
  """Changes an index that no other process is changing.

  Args:
    index: the folder of all versions.
    delete: ids of documents that go.
    hide: ids of documents that no search shall find.
    show: ids of hidden documents that are found again.
    fold: whether to write a version that has all changes.

  Returns:
    What was done, and what is in the index now, in a line.
  """
  from gr_jax.index.changes import Delete, Hide, Show
  from gr_jax.index.living import LivingIndex

  entry.refuse_several_processes()
  done = []
  with LivingIndex(index) as living:
    for names, kind, what in (
      (delete, Delete, 'deleted'),
      (hide, Hide, 'hid'),
      (show, Show, 'showed'),
    ):
      if names:
        distinct = list(dict.fromkeys(names))
        living.apply(kind(distinct))
        plural = 's' if len(distinct) > 1 else ''
        done.append(f'{what} {len(distinct):,} document{plural}')
    if fold:
      done.append(f'wrote {living.fold()}')
    snapshot = living.snapshot
    return (
      f'{", ".join(done)}: {snapshot.there:,} documents are in the index now, '
      f'{snapshot.there - snapshot.count:,} of them hidden'
    )


def _ids(given: Sequence[str]) -> list[str]:
  """The ids of a flag, those from stdin among them."""
  names = []
  for name in given:
    names += sys.stdin.read().splitlines() if name == _STDIN else [name]
  return [name for name in names if name]


def main(arguments: list[str]) -> int:
  """The door: flags to one call."""
  flags = _parser().parse_args(arguments)
  given = {
    name: _ids(getattr(flags, name)) for name in ('delete', 'hide', 'show')
  }
  if not any(given.values()) and not flags.fold:
    raise UserError('name what to --delete, --hide or --show, or --fold')
  print(change_index(pathlib.Path(flags.index), **given, fold=flags.fold))
  return 0


if __name__ == '__main__':
  entry.run_main(main)
