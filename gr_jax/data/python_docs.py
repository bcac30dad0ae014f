"""The documentation of Python as a collection: real text, no download.

Sources of the standard library and of packages that gr_jax is installed with
are parsed with `ast`, never imported. A document is what a public class or
function says and does: qualified name, signature, docstring and body. Its
query is the docstring's one-line summary, which the document leaves out.
"""

import ast
import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import sysconfig
import warnings
from collections.abc import Iterator

from gr_jax.data.folders import new_folder

# Small enough to parse in seconds, and there wherever gr_jax is.
PACKAGES = (
  'numpy',
  'jax',
  'flax',
  'optax',
  'orbax',
  'grain',
  'absl',
  'etils',
  'gin',
  'msgpack',
  'tensorstore',
  'tokenizers',
  'safetensors',
  'tqdm',
  'scipy',
)
_LEFT_OUT_FOLDERS = frozenset(
  {
    'test',
    'tests',
    'testing',
    'testdata',
    'idlelib',
    'lib2to3',
    'site-packages',
    'vendor',
    'vendored',
    'third_party',
    'externals',
    'experimental',
    'internal',
    'f2py',
    'pydoc_data',
    'turtledemo',
    'benchmarks',
    'examples',
    '__pycache__',
  }
)
_MAX_BODY_CHARACTERS = 1200
_MAX_DOCSTRING_CHARACTERS = 1500
_MIN_SUMMARY_WORDS = 4
_MAX_SUMMARY_WORDS = 40
_WORD = re.compile(r'[a-z]{2,}')
# Of 100, by a hash of the qualified name: below 80 train, below 85 dev.
_TRAIN, _DEV = 80, 85


@dataclasses.dataclass(frozen=True)
class _Entry:
  name: str
  summary: str
  text: str
  body_key: str


def write_python_docs(directory: str | pathlib.Path) -> dict[str, int]:
  """Writes the collection as a folder in the BEIR layout, by one rename.

  Args:
    directory: where; an older one is replaced.

  Returns:
    Numbers of documents and of queries by split.
  """
  with new_folder(directory) as work:
    (work / 'qrels').mkdir()
    return _write(work, list(_distinct(_entries())))


def split_of(name: str) -> str:
  """The split of a document's query, by a hash of its name alone."""
  digest = hashlib.sha256(name.encode()).digest()
  bucket = int.from_bytes(digest[:4]) % 100
  if bucket < _TRAIN:
    return 'train'
  return 'dev' if bucket < _DEV else 'test'


def _write(directory: pathlib.Path, entries: list[_Entry]) -> dict[str, int]:
  counts = {'documents': len(entries), 'train': 0, 'dev': 0, 'test': 0}
  judged = {split: [] for split in ('train', 'dev', 'test')}
  with (
    (directory / 'corpus.jsonl').open('w', encoding='utf-8') as corpus,
    (directory / 'queries.jsonl').open('w', encoding='utf-8') as queries,
  ):
    for entry in entries:
      document = {'_id': entry.name, 'title': entry.name, 'text': entry.text}
      corpus.write(json.dumps(document, ensure_ascii=False) + '\n')
      query = {'_id': f'q:{entry.name}', 'text': entry.summary}
      queries.write(json.dumps(query, ensure_ascii=False) + '\n')
      split = split_of(entry.name)
      counts[split] += 1
      judged[split].append(f'q:{entry.name}\t{entry.name}\t1\n')
  for split, lines in judged.items():
    header = 'query-id\tcorpus-id\tscore\n'
    (directory / 'qrels' / f'{split}.tsv').write_text(
      header + ''.join(lines), 'utf-8'
    )
  return counts


def _distinct(entries: Iterator[_Entry]) -> Iterator[_Entry]:
  """Keeps the first of those that share a name, a summary or a body."""
  names, summaries, bodies = set(), set(), set()
  for entry in entries:
    summary = ' '.join(_WORD.findall(entry.summary.lower()))
    if entry.name in names or summary in summaries or entry.body_key in bodies:
      continue
    names.add(entry.name)
    summaries.add(summary)
    bodies.add(entry.body_key)
    yield entry


def _entries() -> Iterator[_Entry]:
  """Public documented names in a fixed order: by package, file and line."""
  for root, prefix in _roots():
    for path in _source_files(root):
      relative = path.relative_to(root).with_suffix('')
      # The library's own underscored modules repeat public ones; packages
      # keep what they publish in folders called _src.
      if not prefix and relative.parts[0].startswith('_'):
        continue
      parts = [part for part in relative.parts if part != '__init__']
      module = '.'.join([prefix, *parts] if prefix else parts)
      yield from _module_entries(path, module)


def _roots() -> list[tuple[pathlib.Path, str]]:
  """Folders of sources, with the package each holds."""
  roots = [(pathlib.Path(sysconfig.get_path('stdlib')), '')]
  for package in PACKAGES:
    # Finding a top-level package does not import it.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
      continue
    for place in sorted(spec.submodule_search_locations):
      roots.append((pathlib.Path(place), package))
  return roots


def _source_files(root: pathlib.Path) -> Iterator[pathlib.Path]:
  for folder, folders, files in os.walk(root):
    folders[:] = sorted(
      name
      for name in folders
      if name not in _LEFT_OUT_FOLDERS and not name.startswith(('.', 'config-'))
    )
    for name in sorted(files):
      is_test = name.startswith('test_') or name.endswith(
        ('_test.py', '_tests.py', 'conftest.py')
      )
      if name.endswith('.py') and not is_test:
        yield pathlib.Path(folder, name)


def _module_entries(path: pathlib.Path, module: str) -> Iterator[_Entry]:
  try:
    source = path.read_text('utf-8')
    with warnings.catch_warnings():
      # Old sources hold escapes that newer Pythons warn about.
      warnings.simplefilter('ignore')
      tree = ast.parse(source)
  except (SyntaxError, UnicodeDecodeError, ValueError):
    # Templates and files for other Pythons are no documentation of this one.
    return
  yield from _scope_entries(tree.body, module, source.splitlines())


def _scope_entries(
  nodes: list[ast.stmt], scope: str, lines: list[str]
) -> Iterator[_Entry]:
  for node in nodes:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if not isinstance(node, kinds) or node.name.startswith('_'):
      continue
    name = f'{scope}.{node.name}'
    entry = _entry(node, name, lines)
    if entry is not None:
      yield entry
    if isinstance(node, ast.ClassDef):
      yield from _scope_entries(node.body, name, lines)


def _entry(node, name: str, lines: list[str]) -> _Entry | None:
  """The document of a class or function, or None when it says too little."""
  docstring = ast.get_docstring(node)
  if not docstring or node.name.startswith('test'):
    return None
  summary, _, rest = docstring.strip().partition('\n')
  # A summary that runs on to the next line is no one-line summary.
  if rest.strip() and not rest.startswith('\n'):
    paragraph, _, rest = docstring.strip().partition('\n\n')
    summary = ' '.join(paragraph.split())
  summary = summary.strip()
  words = _WORD.findall(summary.lower())
  if not _MIN_SUMMARY_WORDS <= len(words) <= _MAX_SUMMARY_WORDS:
    return None
  code = _code_after(node, lines)
  if _is_stub(node) and not rest.strip():
    return None
  text = '\n'.join(
    part
    for part in (
      _signature(node),
      rest.strip()[:_MAX_DOCSTRING_CHARACTERS],
      code[:_MAX_BODY_CHARACTERS],
    )
    if part
  )
  # Names repeat their summaries in comments and in the rest now and then.
  text = text.replace(summary, '')
  text, summary = _plain(text), _plain(summary)
  key = ' '.join((rest + code).split())
  return _Entry(name, summary, text, hashlib.sha256(key.encode()).hexdigest())


def _plain(text: str) -> str:
  """Text that any UTF-8 file can hold: docstrings may spell NUL."""
  return text.replace('\0', ' ').encode('utf-8', 'replace').decode()


def _signature(node) -> str:
  if isinstance(node, ast.ClassDef):
    bases = ', '.join(ast.unparse(base) for base in node.bases)
    return f'class {node.name}({bases})'
  returns = f' -> {ast.unparse(node.returns)}' if node.returns else ''
  return f'def {node.name}({ast.unparse(node.args)}){returns}'


def _code_after(node, lines: list[str]) -> str:
  """The source that follows the docstring."""
  code = lines[node.body[0].end_lineno : node.end_lineno]
  stripped = [line.strip() for line in code]
  return '\n'.join(line for line in stripped if line)


def _is_stub(node) -> bool:
  """Whether nothing but a docstring, pass, ... or raise is there."""
  return all(
    isinstance(statement, ast.Pass | ast.Raise)
    or (
      isinstance(statement, ast.Expr)
      and isinstance(statement.value, ast.Constant)
    )
    for statement in node.body
  )
