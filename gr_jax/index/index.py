"""An index of a corpus: identifiers, trie, vectors, texts; in memory or saved.

A saved version is self-contained: it also holds the parameters, the settings
and the vocabulary that search needs, and hashes that bind them together.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from gr_jax.checksums import file_sha256
from gr_jax.decoding.trie import ARRAYS, Trie, build_trie, code_type
from gr_jax.index import manifest as manifests
from gr_jax.index import versions, weights
from gr_jax.index.arrays import CODES, VECTORS, read_array, read_trie
from gr_jax.index.fields import Fields
from gr_jax.index.texts import RowsOfTexts, TextTable
from gr_jax.types import UserError

# Characters kept of a text for showing it.
SNIPPET_LENGTH = 1000
_SETTINGS = 'settings.json'
_VOCABULARY = 'vocabulary'
_TEXTS = ('document_ids', 'titles', 'snippets')
_FOLDED = 'folded'


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
    hidden_N: bool, which documents no search finds until they are shown again.
    fields: of the documents' metadata, to filter by.
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
  hidden_N: np.ndarray
  fields: Fields
  directory: pathlib.Path | None = None
  manifest: Mapping[str, Any] | None = None

  def __post_init__(self):
    lengths = {
      'codes': len(self.codes_NL),
      'vectors': len(self.vectors_ND),
      'trie': len(self.trie),
      'new': len(self.new_N),
      'hidden': len(self.hidden_N),
      'fields': len(self.fields),
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
    metadata: Sequence[Mapping[str, object]] | None = None,
    new: bool = False,
  ) -> 'Index':
    """Makes an index in memory.

    Args:
      codes_NL: identifier of each document.
      code_sizes: number of codes of each position.
      vectors_ND: unit vectors, in the type they shall be kept in.
      document_ids: one a document.
      titles: one a document.
      texts: one a document; their beginnings are kept.
      metadata: one mapping a document; none has any when None.
      new: whether they came after training.
    """
    return cls(
      codes_NL=np.asarray(codes_NL).astype(code_type(code_sizes)),
      trie=build_trie(codes_NL, code_sizes),
      vectors_ND=vectors_ND,
      document_ids=document_ids,
      titles=titles,
      snippets=[text[:SNIPPET_LENGTH] for text in texts],
      new_N=np.full(len(codes_NL), new),
      hidden_N=np.zeros(len(codes_NL), bool),
      fields=Fields.build(
        [{}] * len(codes_NL) if metadata is None else metadata
      ),
    )

  @classmethod
  def joined(
    cls,
    parts: Sequence[tuple['Index', np.ndarray]],
    fields: Fields | None = None,
  ) -> 'Index':
    """An index in memory of documents of several.

    It keeps the folder and the manifest of the first, as it is of its model.

    Args:
      parts: indexes of one model, and the rising rows that are taken of each.
      fields: of the documents; those of the indexes when None.
    """
    if fields is None:
      fields = Fields.joined([(index.fields, rows) for index, rows in parts])
    arrays = {
      name: np.concatenate(
        [getattr(index, name)[rows] for index, rows in parts]
      )
      for name in ('codes_NL', 'vectors_ND', 'new_N', 'hidden_N')
    }
    texts = {
      name: TextTable.joined(
        [(TextTable.of(getattr(index, name)), rows) for index, rows in parts]
      )
      for name in _TEXTS
    }
    first, _ = parts[0]
    return cls(
      trie=build_trie(arrays['codes_NL'], first.trie.code_sizes),
      fields=fields,
      directory=first.directory,
      manifest=first.manifest and {**first.manifest, _FOLDED: True},
      **arrays,
      **texts,
    )

  def rows_of(self, document_ids: Sequence[str]) -> np.ndarray:
    """[ids] row of each document, NO_DOC where it is not there."""
    return self._rows_of_ids.find(document_ids)

  @functools.cached_property
  def _rows_of_ids(self) -> RowsOfTexts:
    return RowsOfTexts(TextTable.of(self.document_ids))

  def save(
    self,
    path: pathlib.Path,
    params: Mapping[str, Any],
    settings: Mapping[str, Any],
    vocabulary: Vocabulary,
    inputs_sha256: Mapping[str, str],
  ) -> pathlib.Path:
    """Writes the index as the new current version of a folder.

    Args:
      path: the folder of all versions.
      params: nested parameters of the model.
      settings: the run's settings as JSON data.
      vocabulary: what turned the texts into tokens.
      inputs_sha256: what the training saw: 'corpus' (the file as it lies on
        disk), 'encoder_weights' and 'examples'.

    Returns:
      The folder of the new version.
    """
    path = pathlib.Path(path)
    with versions.new_version(path) as directory:
      self.write(directory, params, settings, vocabulary, inputs_sha256)
    return versions.current_version(path)[0]

  def write(
    self,
    directory: pathlib.Path,
    params: Mapping[str, Any],
    settings: Mapping[str, Any],
    vocabulary: Vocabulary,
    inputs_sha256: Mapping[str, str],
  ) -> None:
    """Fills the folder of a version; arguments as of `save`."""
    flat = weights.flatten(params)
    for name in _TEXTS:
      texts = TextTable.of(getattr(self, name))
      texts.write(directory / f'{name}.txt')
      np.save(directory / f'{name}_offsets.npy', texts.offsets)
    for name in ('codes_NL', 'vectors_ND', 'new_N', 'hidden_N'):
      np.save(directory / f'{_file_name(name)}.npy', getattr(self, name))
    for name in ARRAYS:
      np.save(directory / f'trie_{name}.npy', getattr(self.trie, name))
    self.fields.save(directory)
    text = json.dumps(settings, indent=1, sort_keys=True) + '\n'
    (directory / _SETTINGS).write_text(text, encoding='utf-8')
    (directory / _VOCABULARY).mkdir()
    vocabulary.save(directory / _VOCABULARY)
    facts = {
      'documents': len(self),
      'new_documents': int(np.sum(self.new_N)),
      'hidden_documents': int(np.sum(self.hidden_N)),
      'code_sizes': list(self.trie.code_sizes),
      'model_sha256': manifests.arrays_sha256(flat),
      'vocabulary_sha256': vocabulary.sha256,
      'id_table_sha256': _id_table_sha256(directory),
      'inputs_sha256': dict(inputs_sha256),
      _FOLDED: self.folded,
    }
    weights.save(directory, flat, facts)
    manifests.write_manifest(directory, facts)

  @classmethod
  def load(
    cls, directory: pathlib.Path, sha256: str, verify: bool = False
  ) -> 'Index':
    """Opens a version as it was built; arrays stay on disk until they are read.

    Sizes, small files and the hashes that bind model, vocabulary and
    identifiers are checked always. What has changed since is in its log:
    reader.load_index gives both.

    Args:
      directory: of the version.
      sha256: of its manifest.
      verify: check every byte as well.
    """
    manifest = manifests.read_manifest(directory, sha256, verify)
    weights.check(directory, manifest)
    documents, length = manifest['documents'], len(manifest['code_sizes'])
    codes_NL = read_array(directory, 'codes', CODES, (documents, length))
    return cls(
      codes_NL=codes_NL,
      trie=_trie(directory, manifest, codes_NL),
      vectors_ND=read_array(directory, 'vectors', VECTORS, (documents, None)),
      new_N=_flags(directory, manifest, 'new', since=3),
      hidden_N=_flags(directory, manifest, 'hidden', since=5),
      fields=Fields.load(directory, documents),
      directory=directory,
      manifest=manifest,
      **{name: _texts(directory, name, documents) for name in _TEXTS},
    )

  @property
  def folded(self) -> bool:
    """Whether documents have come or gone since the corpus was indexed."""
    return bool(self.manifest and self.manifest.get(_FOLDED))

  def params(self) -> dict[str, Any]:
    """The nested parameters of a saved index."""
    return weights.load(self._saved())

  def settings(self) -> dict[str, Any]:
    """The run's settings of a saved index, as JSON data."""
    return manifests.read_object(self._saved() / _SETTINGS)

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


def _file_name(field: str) -> str:
  """Without the letters of the shape."""
  return field.rpartition('_')[0]


def _texts(directory: pathlib.Path, name: str, documents: int) -> TextTable:
  """A text of each document."""
  shape = (documents + 1,)
  offsets = read_array(directory, f'{name}_offsets', [np.int64], shape)
  path = directory / f'{name}.txt'
  if not path.is_file():
    raise UserError(f'{path} is missing: build the index again')
  return TextTable.open(path, offsets)


def _trie(
  directory: pathlib.Path, manifest: Mapping[str, Any], codes_NL: np.ndarray
) -> Trie:
  """The trie of a version; it was of other tables before format 4."""
  code_sizes = manifest['code_sizes']
  if manifest['format'] >= 4:
    return read_trie(directory, code_sizes, len(codes_NL))
  try:
    return build_trie(codes_NL, code_sizes)
  except ValueError as error:
    raise UserError(
      f'{directory} has identifiers that fit no trie ({error}): build the index'
      ' again'
    ) from error


def _flags(
  directory: pathlib.Path, manifest: Mapping[str, Any], name: str, since: int
) -> np.ndarray:
  """A bool a document; none is set in versions of an earlier format."""
  documents = manifest['documents']
  if manifest['format'] < since:
    return np.zeros(documents, bool)
  return read_array(directory, name, [np.bool_], (documents,))


def _id_table_sha256(directory: pathlib.Path) -> str:
  """One digest of which document has which identifier."""
  names = ('codes.npy', 'document_ids.txt', 'document_ids_offsets.npy')
  digests = [file_sha256(directory / name) for name in names]
  table = np.frombuffer(bytes.fromhex(''.join(digests)), np.uint8)
  return manifests.arrays_sha256({'id_table': table})
