"""What preparation is asked to do, and the hash that says whether it was."""

import dataclasses
import hashlib
import importlib.util
import json
import pathlib

from gr_jax.checksums import file_sha256
from gr_jax.data.collection import Collection
from gr_jax.types import UserError, near_miss

# Raised whenever the same inputs would give other examples or another layout.
FORMAT = 1
SOURCES = ('labelled', 'document', 'spans', 'extractive', 'pseudo')
# May be missing, unlike a split of another name.
TRAIN_SPLIT = 'train'
TRAINED_VOCABULARY = 'sentencepiece'
_PACKAGE_PREFIX = 'package:'


@dataclasses.dataclass(frozen=True)
class PreparationSettings:
  """How a collection becomes tokenised training examples.

  Attributes:
    data_dir: folder in the BEIR layout.
    vocabulary: 'sentencepiece' to train one on the corpus; or the path of a
      tokenizer.json (WordPiece), of a .model file (SentencePiece, T5's), or
      'package:NAME/FILE' for a file of an installed package.
    vocabulary_size: pieces of a trained vocabulary.
    query_length: tokens of a query at most, special ones included.
    document_length: tokens of a document at most, special ones included.
    sources: which kinds of queries to make, of `SOURCES`: 'labelled' queries
      of `train_split`, the beginning of each 'document', random 'spans' of
      it, 'extractive' pseudo-queries (title, sentences, phrases), and
      'pseudo' ones that are read from `pseudo_queries`.
    train_split: the split whose judgements label queries.
    control_field: of the metadata of queries, as 'language': labelled queries
      that have it begin with its value, so that a query generator learns what
      the value asks for (GeneratorSource.query_language). '' for none.
    spans_per_document: random spans of each document.
    span_words_min: words of a random span at least.
    span_words_max: words of a random span at most.
    extractive_per_document: extractive pseudo-queries of each document.
    pseudo_queries: JSON lines file, {"_id": document, "queries": [...]} or
      {"document_id": ..., "query": ...} a line; or a folder of such files that
      gr_jax.generate_queries wrote. Empty when there is none.
    max_bad_records: records that may be left out and listed.
    seed: of the random spans and phrases.
    documents_per_shard: documents (or labelled queries) of one output file.
    runner: 'local', or 'beam' to spread the shards over workers.
    beam_options: command-line options of the Beam pipeline.
    task_cache: folder in which seqio_cache_tasks cached the Tasks of a plan
      (`gr_jax.prepare --plan`); their examples are sorted and written as if
      they had been made here. Empty to make them.
    prepared_at: URL of a folder of prepared examples, as gs://BUCKET/FOLDER,
      that `gr_jax.prepare --upload` wrote: each host copies it into cache_dir
      once. Empty to prepare.
  """

  data_dir: str = ''
  vocabulary: str = TRAINED_VOCABULARY
  vocabulary_size: int = 8192
  query_length: int = 32
  document_length: int = 192
  sources: tuple[str, ...] = ('labelled', 'document', 'spans', 'extractive')
  train_split: str = TRAIN_SPLIT
  control_field: str = ''
  spans_per_document: int = 8
  span_words_min: int = 4
  span_words_max: int = 24
  extractive_per_document: int = 4
  pseudo_queries: str = ''
  max_bad_records: int = 0
  seed: int = 0
  documents_per_shard: int = 32768
  runner: str = 'local'
  beam_options: tuple[str, ...] = ()
  task_cache: str = ''
  prepared_at: str = ''

  def __post_init__(self):
    # Settings that come from JSON or gin hold lists.
    object.__setattr__(self, 'sources', tuple(self.sources))
    object.__setattr__(self, 'beam_options', tuple(self.beam_options))
    for name in self.sources:
      if name not in SOURCES:
        raise UserError(
          f'no source {name!r}; there are {list(SOURCES)}'
          f'{near_miss(name, SOURCES)}'
        )
    if len(set(self.sources)) < len(self.sources):
      raise UserError(f'sources are listed twice: {list(self.sources)}')
    for name in _LEAST:
      if getattr(self, name) < _LEAST[name]:
        raise UserError(
          f'{name} must be at least {_LEAST[name]}, got {getattr(self, name)}'
        )
    if self.span_words_max < self.span_words_min:
      raise UserError(
        f'span_words_max {self.span_words_max} is below span_words_min '
        f'{self.span_words_min}'
      )
    if self.runner not in ('local', 'beam'):
      raise UserError(f"runner must be 'local' or 'beam', got {self.runner!r}")
    if ('pseudo' in self.sources) != bool(self.pseudo_queries):
      raise UserError(
        "the source 'pseudo' and the file pseudo_queries go together; got "
        f'sources {list(self.sources)} and {self.pseudo_queries!r}'
      )


_LEAST = {
  'vocabulary_size': 16,
  'query_length': 3,
  'document_length': 3,
  'spans_per_document': 1,
  'span_words_min': 1,
  'extractive_per_document': 1,
  'max_bad_records': 0,
  'documents_per_shard': 1,
}
# They say where the work is done, not what comes out.
WHERE = ('runner', 'beam_options', 'task_cache', 'prepared_at')
# What lies there counts, wherever it lies.
_PATHS = ('data_dir', 'pseudo_queries')


def vocabulary_path(vocabulary: str) -> pathlib.Path | None:
  """The file that a vocabulary setting names; None for a trained one.

  Raises:
    UserError: when it names nothing.
  """
  if vocabulary == TRAINED_VOCABULARY:
    return None
  if not vocabulary.startswith(_PACKAGE_PREFIX):
    path = pathlib.Path(vocabulary)
    if not path.exists():
      there = list(path.parent.iterdir()) if path.parent.is_dir() else []
      names = [entry.name for entry in there]
      raise UserError(
        f'vocabulary: expected {TRAINED_VOCABULARY!r}, a tokenizer.json, a '
        f'.model file or package:NAME/FILE; {vocabulary!r} does not exist'
        f'{near_miss(path.name, names)}'
      )
    return path
  name, _, file = vocabulary.removeprefix(_PACKAGE_PREFIX).partition('/')
  spec = importlib.util.find_spec(name) if name.isidentifier() else None
  if spec is None or not spec.submodule_search_locations:
    raise UserError(f'vocabulary: the package {name!r} is not installed')
  path = pathlib.Path(spec.submodule_search_locations[0], file)
  if not path.is_file():
    raise UserError(f'vocabulary: the package {name!r} has no file {file!r}')
  return path


def inputs_hash(settings: PreparationSettings) -> str:
  """Hash of everything that the prepared examples depend on.

  Args:
    settings: with `data_dir` an existing folder.

  Returns:
    SHA-256 in hexadecimal, over the bytes of the collection, the vocabulary
    and the pseudo-queries, and over the settings that have an effect.

  Raises:
    UserError: when an input is missing.
  """
  effective = {
    key: value
    for key, value in dataclasses.asdict(settings).items()
    if key not in (*WHERE, *_PATHS)
  }
  # As it was before there was such a field.
  if not settings.control_field:
    del effective['control_field']
  path = vocabulary_path(settings.vocabulary)
  if path is not None:
    effective['vocabulary'] = path_sha256(path)
  if settings.pseudo_queries:
    effective['pseudo_queries'] = path_sha256(
      pathlib.Path(settings.pseudo_queries)
    )
  effective['collection'] = Collection(settings.data_dir).fingerprint()
  effective['format'] = FORMAT
  canonical = json.dumps(effective, sort_keys=True)
  return hashlib.sha256(canonical.encode()).hexdigest()


def path_sha256(path: pathlib.Path) -> str:
  """SHA-256 of a file, or of the names and bytes of the files of a folder."""
  if path.is_dir():
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
      if file.is_file():
        digest.update(f'{file.name} {file_sha256(file)}\n'.encode())
    return digest.hexdigest()
  if not path.is_file():
    raise UserError(f'{path}: expected a file; there is none')
  return file_sha256(path)
