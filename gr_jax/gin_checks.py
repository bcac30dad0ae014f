"""What gin does not check of a configuration: use, values and their types.

Works on recorded statements, before gin binds anything.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from gr_jax.settings import (
  check,
  field_types,
  fits,
  registered,
  required_fields,
  type_name,
)
from gr_jax.types import UserError, near_miss

# The name under which gin and T5X ask for a value: NAME = %gin.REQUIRED.
REQUIRED = ('gin.REQUIRED', 'REQUIRED')


@dataclasses.dataclass(frozen=True)
class Reference:
  """@scope/Name() in a gin file."""

  scope: str
  name: str
  evaluate: bool

  def __repr__(self) -> str:
    scoped = f'{self.scope}/{self.name}' if self.scope else self.name
    return f'@{scoped}()'


@dataclasses.dataclass(frozen=True)
class Macro:
  """%NAME in a gin file."""

  name: str


@dataclasses.dataclass(frozen=True)
class Binding:
  """One `scope/Name.field = value`, or `NAME = value` where field is empty.

  Attributes:
    scope: gin scope, or ''.
    name: a settings class, or a macro.
    field: the constructor argument, or ''.
    value: literal, Reference or Macro, nested in containers.
    where: file and line, or the flag, for messages.
    source: the file, or 'command line'.
    chain: the files that include the source, outermost first.
  """

  scope: str
  name: str
  field: str
  value: Any
  where: str
  source: str
  chain: tuple[str, ...]

  @property
  def label(self) -> str:
    """The bound name as the gin file writes it."""
    scoped = f'{self.scope}/{self.name}' if self.scope else self.name
    return f'{scoped}.{self.field}' if self.field else scoped

  def may_override(self, earlier: 'Binding') -> bool:
    """Whether this later binding wins by rule, rather than by accident."""
    if self.source == earlier.source:
      return False
    # The including file comes after what it includes.
    if self.source in earlier.chain:
      return True
    # Another --gin_file, or the command line after the files.
    mine = (*self.chain, self.source)[0]
    return mine != (*earlier.chain, earlier.source)[0]


Bindings = Mapping[tuple[str, str, str], Binding]


def check_macros(
  bindings: Bindings, replaced: Mapping[str, str], command_line: str
) -> None:
  """Refuses macros that are used and not bound, or bound and not used.

  A file's macro may be left without a use by what replaced it; one of the
  command line would have no effect.

  Args:
    bindings: the recorded statements.
    replaced: macro to the override that took the place of its use.
    command_line: the source whose bindings must all have an effect.
  """
  bound = {b.name for b in bindings.values() if not b.field}
  used: dict[str, str] = {}
  for binding in bindings.values():
    for macro in macros(binding.value):
      used.setdefault(macro, binding.where)
  for name, where in used.items():
    if name not in bound and name not in REQUIRED:
      hint = near_miss(name, bound)
      raise UserError(f'{where}: the macro %{name} has no value{hint}')
  for binding in bindings.values():
    given = binding.source == command_line
    if binding.name in replaced and not given:
      continue
    if not binding.field and binding.name not in used:
      options = set(used) - set(REQUIRED) - {binding.name}
      hint = near_miss(binding.name, options)
      if binding.name in replaced:
        hint = (
          f' since {replaced[binding.name]} took its place: override the macro'
          ' instead'
        )
      raise UserError(
        f'{binding.where}: nothing uses the macro {binding.name}{hint}'
      )


def check_reachable(bindings: Bindings, root: type, command_line: str) -> None:
  """Checks what `root` will be built from: values, types, and use.

  Args:
    bindings: the recorded statements.
    root: the settings class that a door builds.
    command_line: the source whose bindings must all be read.

  Raises:
    UserError: a required value is missing, a type is wrong, a macro refers to
      itself, or an override has no effect.
  """
  reached: set[tuple[str, str, str]] = set()
  _check_class(bindings, root, '', reached, ())
  for key, binding in bindings.items():
    if binding.source == command_line and key not in reached:
      raise UserError(
        f'{binding.where}: nothing in this configuration reads {binding.label}'
      )


def _check_class(
  bindings: Bindings,
  cls: type,
  scope: str,
  reached: set[tuple[str, str, str]],
  path: tuple[str, ...],
) -> None:
  """Checks one class in one scope, and what its fields refer to."""
  name = cls.__name__
  if name in path:
    raise UserError(f'{name} refers to itself: {" -> ".join((*path, name))}')
  annotations = field_types(cls)
  effective = {}
  # As gin does it: the innermost scope wins.
  for inner in _scopes(scope):
    for field in annotations:
      key = (inner, name, field)
      if key in bindings:
        effective[field] = bindings[key]
        reached.add(key)
  for field in required_fields(cls):
    if field not in effective:
      raise UserError(
        f'{name}.{field} has no value: bind it, for instance with'
        f' --gin.{name}.{field}=...'
      )
  for field, binding in effective.items():
    annotation = annotations[field]
    value = _expand(bindings, binding.value, binding, binding.label, reached)
    place = f'{_origin(bindings, binding).where}: {binding.label}'
    _check_value(value, annotation, place)
    for reference in _references(value):
      _check_class(
        bindings,
        registered()[reference.name],
        reference.scope or scope,
        reached,
        (*path, name),
      )


def _origin(bindings: Bindings, binding: Binding) -> Binding:
  """Where a value was written: the macro's binding, if it is a macro."""
  while isinstance(binding.value, Macro):
    binding = bindings[('', binding.value.name, '')]
  return binding


def _check_value(value: Any, annotation: Any, place: str) -> None:
  """Checks the type; blank instances stand for what is still to be made."""
  if not any(_references(value)):
    check(value, annotation, place)
  elif not fits(_blank(value), annotation):
    raise UserError(f'{place} expects {type_name(annotation)}, got {value!r}')


def _blank(value: Any) -> Any:
  if isinstance(value, Reference):
    return object.__new__(registered()[value.name])
  if isinstance(value, dict):
    return {k: _blank(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return type(value)(map(_blank, value))
  return value


def _scopes(scope: str) -> Iterator[str]:
  """'', 'a', 'a/b' for 'a/b'."""
  yield ''
  parts = scope.split('/') if scope else []
  for i in range(len(parts)):
    yield '/'.join(parts[: i + 1])


def _children(value: Any) -> list:
  if isinstance(value, dict):
    return list(value.values())
  return list(value) if isinstance(value, (list, tuple)) else []


def macros(value: Any) -> Iterator[str]:
  """Names of the macros inside a recorded value."""
  if isinstance(value, Macro):
    yield value.name
  for child in _children(value):
    yield from macros(child)


def _references(value: Any) -> Iterator[Reference]:
  if isinstance(value, Reference):
    yield value
  for child in _children(value):
    yield from _references(child)


def _expand(
  bindings: Bindings,
  value: Any,
  holder: Binding,
  wanted: str,
  reached: set[tuple[str, str, str]],
  path: tuple[str, ...] = (),
) -> Any:
  """Replaces macros by their values.

  Args:
    bindings: the recorded statements.
    value: a value, or a part of one.
    holder: the binding that it stands in.
    wanted: what a required value would be given to.
    reached: collects the macros that were read.
    path: the macros that led here.

  Returns:
    The value with literals and References only.
  """
  if isinstance(value, Macro):
    if value.name in REQUIRED:
      raise UserError(
        f'{holder.where}: {wanted} is required: set it with --gin.{wanted}=...'
      )
    if value.name in path:
      raise UserError(
        f'{holder.where}: the macro %{value.name} refers to itself'
      )
    key = ('', value.name, '')
    reached.add(key)
    inner, chain = bindings[key], (*path, value.name)
    return _expand(bindings, inner.value, inner, value.name, reached, chain)
  if isinstance(value, dict):
    return {
      k: _expand(bindings, v, holder, wanted, reached, path)
      for k, v in value.items()
    }
  if isinstance(value, (list, tuple)):
    return type(value)(
      _expand(bindings, v, holder, wanted, reached, path) for v in value
    )
  return value
