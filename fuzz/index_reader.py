"""Bytes as damage to a saved index: it is refused, or it can be read.

  python fuzz/index_reader.py -max_total_time=180 [CORPUS_FOLDER]

Needs `pip install gr_jax[fuzz]`. An input is a list of changes to the files of
a small index, and how they come to be:

  accident: the checksums stand against what changed, so it must be refused;
  unnoticed: the files count as large, which are not hashed unless asked to;
  forged: sizes and checksums are made to fit again.

Nothing but UserError may come of it, and what opens gives all its documents.
"""

import atexit
import functools
import hashlib
import io
import json
import pathlib
import shutil
import tempfile
from unittest import mock

import campaign
import numpy as np

from gr_jax.index import log
from gr_jax.index import manifest as manifests
from gr_jax.index.changes import Delete, Hide, Insert
from gr_jax.index.index import Index
from gr_jax.index.living import LivingIndex
from gr_jax.index.reader import load_index
from gr_jax.types import Document, UserError

_WAYS = ('accident', 'unnoticed', 'forged')
_VERSION = 'v000001'
_LOG = f'{_VERSION}/{log.NAME}'
# What may stand in a manifest for something else.
_VALUES = (None, True, -1, 0, 3, 10**30, 0.5, float('nan'), '', '..', [], [0])
_VALUES += ([[]], {}, {'bytes': 0}, 'a' * 64)
_DTYPES = ('<i8', '>i4', '<f8', '<c8', '<u2', '|b1', '|V8', '<U3', '<M8[s]')
_SHAPES = ((), (-1,), (1, -1), (-1, 1), (0,), (2, 0))


def check(data: bytes) -> None:
  """Raises what loading and reading a changed index should not raise."""
  source = campaign.Source(data)
  way = _WAYS[source.below(3)]
  verify = source.below(2) == 1
  clean = _clean_files()
  files = dict(clean)
  while source:
    _change(files, source)
  if way == 'forged':
    _forge(files)
  folder = _folder()
  shutil.rmtree(folder, ignore_errors=True)
  for name, content in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  large = 0 if way == 'unnoticed' else manifests.SMALL_FILE
  with mock.patch.object(manifests, 'SMALL_FILE', large):
    try:
      index = load_index(folder, verify)
      _read(index)
    except UserError:
      assert files != clean
      return
  hashed = way == 'accident' or (way == 'unnoticed' and verify)
  assert not hashed or _is_as_if_killed(files, clean), 'damage was not noticed'


def _is_as_if_killed(files, clean):
  """Whether nothing is damaged but the end of the log, or nothing at all."""
  left = {name: content for name, content in files.items() if name != _LOG}
  whole = clean[_LOG]
  log = files.get(_LOG, b'')
  others = {name: content for name, content in clean.items() if name != _LOG}
  return left == others and whole.startswith(log.rstrip(b'\0'))


def _read(index):
  """All documents, the trie, and what came with them."""
  length = len(index.trie.code_sizes)
  for row in range(len(index)):
    for texts in (index.document_ids, index.titles, index.snippets):
      assert isinstance(texts[row], str)
    assert index.codes_NL[row].shape == (length,)
    assert np.issubdtype(index.vectors_ND[row].dtype, np.floating)
    assert index.vectors_ND[row].ndim == 1
    assert index.new_N[row] in (True, False)
  tables = index.trie.tables()
  assert tables.columns.shape[0] == length
  index.settings()
  index.params()


def _change(files, source):
  """Applies one change to the files of a version, by name."""
  names = sorted(files)
  name = names[source.below(len(names))]
  kind = source.below(8)
  content = files[name]
  place = source.below(max(len(content), 1)) if kind < 4 else 0
  if kind == 0:
    flipped = bytes([content[place] ^ source.below(256)]) if content else b''
    files[name] = content[:place] + flipped + content[place + 1 :]
  elif kind == 1:
    new = source.bytes(source.below(32))
    files[name] = content[:place] + new + content[place + len(new) :]
  elif kind == 2:
    new = source.bytes(source.below(32))
    files[name] = content[:place] + new + content[place:]
  elif kind == 3:
    files[name] = content[:place]
  elif kind == 4:
    # The pointer stays: without it there is no index, which is soon said.
    if name != 'CURRENT':
      del files[name]
  elif kind == 5:
    files[name] = files[names[source.below(len(names))]]
  elif kind == 6:
    _change_array(files, name, source)
  else:
    _change_manifest(files, source)


def _change_array(files, name, source):
  """Gives an array another type or shape."""
  dtype = _DTYPES[source.below(len(_DTYPES))]
  shape = _SHAPES[source.below(len(_SHAPES))]
  content = files[name]
  if not name.endswith('.npy') or not content.startswith(b'\x93NUMPY'):
    return
  file = io.BytesIO()
  if source.below(2):
    # Whole elements, of any of the types.
    array = np.frombuffer(content[: len(content) // 24 * 24], dtype)
  else:
    array = np.frombuffer(content[128:], np.uint8)
  size = array.size if -1 in shape else int(np.prod(shape))
  np.save(file, np.resize(array, size).reshape(shape), allow_pickle=False)
  files[name] = file.getvalue()


def _change_manifest(files, source):
  """Puts another value at some place of the manifest, or removes it."""
  name = f'{_VERSION}/{manifests.NAME}'
  try:
    place = json.loads(files.get(name, b'{}'))
  except (ValueError, RecursionError):
    return
  whole, keys = place, []
  while isinstance(place, dict) and place and (not keys or source.below(2)):
    keys.append(sorted(place)[source.below(len(place))])
    parent, place = place, place[keys[-1]]
  if not keys:
    return
  choice = source.below(len(_VALUES) + 1)
  if choice == len(_VALUES):
    del parent[keys[-1]]
  else:
    parent[keys[-1]] = _VALUES[choice]
  files[name] = json.dumps(whole).encode()


def _forge(files):
  """Makes sizes and checksums fit the files, where a manifest lists them."""
  name = f'{_VERSION}/{manifests.NAME}'
  if name not in files:
    return
  try:
    manifest = json.loads(files[name])
    for listed, entry in manifest['files'].items():
      content = files.get(f'{_VERSION}/{listed}')
      if content is not None:
        entry['bytes'] = len(content)
        entry['sha256'] = hashlib.sha256(content).hexdigest()
    files[name] = json.dumps(manifest).encode()
  except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
    # It is no manifest any more: it goes as it is.
    pass
  checksum = hashlib.sha256(files[name]).hexdigest()
  files['CURRENT'] = f'{_VERSION} {checksum}\n'.encode()


class _Vocabulary:
  """What an index asks of a vocabulary."""

  sha256 = hashlib.sha256(b'words').hexdigest()

  def save(self, directory):
    """Writes its one file."""
    (directory / 'vocabulary.txt').write_bytes(b'words')


@functools.cache
def _folder() -> pathlib.Path:
  """Where the changed files go."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='index_reader_'))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return folder / 'index'


@functools.cache
def _clean_files() -> dict[str, bytes]:
  """The files of an index of 20 documents and three changes, by name."""
  rng = np.random.default_rng(0)
  index = Index.build(
    rng.integers(0, 5, (20, 2)),
    (5, 300),
    rng.normal(size=(20, 4)).astype(np.float16),
    [f'd{row}' for row in range(20)],
    [f'título {row}' for row in range(20)],
    ['two\nlines', *['text'] * 19],
  )
  params = {'indexer': {'codebooks': rng.normal(size=(2, 3))}, 'scale': 2.5}
  index.save(_folder(), params, {'seed': 3}, _Vocabulary(), {'corpus': '0'})
  documents = [Document('new', 'a title', 'a text', {'year': 2020})]
  with LivingIndex(_folder()) as living:
    living.apply(Insert.of(documents, np.ones((1, 2), int), np.ones((1, 4))))
    living.apply(Delete(['d3']))
    living.apply(Hide(['d5', 'new']))
  return {
    path.relative_to(_folder()).as_posix(): path.read_bytes()
    for path in _folder().rglob('*')
    if path.is_file()
  }


if __name__ == '__main__':
  packages = ['gr_jax.index', 'gr_jax.checksums', 'json', 'numpy.lib']
  campaign.run(check, packages)
