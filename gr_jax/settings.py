"""Settings as data: registered dataclasses, their types, and JSON.

Settings are frozen dataclasses that live in the module which uses them. Only
the classes registered here can be named in a gin file or in a settings.json,
so that a configuration found on disk stays data. Free of gin: search reads
settings without it.
"""

import collections.abc
import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

from gr_jax.types import UserError, near_miss

CLASS_KEY = '__class__'

_REGISTERED: dict[str, type] = {}
_MAPPINGS = (dict, collections.abc.Mapping)
_SEQUENCES = (tuple, list, collections.abc.Sequence)


def register(*classes: type) -> None:
  """Allows the classes in gin files and in settings.json, by their names."""
  for cls in classes:
    if not dataclasses.is_dataclass(cls):
      raise TypeError(f'{cls!r} is no dataclass: settings are dataclasses')
    known = _REGISTERED.setdefault(cls.__name__, cls)
    if known is not cls:
      raise TypeError(f'two settings classes are called {cls.__name__}')


def registered() -> Mapping[str, type]:
  """The registered classes by name."""
  return types.MappingProxyType(_REGISTERED)


def lookup(name: str, where: str) -> type:
  """The class registered under `name`, or a refusal that names near misses."""
  if name not in _REGISTERED:
    hint = near_miss(name, _REGISTERED)
    raise UserError(f'{where}: there are no settings called {name!r}{hint}')
  return _REGISTERED[name]


@functools.cache
def field_types(cls: type) -> Mapping[str, Any]:
  """The annotation of each constructor argument of a dataclass."""
  hints = typing.get_type_hints(cls)
  return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def required_fields(cls: type) -> list[str]:
  """The names of the constructor arguments that have no default."""
  return [
    f.name
    for f in dataclasses.fields(cls)
    if f.init
    and f.default is dataclasses.MISSING
    and f.default_factory is dataclasses.MISSING
  ]


def type_name(annotation: Any) -> str:
  """An annotation as a reader would write it."""
  if isinstance(annotation, type) and not typing.get_args(annotation):
    return annotation.__name__
  return str(annotation).replace('typing.', '').replace('NoneType', 'None')


def fits(value: Any, annotation: Any) -> bool:
  """Whether a value is of the annotated type; an int stands for a float."""
  origin = typing.get_origin(annotation)
  args = typing.get_args(annotation)
  if annotation is Any:
    return True
  if annotation is None:
    return value is None
  if origin in (typing.Union, types.UnionType):
    return any(fits(value, a) for a in args)
  if origin is typing.Literal:
    return any(value == a and type(value) is type(a) for a in args)
  if origin in _MAPPINGS:
    key, item = args
    return isinstance(value, origin) and all(
      fits(k, key) and fits(v, item) for k, v in value.items()
    )
  if origin in _SEQUENCES:
    return _sequence_fits(value, origin, args)
  plain = origin or annotation
  if plain in (int, float) and isinstance(value, bool):
    return False
  if plain is float:
    return isinstance(value, (int, float))
  return isinstance(value, plain)


def _sequence_fits(value: Any, origin: type, args: tuple) -> bool:
  if isinstance(value, str) or not isinstance(value, origin):
    return False
  if origin is not tuple or args[-1] is Ellipsis:
    return all(fits(v, args[0]) for v in value)
  return len(value) == len(args) and all(
    fits(v, a) for v, a in zip(value, args, strict=True)
  )


def to_json(settings: Any) -> Any:
  """Settings as JSON data; dataclasses carry their name as '__class__'."""
  if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
    fields = {
      name: to_json(getattr(settings, name))
      for name in field_types(type(settings))
    }
    return {CLASS_KEY: type(settings).__name__, **fields}
  if isinstance(settings, Mapping):
    return {key: to_json(value) for key, value in settings.items()}
  if isinstance(settings, (tuple, list)):
    return [to_json(value) for value in settings]
  if settings is None or isinstance(settings, (str, bool, int, float)):
    return settings
  raise TypeError(f'{settings!r} cannot stand in settings.json')


def from_json(data: Any, where: str = 'settings') -> Any:
  """Rebuilds registered settings from `to_json`'s data.

  Args:
    data: what json.load gave.
    where: what the error calls the source, as 'settings.json'.

  Returns:
    An instance of the registered class that the data names.

  Raises:
    UserError: for an unregistered class, an unknown or missing field or a
      value of the wrong type.
  """
  if not isinstance(data, dict) or CLASS_KEY not in data:
    raise UserError(f'{where}: expected an object with a {CLASS_KEY!r}')
  name = data[CLASS_KEY]
  if not isinstance(name, str):
    raise UserError(f'{where}: {CLASS_KEY!r} is {name!r}, expected a string')
  cls = lookup(name, where)
  annotations = field_types(cls)
  values = {}
  for field, item in data.items():
    if field == CLASS_KEY:
      continue
    place = f'{where}: {name}.{field}'
    if field not in annotations:
      raise UserError(f'{place} is unknown{near_miss(field, annotations)}')
    values[field] = _decode(item, annotations[field], place)
    check(values[field], annotations[field], place)
  for field in required_fields(cls):
    if field not in values:
      raise UserError(f'{where}: {name}.{field} is missing')
  return cls(**values)


def check(value: Any, annotation: Any, place: str) -> None:
  """Refuses a value of another type than annotated, naming both."""
  if fits(value, annotation):
    return
  hint = ''
  if isinstance(value, str) and value.lower() in ('true', 'false', 'none'):
    hint = f' (write {value.capitalize()})'
  elif isinstance(value, list):
    hint = ' (write a tuple: (1, 2), not [1, 2])'
  elif fits(str(value), annotation):
    hint = f' (quote it: "\'{value}\'")'
  raise UserError(
    f'{place} expects {type_name(annotation)}, got'
    f' {type(value).__name__} {value!r}{hint}'
  )


def _decode(item: Any, annotation: Any, place: str) -> Any:
  """JSON has no tuples and no dataclasses: the annotation says which it is."""
  if isinstance(item, dict) and CLASS_KEY in item:
    return from_json(item, place)
  for option in _options(annotation):
    origin = typing.get_origin(option)
    args = typing.get_args(option)
    if isinstance(item, dict) and origin in _MAPPINGS:
      return {k: _decode(v, args[1], f'{place}.{k}') for k, v in item.items()}
    if isinstance(item, list) and origin in _SEQUENCES:
      inner = _item_types(args, len(item))
      values = [_decode(v, a, place) for v, a in zip(item, inner, strict=True)]
      return values if origin is list else tuple(values)
  return item


def _options(annotation: Any) -> tuple:
  if typing.get_origin(annotation) in (typing.Union, types.UnionType):
    return typing.get_args(annotation)
  return (annotation,)


def _item_types(args: tuple, length: int) -> list:
  """The annotation of each item; the caller checks a tuple's length."""
  if len(args) == 1 or args[-1] is Ellipsis:
    return [args[0]] * length
  return [args[min(i, len(args) - 1)] for i in range(length)]
