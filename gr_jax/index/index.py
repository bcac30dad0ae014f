"""An index of a corpus: identifiers, trie, vectors, texts; in memory or saved.

A saved version is self-contained: it also holds the parameters, the settings
and the vocabulary that search needs, and hashes that bind them together.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.numpy

from gr_jax.checksums import file_sha256
from gr_jax.decoding.trie import ARRAYS, Trie, build_trie, code_type
from gr_jax.index import manifest as manifests
from gr_jax.index import versions
from gr_jax.index.texts import TextTable, write_texts
from gr_jax.types import UserError

# Characters kept of a text for showing it.
SNIPPET_LENGTH = 1000
_MODEL = 'model.safetensors'
_SETTINGS = 'settings.json'
_VOCABULARY = 'vocabulary'
_TEXTS = ('document_ids', 'titles', 'snippets')
# What must be equal in the manifest and inside the model's file.
_BOUND = ('model_sha256', 'vocabulary_sha256', 'id_table_sha256')
_BINDING = 'index'


class Vocabulary(Protocol):
  """What an index asks of a vocabulary."""

  sha256: str

  def save(self, directory: pathlib.Path) -> None:
    """Writes the vocabulary's files."""
    ...


@dataclasses.dataclass(frozen=True)
class Index:
  """The documents of a corpus as search sees them; row d is document d.

  Attributes:
    codes_NL: identifiers, an unsigned integer type.
    trie: the trie of the identifiers.
    vectors_ND: unit vectors, float16 or float32.
    document_ids: the collection's ids.
    titles: one a document, may be empty.
    snippets: the beginning of each text.
    new_N: bool, which documents came after training; the model never saw them.
    directory: the version's folder, None in memory.
    manifest: of the version, None in memory.
  """

  codes_NL: np.ndarray
  trie: Trie
  vectors_ND: np.ndarray
  document_ids: Sequence[str]
  titles: Sequence[str]
  snippets: Sequence[str]
  new_N: np.ndarray
  directory: pathlib.Path | None = None
  manifest: Mapping[str, Any] | None = None

  def __post_init__(self):
    lengths = {
      'codes': len(self.codes_NL),
      'vectors': len(self.vectors_ND),
      'trie': len(self.trie),
      'new': len(self.new_N),
      **{name: len(getattr(self, name)) for name in _TEXTS},
    }
    if len(set(lengths.values())) > 1:
      raise UserError(
        f'the parts of an index should have one length, they have {lengths}'
      )

  def __len__(self) -> int:
    return len(self.codes_NL)

  @classmethod
  def build(
    cls,
    codes_NL: np.ndarray,
    code_sizes: Sequence[int],
    vectors_ND: np.ndarray,
    document_ids: Sequence[str],
    titles: Sequence[str],
    texts: Sequence[str],
  ) -> 'Index':
    """Makes an index in memory.

    Args:
      codes_NL: identifier of each document.
      code_sizes: number of codes of each position.
      vectors_ND: unit vectors, in the type they shall be kept in.
      document_ids: one a document.
      titles: one a document.
      texts: one a document; their beginnings are kept.
    """
    return cls(
      codes_NL=np.asarray(codes_NL).astype(code_type(code_sizes)),
      trie=build_trie(codes_NL, code_sizes),
      vectors_ND=vectors_ND,
      document_ids=document_ids,
      titles=titles,
      snippets=[text[:SNIPPET_LENGTH] for text in texts],
      new_N=np.zeros(len(codes_NL), bool),
    )

  def extended(
    self,
    codes_NL: np.ndarray,
    vectors_ND: np.ndarray,
    document_ids: Sequence[str],
    titles: Sequence[str],
    texts: Sequence[str],
  ) -> 'Index':
    """The same in memory with documents that the model was not trained on.

    Args:
      codes_NL: identifier of each new document.
      vectors_ND: unit vectors; kept in the type of those that are there.
      document_ids: one a document, none of them there already.
      titles: one a document.
      texts: one a document; their beginnings are kept.
    """
    kept = self.vectors_ND.dtype
    codes_NL = np.concatenate([self.codes_NL, np.asarray(codes_NL)])
    whole = Index.build(
      codes_NL,
      self.trie.code_sizes,
      np.concatenate([self.vectors_ND, np.asarray(vectors_ND).astype(kept)]),
      [*self.document_ids, *document_ids],
      [*self.titles, *titles],
      [*self.snippets, *texts],
    )
    came = np.ones(len(whole) - len(self), bool)
    return dataclasses.replace(whole, new_N=np.concatenate([self.new_N, came]))

  def save(
    self,
    path: pathlib.Path,
    params: Mapping[str, Any],
    settings: Mapping[str, Any],
    vocabulary: Vocabulary,
    inputs_sha256: Mapping[str, str],
    after: pathlib.Path | None = None,
  ) -> pathlib.Path:
    """Writes the index as the new current version of a folder.

    Args:
      path: the folder of all versions.
      params: nested parameters of the model.
      settings: the run's settings as JSON data.
      vocabulary: what turned the texts into tokens.
      inputs_sha256: what the training saw: 'corpus' (the file as it lies on
        disk), 'encoder_weights' and 'examples'.
      after: the version that this one was made from; refused when another
        has become current since.

    Returns:
      The folder of the new version.
    """
    flat = flatten(params)
    path = pathlib.Path(path)
    with versions.new_version(path, after) as directory:
      for name in _TEXTS:
        offsets = write_texts(directory / f'{name}.txt', getattr(self, name))
        np.save(directory / f'{name}_offsets.npy', offsets)
      np.save(directory / 'codes.npy', self.codes_NL)
      np.save(directory / 'vectors.npy', self.vectors_ND)
      np.save(directory / 'new.npy', self.new_N)
      for name in ARRAYS:
        np.save(directory / f'trie_{name}.npy', getattr(self.trie, name))
      text = json.dumps(settings, indent=1, sort_keys=True) + '\n'
      (directory / _SETTINGS).write_text(text, encoding='utf-8')
      (directory / _VOCABULARY).mkdir()
      vocabulary.save(directory / _VOCABULARY)
      facts = {
        'documents': len(self),
        'new_documents': int(np.sum(self.new_N)),
        'code_sizes': list(self.trie.code_sizes),
        'model_sha256': manifests.arrays_sha256(flat),
        'vocabulary_sha256': vocabulary.sha256,
        'id_table_sha256': _id_table_sha256(directory),
        'inputs_sha256': dict(inputs_sha256),
      }
      safetensors.numpy.save_file(
        flat,
        directory / _MODEL,
        metadata={_BINDING: _binding(facts)},
      )
      manifests.write_manifest(directory, facts)
    return versions.current_version(path)[0]

  @classmethod
  def load(cls, path: pathlib.Path, verify: bool = False) -> 'Index':
    """Opens the current version; arrays stay on disk until they are read.

    Sizes, small files and the hashes that bind model, vocabulary and
    identifiers are checked always.

    Args:
      path: the folder of all versions.
      verify: check every byte as well.
    """
    directory, sha256 = versions.current_version(pathlib.Path(path))
    manifest = manifests.read_manifest(directory, sha256, verify)
    _check_model(directory, manifest)
    texts = {
      name: TextTable(
        directory / f'{name}.txt', _array(directory, f'{name}_offsets')
      )
      for name in _TEXTS
    }
    codes_NL = _array(directory, 'codes')
    return cls(
      codes_NL=codes_NL,
      trie=_trie(directory, manifest, codes_NL),
      vectors_ND=_array(directory, 'vectors'),
      new_N=_new_documents(directory, manifest),
      directory=directory,
      manifest=manifest,
      **texts,
    )

  def params(self) -> dict[str, Any]:
    """The nested parameters of a saved index."""
    return unflatten(safetensors.numpy.load_file(self._saved() / _MODEL))

  def settings(self) -> dict[str, Any]:
    """The run's settings of a saved index, as JSON data."""
    text = (self._saved() / _SETTINGS).read_text(encoding='utf-8')
    return json.loads(text)

  @property
  def vocabulary_directory(self) -> pathlib.Path:
    """The folder of a saved index's vocabulary."""
    return self._saved() / _VOCABULARY

  def check_vocabulary(self, vocabulary: Vocabulary) -> None:
    """Refuses a vocabulary other than the one the index was built with."""
    expected = self.manifest['vocabulary_sha256'] if self.manifest else None
    if expected not in (None, vocabulary.sha256):
      raise UserError(
        f'{self.directory} was built with vocabulary {expected[:12]}, got'
        f' {vocabulary.sha256[:12]}: build the index again'
      )

  def _saved(self) -> pathlib.Path:
    if self.directory is None:
      raise ValueError('an index in memory has no files')
    return self.directory


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, np.ndarray]:
  """Nested parameters as {'indexer/codebooks': array}."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f'{prefix}{name}/'))
    else:
      flat[prefix + name] = np.require(np.asarray(value), requirements='C')
  return flat


def unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The inverse of `flatten`."""
  tree: dict[str, Any] = {}
  for path, value in flat.items():
    *parents, name = path.split('/')
    place = tree
    for parent in parents:
      place = place.setdefault(parent, {})
    place[name] = value
  return tree


def _array(directory: pathlib.Path, name: str) -> np.ndarray:
  """An array of a version, memory-mapped, never unpickled."""
  path = directory / f'{name}.npy'
  try:
    return np.load(path, mmap_mode='r', allow_pickle=False)
  except (ValueError, OSError) as error:
    reason = str(error).partition('\n')[0]
    raise UserError(
      f'{path} cannot be read ({reason}): build the index again'
    ) from error


def _trie(
  directory: pathlib.Path, manifest: Mapping[str, Any], codes_NL: np.ndarray
) -> Trie:
  """The trie of a version; it was of other tables before format 4."""
  code_sizes = tuple(manifest['code_sizes'])
  if manifest['format'] < 4:
    return build_trie(codes_NL, code_sizes)
  arrays = {name: _array(directory, f'trie_{name}') for name in ARRAYS}
  return Trie(code_sizes, **arrays)


def _new_documents(
  directory: pathlib.Path, manifest: Mapping[str, Any]
) -> np.ndarray:
  """Which documents came after training; format 2 knew of none."""
  if manifest['format'] == 2:
    return np.zeros(manifest['documents'], bool)
  return _array(directory, 'new')


def _id_table_sha256(directory: pathlib.Path) -> str:
  """One digest of which document has which identifier."""
  names = ('codes.npy', 'document_ids.txt', 'document_ids_offsets.npy')
  digests = [file_sha256(directory / name) for name in names]
  table = np.frombuffer(bytes.fromhex(''.join(digests)), np.uint8)
  return manifests.arrays_sha256({'id_table': table})


def _check_model(directory: pathlib.Path, manifest: Mapping[str, Any]) -> None:
  """Refuses parameters that belong to another index."""
  path = directory / _MODEL
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      inside = file.metadata() or {}
  except safetensors.SafetensorError as error:
    raise UserError(
      f'{path} cannot be read ({error}): build the index again'
    ) from error
  found, expected = inside.get(_BINDING), _binding(manifest)
  if found != expected:
    raise UserError(
      f'{path} is of another index: it should carry {expected}, it has {found}:'
      ' build the index again'
    )


def _binding(facts: Mapping[str, Any]) -> str:
  """The bound hashes as one entry: several come in random order in a file."""
  return json.dumps({name: facts[name][:16] for name in _BOUND})
