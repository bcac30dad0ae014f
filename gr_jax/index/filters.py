"""Conditions on the fields of documents, as values and as texts."""

import bisect
import dataclasses
import operator
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from gr_jax.index.columns import FLOAT, TEXT
from gr_jax.types import UserError

Value = str | int | float | bool

_FILTER = re.compile(r'([^=<>]+)(>=|<=|=)(?![=<>])(.*)', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Between:
  """Values of a range, both ends included, None for an open end.

  Numbers are compared by value, text by code point: dates as '2024-05-31'
  stand in their order. Open at both ends, it asks for any value at all.
  """

  least: Value | None = None
  most: Value | None = None


Condition = Value | Collection[Value] | Between


def parse_filters(texts: Sequence[str]) -> dict[str, Condition]:
  r"""Conditions as they are given on a command line.

  'tenant=acme' asks for a value, 'language=en,de' for any of several,
  'year>=2020' and 'year<=2024' for a range, of which both may be given. A
  backslash keeps the character behind it: 'place=Ulm\, Germany'. Spaces around
  fields and values are dropped.

  Args:
    texts: one condition each.

  Returns:
    Field to values, a tuple of texts, or to a `Between`.

  Raises:
    UserError: for anything else, and for conditions on one field that are
      neither a list of values nor one range.
  """
  where: dict[str, Condition] = {}
  for text in texts:
    match = _FILTER.fullmatch(text)
    name = match[1].strip() if match else ''
    values = _listed(match[3]) if match else ()
    if not name or not all(values):
      raise UserError(
        'a filter is FIELD=VALUE, FIELD=VALUE,VALUE, FIELD>=VALUE or'
        f' FIELD<=VALUE, got {text!r}'
      )
    if match[2] == '=':
      if name in where:
        raise UserError(
          f'the filter {text!r} is the second one of {name!r}: join values as'
          f' {name}=VALUE,VALUE, or give a range alone'
        )
      where[name] = values
      continue
    if len(values) > 1:
      raise UserError(
        f'the filter {text!r} should have one value: write a comma within it'
        r' as \,'
      )
    end = 'least' if match[2] == '>=' else 'most'
    known = where.get(name, Between())
    if not isinstance(known, Between) or getattr(known, end) is not None:
      raise UserError(
        f'the filter {text!r} does not go with the one before of {name!r}: give'
        f' values, or one {name}>=VALUE and one {name}<=VALUE'
      )
    where[name] = dataclasses.replace(known, **{end: values[0]})
  return where


def _listed(text: str) -> tuple[str, ...]:
  r"""Texts between commas; a backslash keeps the character behind it."""
  values = ['']
  for token in re.findall(r'\\.|.', text, re.DOTALL):
    if token == ',':
      values.append('')
    else:
      values[-1] += token[-1]
  return tuple(value.strip() for value in values)


def spans(
  name: str,
  kind: str,
  values: Sequence[str] | np.ndarray,
  bounds: tuple[int, int],
  condition: Condition,
) -> Iterator[tuple[int, int]]:
  """Where the values that meet a condition stand, as [start, stop).

  Args:
    name: the field.
    kind: 'text', 'integer' or 'float'.
    values: rising within the bounds.
    bounds: where the field's values begin and end.
    condition: what is asked for.

  Raises:
    UserError: for a value of another kind.
  """
  if isinstance(condition, Between):
    ends = (condition.least, condition.most)
    ranges = [[v if v is None else _asked(name, kind, v) for v in ends]]
  else:
    several = isinstance(condition, Collection) and not isinstance(
      condition, (str, bytes, Mapping)
    )
    listed = condition if several else (condition,)
    ranges = [[_asked(name, kind, value)] * 2 for value in listed]
  # Python compares integers with fractions exactly, numpy would round both.
  key = None if kind == TEXT else operator.methodcaller('item')
  for least, most in ranges:
    start, stop = bounds
    if least is not None:
      start = bisect.bisect_left(values, least, *bounds, key=key)
    if most is not None:
      stop = bisect.bisect_right(values, most, *bounds, key=key)
    yield start, max(start, stop)


def _asked(name: str, kind: str, value: object) -> Value:
  """A value as it is compared with those of a field."""
  if isinstance(value, bool):
    value = 'true' if value else 'false'
  if kind == TEXT:
    if isinstance(value, str):
      return value
    raise UserError(
      f'field {name!r} is of text, got {value!r}: give it as text'
    )
  number = _number(value) if isinstance(value, str) else value
  # Not a number is unequal to itself.
  if not isinstance(number, (int, float)) or number != number:
    raise UserError(f'field {name!r} is of numbers, got {value!r}')
  if kind == FLOAT and abs(number) < 1 << 64:
    # Rounded like the values, so that each is found by what it was.
    return float(number)
  return number


def _number(text: str) -> int | float | None:
  for parse in (int, float):
    try:
      return parse(text)
    except ValueError:
      continue
  return None
