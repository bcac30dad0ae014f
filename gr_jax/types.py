"""Records and names shared by every folder, and the dimension key.

Dimension key, used as suffixes of array names and in einsum strings:
  B batch, S tokens, L code positions, K codes of a position, D width of
  document and query vectors, E width of the encoder, M width of the decoder,
  H heads, N documents, W beams, C candidate documents of a query, V text
  vocabulary.
"""

import dataclasses
import difflib
import errno
import math
from collections.abc import Iterable, Mapping

# Stands where a beam or a rank reaches no document.
NO_DOC = -1
# What a disk refuses: whoever runs the door can help it, no traceback can.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
  """Refuses an input in one line: what was expected, what came, the remedy.

  The doors (`python -m gr_jax.*`) print the line and exit with status 2.
  """

  status = 2


def is_refusal(error: BaseException) -> bool:
  """Whether an error says in a line what its user can help; status 2."""
  return isinstance(error, UserError) or (
    isinstance(error, OSError) and error.errno in _REFUSALS
  )


class Terminated(BaseException):
  """SIGTERM asks this process to end, as KeyboardInterrupt says of Ctrl-C.

  The doors print 'terminated' and exit with status 143.
  """


def near_miss(name: str, options: Iterable[str]) -> str:
  """A suffix for an error that names what the user may have meant.

  Args:
    name: what came.
    options: what there is.

  Returns:
    ' (did you mean 'x'?)', or an empty string when nothing is close.
  """
  close = difflib.get_close_matches(name, list(options), n=1)
  return f' (did you mean {close[0]!r}?)' if close else ''


def check_option(place: str, value: str, options: Iterable[str]) -> None:
  """Refuses a value that is none of the options.

  Args:
    place: the setting, as 'SamplingConfig.noise'.
    value: what came.
    options: what there is.
  """
  if value not in options:
    raise UserError(
      f'{place} is one of {list(options)}, not {value!r}'
      f'{near_miss(value, options)}'
    )


def check_range(
  settings: object, ranges: Mapping[str, tuple[float, float]]
) -> None:
  """Refuses fields that are out of range.

  Args:
    settings: a dataclass instance.
    ranges: field to the least value, and the one that it stays below.
  """
  for name, (least, below) in ranges.items():
    value = getattr(settings, name)
    if not least <= value < below:
      wanted = f'at least {least}'
      wanted += f' and below {below}' if math.isfinite(below) else ''
      raise UserError(f'{name} must be {wanted}, got {value}')


@dataclasses.dataclass(frozen=True)
class Document:
  """A text to be found, identified by `id` within its collection."""

  id: str
  title: str
  text: str
  metadata: Mapping[str, object] = dataclasses.field(default_factory=dict)


def document_text(document: Document) -> str:
  """What encoders and baselines read of a document: title, then text."""
  return f'{document.title} {document.text}'.strip()


@dataclasses.dataclass(frozen=True)
class Query:
  """A text that asks, identified by `id` within its collection."""

  id: str
  text: str
  metadata: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Judgement:
  """One line of qrels: a document's relevance to a query, 0 for none."""

  query_id: str
  document_id: str
  relevance: int
