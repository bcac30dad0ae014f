"""Gin files and overrides to settings, with every slip refused by name.

gin itself accepts wrong types, unused and doubly bound macros, and runs any
import: the statements are read and checked here before gin binds them.

  parse(['gin/runs/quickstart.gin'], ['DATA_DIR=../scifact'])
  settings = build(RunSettings)
"""

import ast
import contextlib
import dataclasses
import functools
import importlib
import io
import pathlib
import re
import tokenize
from collections.abc import Sequence
from typing import Any

import gin
from gin import config_parser
from gr_jax.gin_checks import (
  Binding,
  Macro,
  Reference,
  check_macros,
  check_reachable,
  macros,
)
from gr_jax.settings import (
  field_types,
  from_json,
  lookup,
  register,
  registered,
  to_json,
)
from gr_jax.types import UserError, near_miss

__all__ = [
  'build',
  'config_text',
  'from_json',
  'parse',
  'register',
  'resolve',
  'to_json',
]

# A gin file may import these packages' modules, no others.
ALLOWED_IMPORTS = ('gr_jax',)

_COMMAND_LINE = 'command line'
_OVERRIDE = re.compile(r'[A-Za-z_][\w./]*')
_bindings: dict[tuple[str, str, str], Binding] = {}
# Macros whose use an override took the place of, and where.
_replaced: dict[str, str] = {}


class _Delegate(config_parser.ParserDelegate):
  """Records references and macros, to be checked before gin sees them."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    *scopes, name = scoped_configurable_name.split('/')
    return Reference('/'.join(scopes), name, evaluate)

  def macro(self, macro_name):
    return Macro(macro_name)


def resolve(path: str, beside: pathlib.Path | None = None) -> pathlib.Path:
  """Finds a gin file.

  Args:
    path: as given, for instance 'gin/runs/quickstart.gin'.
    beside: the folder of the file that includes it, tried as well.

  Returns:
    The file: relative to the working directory, else beside the package (a
    checkout), else in the package's data (an installed wheel).
  """
  package = pathlib.Path(__file__).resolve().parent
  places = [pathlib.Path.cwd(), package.parent, package]
  if beside is not None:
    places.append(beside)
  for place in places:
    if (place / path).is_file():
      return (place / path).resolve()
  name = pathlib.PurePath(path).name
  options = {
    str(found.relative_to(place))
    for place in places[:3]
    for found in (place / 'gin').rglob('*.gin')
  }
  by_name = {pathlib.PurePath(option).name: option for option in options}
  hint = near_miss(path, options) or near_miss(name, by_name)
  raise UserError(f'there is no gin file {path}{hint}')


def parse(
  gin_files: Sequence[str],
  overrides: Sequence[str] = (),
  allowed_imports: Sequence[str] = ALLOWED_IMPORTS,
) -> None:
  """Reads gin files and overrides into gin's configuration.

  Args:
    gin_files: paths; a later file wins over an earlier one.
    overrides: 'NAME=value' or 'Settings.field=value', as they follow --gin.
      on the command line; a value that is no Python literal is a string.
    allowed_imports: packages whose modules a gin file may import.

  Raises:
    UserError: for whatever is unknown, doubly bound or unused.
  """
  _bindings.clear()
  _replaced.clear()
  seen: set[pathlib.Path] = set()
  for path in gin_files:
    _read_file(resolve(path), (), seen, tuple(allowed_imports))
  for override in overrides:
    _add(_parse_override(override))
  check_macros(_bindings, _replaced, _COMMAND_LINE)
  gin.clear_config()
  for cls in registered().values():
    _configurable(cls)
  for binding in _bindings.values():
    target = (
      (binding.scope, binding.name, binding.field)
      if binding.field
      else (binding.name, 'gin.macro', 'value')
    )
    with gin.unlock_config():
      gin.bind_parameter(target, _for_gin(binding.value))


def build(cls: type) -> Any:
  """Builds the settings of a class as the parsed configuration says.

  Args:
    cls: a registered dataclass.

  Returns:
    An instance of the class itself, nothing of gin in it.

  Raises:
    UserError: for a value of the wrong type, a required macro or field
      without a value, or an override that nothing reads.
  """
  register(cls)
  check_reachable(_bindings, cls, _COMMAND_LINE)
  try:
    return _configurable(cls)()
  except (UserError, ValueError, TypeError) as error:
    # gin appends a paragraph of its own to the message.
    reason = str(error).partition('\n')[0]
    raise UserError(reason) from error


def config_text() -> str:
  """The configuration that the last `build` used, as a gin file."""
  return gin.operative_config_str()


@functools.cache
def _configurable(cls: type) -> type:
  """Gin's handle of a class; the class itself stays as it is."""
  gin.register(cls.__name__, module=cls.__module__)(cls)
  return gin.get_configurable(cls)


def _read_file(
  path: pathlib.Path,
  chain: tuple[pathlib.Path, ...],
  seen: set[pathlib.Path],
  allowed_imports: tuple[str, ...],
) -> None:
  """Records the statements of a file and of its includes, each file once."""
  if path in seen:
    return
  seen.add(path)
  try:
    text = path.read_text(encoding='utf-8')
  except UnicodeDecodeError as error:
    raise UserError(f'{path}: not UTF-8 at byte {error.start}') from error
  for statement in _statements(text, str(path)):
    where = f'{path}:{statement.location.line_num}'
    if isinstance(statement, config_parser.ImportStatement):
      _import(statement, where, allowed_imports)
    elif isinstance(statement, config_parser.IncludeStatement):
      with _named(where):
        included = resolve(statement.filename, path.parent)
      _read_file(included, (*chain, path), seen, allowed_imports)
    elif isinstance(statement, config_parser.BlockDeclaration):
      _class_of(statement.selector, where)
    else:
      _add(_binding(statement, where, str(path), tuple(map(str, chain))))


@contextlib.contextmanager
def _named(where: str):
  """Puts the place before the message of a UserError."""
  try:
    yield
  except UserError as error:
    raise UserError(f'{where}: {error}') from error


def _statements(text: str, name: str) -> list[Any]:
  """Parses gin text; `name` is what an error calls it."""
  try:
    parser = config_parser.ConfigParser(io.StringIO(text), _Delegate())
    return list(parser)
  except (SyntaxError, tokenize.TokenError, ValueError) as error:
    line = getattr(error, 'lineno', None)
    place = f'{name}:{line}' if line else name
    reason = error.args[0] if error.args else error
    raise UserError(f'{place}: this is no gin: {reason}') from error


def _import(statement, where: str, allowed: tuple[str, ...]) -> None:
  """Imports a module after its name passed the allow-list."""
  module = statement.module
  if module.split('.')[0] not in allowed:
    raise UserError(
      f'{where}: importing {module} is not allowed; gin files may import'
      f' modules of {", ".join(allowed)}'
    )
  try:
    importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise UserError(f'{where}: there is no module {module}') from error


def _class_of(selector: str, where: str) -> type:
  """The class a selector names, alone or after (the end of) its module."""
  module, _, name = selector.rpartition('.')
  cls = lookup(name, where)
  if not f'.{cls.__module__}'.endswith(f'.{module}' if module else ''):
    raise UserError(f'{where}: {name} is in {cls.__module__}, not in {module}')
  return cls


def _binding(statement, where: str, source: str, chain: tuple) -> Binding:
  """Checks the names of one binding and normalises them."""
  scope, name, field = statement.scope, statement.selector, statement.arg_name
  if field:
    cls = _class_of(name, where)
    name = cls.__name__
    if field not in field_types(cls):
      hint = near_miss(field, field_types(cls))
      raise UserError(f'{where}: {name} has no {field!r}{hint}')
  elif scope:
    raise UserError(f'{where}: a macro has no scope, got {scope}/{name}')
  value = _normalise(statement.value, where)
  return Binding(scope, name, field, value, where, source, chain)


def _normalise(value: Any, where: str) -> Any:
  """Checks the references inside a value."""
  if isinstance(value, Reference):
    cls = _class_of(value.name, where)
    if not value.evaluate:
      raise UserError(
        f'{where}: write @{cls.__name__}(), settings are made, not named'
      )
    return dataclasses.replace(value, name=cls.__name__)
  if isinstance(value, dict):
    return {k: _normalise(v, where) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return type(value)(_normalise(v, where) for v in value)
  return value


def _add(binding: Binding) -> None:
  """Records a binding; a second one must have the right to win.

  An including file may rebind what it includes, a later --gin_file what came
  before it, and the command line everything. Whatever else is bound twice is
  a slip: the reader of one place would not know of the other.
  """
  key = (binding.scope, binding.name, binding.field)
  earlier = _bindings.get(key)
  if earlier and not binding.may_override(earlier):
    raise UserError(
      f'{binding.where}: {binding.label} is bound a second time (first at'
      f' {earlier.where}); keep one, or bind it in the file that includes'
      ' the other, after the include'
    )
  for macro in macros(earlier.value) if earlier else ():
    _replaced[macro] = binding.where
  # A dict keeps its order: the winner is bound where it was written.
  _bindings.pop(key, None)
  _bindings[key] = binding


def _parse_override(override: str) -> Binding:
  name, equals, text = override.partition('=')
  name, text = name.strip(), text.strip()
  where = f'--gin.{name}'
  if not equals or not _OVERRIDE.fullmatch(name):
    raise UserError(f'--gin.{override}: expected --gin.NAME=value')
  try:
    literal = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    refers = text[:1] in ('@', '%') or ('@' in text and text[:1] in '([{')
    value_text = text if refers else repr(text)
  else:
    value_text = repr(literal)
  statement = _statements(f'{name} = {value_text}\n', where)[0]
  return _binding(statement, where, _COMMAND_LINE, ())


def _for_gin(value: Any) -> Any:
  """The recorded value with gin's own references."""
  if isinstance(value, Reference):
    scoped = f'{value.scope}/{value.name}' if value.scope else value.name
    return gin.config.ConfigurableReference(scoped, value.evaluate)
  if isinstance(value, Macro):
    return gin.config.ParserDelegate().macro(value.name)
  if isinstance(value, dict):
    return {k: _for_gin(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return type(value)(_for_gin(v) for v in value)
  return value
