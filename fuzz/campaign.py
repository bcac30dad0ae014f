"""What the targets share: bytes as numbers, and the loop of atheris."""

import gc
import sys
import types
from collections.abc import Callable, Sequence


class Source:
  """Numbers read off the bytes of an input; zeros behind its end."""

  def __init__(self, data: bytes):
    self._data = data
    self._read = 0

  def __bool__(self) -> bool:
    return self._read < len(self._data)

  def bytes(self, count: int) -> bytes:
    """The next bytes, fewer at the end."""
    self._read += count
    return self._data[self._read - count : self._read]

  def below(self, limit: int) -> int:
    """A number below `limit`, of one byte or two."""
    size = 1 if limit <= 256 else 2
    return int.from_bytes(self.bytes(size), 'little') % limit


def run(check: Callable[[bytes], None], packages: Sequence[str]) -> None:
  """Calls `check` with the inputs of atheris, for ever or as flags say.

  Args:
    check: raises where an input is not treated as it should be.
    packages: whose branches tell which inputs are new.
  """
  # Only campaigns need it.
  import atheris

  for each in gc.get_objects():
    if isinstance(each, types.FunctionType):
      module = f'{each.__module__}.'
      if any(module.startswith(f'{package}.') for package in packages):
        atheris.instrument_func(each)
  atheris.Setup(sys.argv, check)
  atheris.Fuzz()
