"""Prepared examples as training reads them; no TensorFlow."""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from gr_jax.checksums import file_sha256
from gr_jax.data.preparation_settings import (
  FORMAT,
  PreparationSettings,
  inputs_hash,
)
from gr_jax.data.shard_files import (
  Example,
  decode_example,
  decode_tokens,
  read_shards,
)
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.types import UserError

MANIFEST = 'manifest.json'
DOCUMENT_IDS = 'document_ids.txt'
VOCABULARY = 'vocabulary'
_CHECKSUM = 'manifest_sha256'


def document_indices_file(source: str) -> str:
  """Name of the file with the document of each example of a source."""
  return f'examples-{source}.documents.npy'


class ExampleSource:
  """Random access to the examples of one kind.

  Attributes:
    document_indices: int32 [examples], the document of each.
  """

  def __init__(self, paths: Sequence[pathlib.Path], indices_path: pathlib.Path):
    self.document_indices = np.load(indices_path, mmap_mode='r')
    self._paths = paths
    self._opened = None

  def __len__(self) -> int:
    return len(self.document_indices)

  def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
    """Query tokens (int32) and document index of an example."""
    example = self.example(index)
    return example.query_tokens, example.document_index

  def example(self, index: int) -> Example:
    """An example with its query id."""
    return self.examples([index])[0]

  def examples(self, indices: Sequence[int]) -> list[Example]:
    """Several examples, read together."""
    return [
      decode_example(record)
      for record in self._records.__getitems__([int(i) for i in indices])
    ]

  def query_tokens(self, indices: Sequence[int]) -> list[np.ndarray]:
    """Query tokens of several examples, read together."""
    return [example.query_tokens for example in self.examples(indices)]

  @property
  def _records(self):
    # Opened late: with vectors at hand training reads no token.
    if self._opened is None:
      self._opened = read_shards(self._paths)
    return self._opened


class PreparedData:
  """A folder that preparation wrote.

  Attributes:
    directory: the folder.
    manifest: settings, counts, hashes and files; see `gr_jax.data.prepare`.
    document_ids: ids in corpus order.
    sources: examples by the name of their kind.
  """

  def __init__(self, directory: str | pathlib.Path):
    """Opens the folder.

    Raises:
      UserError: when it is missing or not whole.
    """
    self.directory = pathlib.Path(directory)
    self.manifest = _read_manifest(self.directory)
    if self.manifest.get('format') != FORMAT:
      raise UserError(
        f'{self.directory}: prepared in format {self.manifest.get("format")}, '
        f'this version reads {FORMAT}; run gr_jax.prepare again'
      )
    _check_sizes(self.directory, self.manifest)
    try:
      text = (self.directory / DOCUMENT_IDS).read_text('utf-8')
      self.document_ids = text.splitlines()
      self.sources = {
        name: ExampleSource(
          self._paths(source['shards']),
          self.directory / document_indices_file(name),
        )
        for name, source in self.manifest['sources'].items()
      }
    except ValueError as error:
      raise UserError(
        f'{self.directory}: damaged: {error}; delete it and prepare again'
      ) from error
    self._opened = None

  @property
  def query_length(self) -> int:
    """Tokens of a query at most."""
    return self.manifest['settings']['query_length']

  @property
  def document_length(self) -> int:
    """Tokens of a document at most."""
    return self.manifest['settings']['document_length']

  def hashes(self) -> dict[str, str]:
    """What a model that is trained on the examples depends on."""
    return {
      'vocabulary': self.vocabulary().sha256,
      'examples': self.manifest['inputs_sha256'],
    }

  def part_sha256(self, part: str) -> str:
    """Checksum of the tokens of 'documents', or of the examples of a source."""
    manifest = self.manifest
    is_source = part in manifest['sources']
    of_part = manifest['sources'][part] if is_source else manifest[part]
    files = manifest['files']
    text = ' '.join(files[shard]['sha256'] for shard in of_part['shards'])
    return hashlib.sha256(text.encode()).hexdigest()

  def vocabulary(self):
    """The vocabulary that made the tokens."""
    return load_vocabulary(self.directory / VOCABULARY)

  def document_tokens(self, indices: Sequence[int]) -> list[np.ndarray]:
    """Tokens (int32) of documents, read together."""
    if self._opened is None:
      self._opened = read_shards(
        self._paths(self.manifest['documents']['shards'])
      )
    records = self._opened.__getitems__([int(i) for i in indices])
    return [decode_tokens(record) for record in records]

  def verify(self) -> None:
    """Compares every file with its checksum.

    Raises:
      UserError: naming the first file that changed since it was written.
    """
    for line in _damaged(self.directory, self.manifest):
      raise UserError(line)

  def _paths(self, names: Sequence[str]) -> list[pathlib.Path]:
    return [self.directory / name for name in names]


def is_current(
  settings: PreparationSettings, directory: str | pathlib.Path
) -> bool:
  """Whether a folder holds what these settings and inputs would give.

  It hashes the inputs (about a second per GB) and compares the sizes of the
  files; `PreparedData.verify` compares their bytes.
  """
  directory = pathlib.Path(directory)
  try:
    manifest = _read_manifest(directory)
    _check_sizes(directory, manifest)
  except UserError:
    return False
  return manifest.get('inputs_sha256') == inputs_hash(settings)


def _read_manifest(directory: pathlib.Path) -> dict:
  path = directory / MANIFEST
  try:
    content = path.read_bytes()
  except FileNotFoundError as error:
    raise UserError(
      f'{directory}: no prepared examples ({MANIFEST} is missing); run '
      'python -m gr_jax.prepare'
    ) from error
  return parse_manifest(content, str(path))


def parse_manifest(content: bytes, place: str) -> dict:
  """The manifest of `manifest_text`.

  Args:
    content: of its file.
    place: of the file, for messages.

  Raises:
    UserError: when it is damaged.
  """
  try:
    manifest = json.loads(content.decode('utf-8'))
  except ValueError as error:
    raise UserError(f'{place}: damaged: {error}; prepare again') from error
  if not isinstance(manifest, dict) or 'files' not in manifest:
    raise UserError(f'{place}: damaged: no list of files; prepare again')
  # Those of before had none.
  checksum = manifest.pop(_CHECKSUM, None)
  if checksum not in (None, _sha256(manifest)):
    raise UserError(f'{place}: damaged: its checksum differs; prepare again')
  return manifest


def manifest_text(manifest: dict) -> str:
  """What a manifest's file holds: the manifest and a checksum of it.

  Args:
    manifest: JSON data.
  """
  whole = {**manifest, _CHECKSUM: _sha256(manifest)}
  return json.dumps(whole, indent=1, sort_keys=True) + '\n'


def _sha256(manifest: dict) -> str:
  text = json.dumps(manifest, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def damaged_files(directory: pathlib.Path) -> tuple[dict, list[str]]:
  """Checks every byte of a folder without opening it for training.

  Args:
    directory: that preparation wrote.

  Returns:
    {name: {'bytes', 'sha256'}} of its files, none where the list of them is
    damaged, and a line on each that is not as it was written.
  """
  try:
    manifest = _read_manifest(directory)
  except UserError as error:
    return {}, [str(error)]
  return manifest['files'], list(_damaged(directory, manifest))


def _damaged(directory: pathlib.Path, manifest: dict) -> Iterator[str]:
  for name, entry in manifest['files'].items():
    path = directory / name
    if line := _wrong_size(path, entry):
      yield line
      continue
    found = file_sha256(path)
    if found != entry['sha256']:
      yield (
        f'{path}: damaged: SHA-256 {found[:12]}, the manifest says '
        f'{entry["sha256"][:12]}; delete {directory} and prepare again'
      )


def _check_sizes(directory: pathlib.Path, manifest: dict) -> None:
  for name, entry in manifest['files'].items():
    if line := _wrong_size(directory / name, entry):
      raise UserError(line)


def _wrong_size(path: pathlib.Path, entry: dict) -> str:
  """A line on a file of another size, or an empty string."""
  size = path.stat().st_size if path.is_file() else None
  if size == entry['bytes']:
    return ''
  return (
    f'{path}: expected {entry["bytes"]} bytes, found '
    f'{"no file" if size is None else size}; prepare again'
  )
