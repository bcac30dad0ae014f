"""What gives queries: generators, files, the document's own text."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Protocol

from gr_jax.checksums import file_sha256
from gr_jax.data.collection import Collection
from gr_jax.data.extractive import extractive_queries, random_spans
from gr_jax.data.pseudo_queries import read_pseudo_queries
from gr_jax.data.pseudo_query_folder import MANIFEST
from gr_jax.data.text_examples import control_prefix
from gr_jax.querygen.candidates import Candidate
from gr_jax.querygen.key_phrases import key_phrases
from gr_jax.querygen.query_files import open_line_file, samples_of
from gr_jax.querygen.query_settings import (
  ExtractiveSource,
  FileSource,
  GeneratorSource,
)
from gr_jax.querygen.sampling import SamplingSettings
from gr_jax.querygen.words import Frequencies
from gr_jax.types import Document, UserError, document_text


class Writer(Protocol):
  """A generator, as querygen.generator.Generator is one.

  Attributes:
    sha256: of its parameters.
    batch_size: documents that it writes for at once.
  """

  sha256: str
  batch_size: int

  def generate(
    self,
    documents: Sequence[Document],
    settings: SamplingSettings,
    seed: int,
    prefix: str = '',
  ) -> Sequence[Sequence[tuple[str, float]]]:
    """Texts of queries and their log-probabilities, of each document."""
    ...


class Generated:
  """What a generator writes.

  Attributes:
    provenance: SHA-256 of the parameters.
    batch_size: documents that it writes for at once.
  """

  name = 'generator'

  def __init__(self, generator: Writer, settings: GeneratorSource, seed: int):
    """Takes the generator.

    Args:
      generator: that was trained.
      settings: how it is asked.
      seed: of all documents.
    """
    self._generator, self._settings = generator, settings
    self._seed = seed
    language = settings.query_language
    self._prefix = control_prefix(language) if language else ''
    self.provenance = generator.sha256
    self.batch_size = generator.batch_size

  def queries(
    self, documents: Sequence[Document], first: int
  ) -> list[list[Candidate]]:
    """See candidates.Source."""
    found = self._generator.generate(
      documents, self._settings.sampling, self._seed, self._prefix
    )
    return [
      [Candidate(text, self.name, log_prob) for text, log_prob in own]
      for own in found
    ]


class Extracts:
  """Titles, sentences, spans and key phrases."""

  name = 'extractive'
  provenance = None

  def __init__(
    self,
    settings: ExtractiveSource,
    seed: int,
    frequencies: Frequencies | None,
  ):
    """Takes what to cut.

    Args:
      settings: how many of each.
      seed: of all documents.
      frequencies: of the corpus; phrases need it.
    """
    self._settings, self._seed = settings, seed
    self._frequencies = frequencies

  def queries(
    self, documents: Sequence[Document], first: int
  ) -> list[list[Candidate]]:
    """See candidates.Source."""
    return [
      [Candidate(text, self.name) for text in self._texts(document)]
      for document in documents
    ]

  def _texts(self, document: Document) -> list[str]:
    settings, seed = self._settings, self._seed
    found = []
    if settings.sentences:
      found += extractive_queries(document, settings.sentences, seed)
    if settings.spans:
      found += random_spans(
        document,
        settings.spans,
        settings.span_words_min,
        settings.span_words_max,
        seed,
      )
    if settings.phrases:
      text = document_text(document)
      found += key_phrases(text, self._frequencies, settings.phrases)
    return found


class JsonLines:
  """Queries by document id, held in memory."""

  def __init__(self, settings: FileSource, collection: Collection):
    """Reads the file.

    Args:
      settings: which file.
      collection: that its documents are of.
    """
    self.name = 'file'
    self._count = settings.count
    path = pathlib.Path(settings.path)
    self.provenance = files_sha256(
      [path / MANIFEST] if path.is_dir() else [path]
    )
    self._of_document: dict[str, list[str]] = {}
    pairs = read_pseudo_queries(
      path, collection.document_index(), collection.refuse
    )
    for document_id, query in pairs:
      self._of_document.setdefault(document_id, []).append(query)

  def queries(
    self, documents: Sequence[Document], first: int
  ) -> list[list[Candidate]]:
    """See candidates.Source."""
    found = [self._of_document.get(document.id, []) for document in documents]
    return _candidates(found, self._count, self.name)


class TextLines:
  """Queries that stand in the order of the corpus."""

  def __init__(self, settings: FileSource, documents: int):
    """Opens the file.

    Args:
      settings: which file.
      documents: of the corpus.
    """
    self.name = 'file'
    self._count = settings.count
    path = pathlib.Path(settings.path)
    self.provenance = files_sha256(
      [file for sample in samples_of(path) for file in sample]
    )
    self._lines = open_line_file(path, documents)

  def queries(
    self, documents: Sequence[Document], first: int
  ) -> list[list[Candidate]]:
    """See candidates.Source."""
    found = self._lines.rows(first, len(documents))
    return _candidates(found, self._count, self.name)


def open_file(
  settings: FileSource, collection: Collection
) -> JsonLines | TextLines:
  """Opens queries that are there already.

  Args:
    settings: which file or folder.
    collection: that its documents are of.

  Raises:
    UserError: when it is missing, or of another collection.
  """
  path = pathlib.Path(settings.path)
  if not path.exists():
    raise UserError(f'{path}: expected a file or folder of queries; none there')
  bare = path.with_suffix('') if path.suffix == '.gz' else path
  if (path / MANIFEST).is_file() or bare.suffix == '.jsonl':
    return JsonLines(settings, collection)
  return TextLines(settings, len(collection.document_index()))


def files_sha256(paths: Sequence[pathlib.Path]) -> str:
  """The SHA-256 of files in order; of one file it is its own."""
  if len(paths) == 1 and paths[0].is_file():
    return file_sha256(paths[0])
  total = hashlib.sha256()
  for path in paths:
    if not path.is_file():
      raise UserError(f'{path}: expected a file; there is none')
    total.update(f'{file_sha256(path)}\n'.encode())
  return total.hexdigest()


def _candidates(
  found: Sequence[list[str]], count: int, name: str
) -> list[list[Candidate]]:
  """Texts as candidates, the first `count` of each document, 0 for all."""
  return [
    [Candidate(text, name) for text in texts[: count or None]]
    for texts in found
  ]
