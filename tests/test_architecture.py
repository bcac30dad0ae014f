"""The house rules of design.md, read off the syntax trees."""

import ast
import functools
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted(
  path
  for folder in ('gr_jax', 'tasks', 'benchmarks', 'fuzz', 'launch', 'tests')
  for path in (ROOT / folder).rglob('*.py')
)
LIBRARY = [p for p in SOURCES if p.relative_to(ROOT).parts[0] != 'tests']
NAMES = [p.relative_to(ROOT).as_posix() for p in SOURCES]

# Whom a folder (or a file beside the doors) may import within gr_jax, itself
# apart. Lower folders never know higher ones.
SHARED = ('types', 'checksums', 'processes', 'progress', 'settings')
RANKED = ('data', 'models', 'training', 'retrieval', 'evaluation')
TABLE = {
  'types': set(),
  'settings': {'types'},
  'gin_checks': {'types', 'settings'},
  'configuration': {'types', 'settings', 'gin_checks'},
  'processes': {'types'},
  'entry': {'types', 'processes'},
  'progress': set(),
  'locks': {'types'},
  'checksums': set(),
  'data': {'types', 'checksums'},
  'schedule': set(),
  'objectives': {'types', 'schedule'},
  'parameters': set(),
  'precision': set(),
  'indexers': {'types', 'parameters', 'precision'},
  'models': {
    'types',
    'checksums',
    'parameters',
    'precision',
    'indexers',
    'objectives',
  },
  'decoding': {'types'},
  'index': {'types', 'checksums', 'locks', 'decoding'},
  # The indexers, for what codebooks start from.
  'training': {
    'types',
    'checksums',
    'processes',
    'progress',
    'schedule',
    'models',
    'indexers',
    'objectives',
  },
  # The settings of a run come as data from the index.
  'retrieval': {
    *SHARED,
    'locks',
    'models',
    'decoding',
    'index',
    'data.vocabularies',
  },
  'evaluation': {
    'types',
    'checksums',
    'locks',
    'processes',
    'retrieval',
    'index',
    'data',
  },
  # BM25, sentence encoders and cross-encoders judge what is generated.
  'querygen': {*SHARED, 'locks', 'ranking', *RANKED},
  # Teachers are all kinds of rankers, and what they rank comes from others.
  'ranking': {*SHARED, *RANKED},
  # As high as a door: it joins all that a run is made of.
  't5x': {
    'types',
    'entry',
    'configuration',
    'run_settings',
    'run_folder',
    'run_texts',
    'run_lists',
    'data',
    'objectives',
    'indexers',
    'models',
    'decoding',
    'index',
    'training',
    'retrieval',
  },
  'tasks': {'types', 'data', 'ranking', 'evaluation'},
}
# Beside the doors, which import them; they may import all folders.
OF_A_RUN = {
  'run_settings',
  'run_folder',
  'run_texts',
  'run_lists',
  'text_run_settings',
  'run_generator',
  'run_ranker',
}
# The trainer of T5X, which ours is measured beside.
_PEER = 'benchmarks/t5x_training.py'
_OTHER_GENERATOR = 'benchmarks/query_generation.py'
# What only some may import.
RESERVED = {
  'tensorflow': ('gr_jax/data/', 'tasks/'),
  'tensorflow_text': ('gr_jax/data/', 'tasks/'),
  'tensorflow_datasets': ('gr_jax/data/', 'tasks/'),
  'seqio': ('gr_jax/data/', 'gr_jax/t5x/', 'tasks/', _PEER),
  'apache_beam': ('gr_jax/data/', 'tasks/'),
  'clu': ('gr_jax/data/', 'gr_jax/t5x/', 'tasks/'),
  'grain': ('gr_jax/data/',),
  'orbax': ('gr_jax/training/checkpoints.py',),
  'gin': ('gr_jax/configuration.py',),
  'optax': ('gr_jax/training/', 'benchmarks/text_training.py'),
  'ir_measures': ('gr_jax/evaluation/', 'tasks/'),
  'bm25s': ('gr_jax/evaluation/',),
  't5x': ('gr_jax/t5x/', _PEER),
  'torch': ('gr_jax/querygen/instruction.py', 'tests/', _OTHER_GENERATOR),
  'transformers': (
    'gr_jax/querygen/instruction.py',
    'tests/',
    _OTHER_GENERATOR,
  ),
}
# Seconds and hundreds of megabytes: training and search never pay for these.
HEAVY = {
  'tensorflow',
  'tensorflow_text',
  'tensorflow_datasets',
  'seqio',
  'apache_beam',
  'clu',
}
BANNED_NAMES = {'utils', 'util', 'helpers', 'helper', 'common', 'misc'}
BANNED_IMPORTS = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'shelve'}


@functools.cache
def tree_of(path):
  return ast.parse(path.read_text(encoding='utf-8'), str(path))


def imported(node):
  """Module names of one import statement, 'from a import b' as a.b."""
  if isinstance(node, ast.Import):
    return [alias.name for alias in node.names]
  if isinstance(node, ast.ImportFrom):
    assert node.level == 0, 'imports are absolute'
    return [f'{node.module}.{alias.name}' for alias in node.names]
  return []


@functools.cache
def all_imports(path):
  return [m for node in ast.walk(tree_of(path)) for m in imported(node)]


@functools.cache
def module_level_imports(path):
  """What importing the file imports: not what its functions would."""
  pending, found = list(tree_of(path).body), []
  while pending:
    node = pending.pop()
    found += imported(node)
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      children = ast.iter_child_nodes(node)
      pending += [c for c in children if isinstance(c, ast.stmt)]
  return found


def unit_of(path):
  """'data' for gr_jax/data/x.py, 'types' for gr_jax/types.py, 'tasks'."""
  parts = path.relative_to(ROOT).with_suffix('').parts
  return parts[0] if parts[0] != 'gr_jax' else parts[1]


@functools.cache
def resolve(module):
  """The file of a gr_jax module, whose name may end in one of its names."""
  for name in (module, module.rpartition('.')[0]):
    place = ROOT / name.replace('gr_jax.tasks', 'tasks').replace('.', '/')
    if place.with_suffix('.py').is_file():
      return place.with_suffix('.py')
    if (place / '__init__.py').is_file():
      return place / '__init__.py'
  return None


def holds_for(paths):
  """Makes one test of a rule for a path: thousands would take a while."""

  def over(rule):
    def test():
      broken = []
      for path in paths:
        try:
          rule(path)
        except AssertionError as error:
          broken.append(f'{path.relative_to(ROOT).as_posix()}: {error}')
      assert not broken, '\n'.join(broken)

    return test

  return over


@holds_for(LIBRARY)
def test_folders_import_downwards(path):
  unit = unit_of(path)
  if unit not in TABLE:
    return
  allowed = TABLE[unit] | {unit}
  for module in all_imports(path):
    if not module.startswith('gr_jax.'):
      continue
    target = module.removeprefix('gr_jax.')
    fits = any(f'{target}.'.startswith(f'{name}.') for name in allowed)
    assert fits, f'{unit} may not import {module}'


@holds_for(LIBRARY)
def test_only_doors_stand_beside_the_folders(path):
  """Each folder is in the table; a file beside them is a door or listed."""
  unit = unit_of(path)
  if path.parent != ROOT / 'gr_jax':
    assert unit in {*TABLE, 'benchmarks', 'fuzz', 'launch'}
  elif unit not in {*TABLE, '__init__', *OF_A_RUN}:
    names = {n.name for n in tree_of(path).body if hasattr(n, 'name')}
    assert 'main' in names, f'{path.name} is no door: where does it belong?'


@holds_for(LIBRARY)
def test_nothing_imports_tasks(path):
  """Only the door that runs them; `tasks` alone would register twice."""
  if path == ROOT / 'gr_jax' / 'prepare.py':
    return
  modules = all_imports(path)
  assert not [m for m in modules if m.split('.')[0] == 'tasks']
  if path.relative_to(ROOT).parts[0] == 'gr_jax':
    assert not [m for m in modules if f'{m}.'.startswith('gr_jax.tasks.')]


@holds_for(LIBRARY)
def test_nothing_imports_t5x(path):
  """What its launcher needs is no part of ours."""
  if unit_of(path) != 't5x':
    modules = all_imports(path)
    assert not [m for m in modules if f'{m}.'.startswith('gr_jax.t5x.')]


@holds_for(SOURCES)
def test_reserved_packages(path):
  name = path.relative_to(ROOT).as_posix()
  for module in all_imports(path):
    places = RESERVED.get(module.split('.')[0])
    if places and not name.startswith('tests/'):
      assert name.startswith(places), f'{name} may not import {module}'


def test_flax_stays_out_of_decoding():
  for path in (ROOT / 'gr_jax' / 'decoding').rglob('*.py'):
    assert not [m for m in all_imports(path) if m.split('.')[0] == 'flax']


DOORS = [
  path
  for path in sorted((ROOT / 'gr_jax').glob('*.py'))
  if unit_of(path) not in {*TABLE, '__init__', *OF_A_RUN}
]


@holds_for(DOORS)
def test_doors_are_light(path):
  """`--help` answers at once: heavy imports are inside `main`."""
  pending, seen = [path], set()
  while pending:
    file = pending.pop()
    if file in seen:
      continue
    seen.add(file)
    for module in module_level_imports(file):
      top = module.split('.')[0]
      if top == 'gr_jax':
        pending += [f for f in [resolve(module)] if f is not None]
      else:
        assert top in sys.stdlib_module_names, f'{file} imports {module}'


@holds_for(
  [p for p in LIBRARY if p.relative_to(ROOT).parts[:2] != ('gr_jax', 'data')]
)
def test_tensorflow_is_not_reached(path):
  """From outside preparation no chain of imports leads to TensorFlow."""
  if unit_of(path) in ('tasks', 'prepare', 'benchmarks', 't5x'):
    return
  pending, seen = [path], set()
  while pending:
    file = pending.pop()
    if file in seen:
      continue
    seen.add(file)
    for module in module_level_imports(file):
      assert module.split('.')[0] not in HEAVY, f'{file} imports {module}'
      found = resolve(module) if module.startswith('gr_jax.') else None
      pending += [found] if found else []


@holds_for(SOURCES)
def test_nothing_unpickles_or_evaluates(path):
  for module in all_imports(path):
    assert module.split('.')[0] not in BANNED_IMPORTS
  for node in ast.walk(tree_of(path)):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
      assert node.func.id not in {'eval', 'exec', '__import__'}, node.lineno
    if isinstance(node, ast.keyword) and node.arg in {'allow_pickle', 'shell'}:
      value = getattr(node.value, 'value', None)
      assert value is False, f'line {node.value.lineno}: {node.arg}'
    if isinstance(node, ast.Attribute) and node.attr == 'load':
      owner = getattr(node.value, 'id', '')
      assert owner != 'torch', f'line {node.lineno}: torch.load'


@holds_for(SOURCES)
def test_no_blind_except(path):
  for node in ast.walk(tree_of(path)):
    if not isinstance(node, ast.ExceptHandler):
      continue
    last = node.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
      continue  # It tidies up and passes the error on.
    caught = ast.unparse(node.type) if node.type else 'everything'
    blind = re.findall(r'everything|\bException\b|\bBaseException\b', caught)
    assert not blind, f'line {node.lineno} catches {caught}'


@holds_for(SOURCES)
def test_files_and_functions_are_short(path):
  lines = len(path.read_text(encoding='utf-8').splitlines())
  assert lines <= 400, f'{lines} lines'
  for node in ast.walk(tree_of(path)):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      long = node.end_lineno - node.lineno + 1
      assert long <= 60, f'{node.name} has {long} lines'


def test_test_files_have_names_of_their_own():
  names = [p.name for p in (ROOT / 'tests').rglob('test_*.py')]
  assert len(names) == len(set(names))


@holds_for(LIBRARY)
def test_names_say_what_is_inside(path):
  parts = path.relative_to(ROOT).with_suffix('').parts
  assert not BANNED_NAMES & set(parts)
  first = tree_of(path).body[0] if tree_of(path).body else None
  text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
  assert text, 'a module says what it is'


# Assembled, so that this file does not hold what it looks for.
OWN_PLACES = '|'.join('/' + name + '/' for name in ('work', 'root', 'home'))
MACHINE = re.compile(
  OWN_PLACES + r'|/tmp/|/opt/|/mnt/|\b\d{1,3}(?:\.\d{1,3}){3}:\d+'
)


def test_no_machine_paths():
  names = ('Makefile', 'setup.py', 'pyproject.toml', 'README.md', '.ci/run')
  texts = [ROOT / name for name in names if (ROOT / name).exists()]
  texts += (ROOT / 'gin').rglob('*.gin')
  texts += (ROOT / 'requirements').iterdir()
  texts += (ROOT / 'docs').rglob('*.md')
  for path in [*LIBRARY, *texts]:
    found = MACHINE.search(path.read_text(encoding='utf-8'))
    assert not found, f'{path}: {found[0] if found else ""}'


def test_gin_folder_is_no_package():
  """An __init__.py would shadow gin-config from a checkout."""
  assert not list((ROOT / 'gin').rglob('*.py'))


def test_every_folder_of_the_library_is_a_package():
  """setup.py finds packages by their __init__.py."""
  folders = {p.parent for p in LIBRARY if 'gr_jax' in p.parts}
  assert not [f for f in folders if not (f / '__init__.py').exists()]
