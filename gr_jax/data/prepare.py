"""Runs the seqio Tasks of a collection and writes what training reads.

The finished folder holds

  manifest.json                      settings, counts, hashes, files
  document_ids.txt                   an id a line, in corpus order
  vocabulary/                        the vocabulary itself
  documents-00000.array_record       tokens of each document, in corpus order
  examples-SOURCE-00000.array_record query tokens and document index
  examples-SOURCE.documents.npy      document index of each example

and appears by one rename. Work divides into shards, ranges of documents, each
of which becomes one file; where a shard is made does not change its bytes.
"""

import dataclasses
import functools
import itertools
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from gr_jax.checksums import file_sha256
from gr_jax.data.collection import Collection
from gr_jax.data.folders import new_folder
from gr_jax.data.preparation_settings import (
  FORMAT,
  PreparationSettings,
  inputs_hash,
  vocabulary_path,
)
from gr_jax.data.prepared import (
  DOCUMENT_IDS,
  MANIFEST,
  VOCABULARY,
  document_indices_file,
)
from gr_jax.data.shard_files import (
  Example,
  encode_example,
  encode_tokens,
  write_shard,
)
from gr_jax.data.text_examples import CORPUS, Plan, make_plan
from gr_jax.data.vocabularies import (
  Vocabulary,
  load_vocabulary,
  train_sentencepiece,
)

# Makes the Tasks of a plan by source name; tasks/ has it, and nothing below
# the doors imports tasks/.
TasksMaker = Callable[[Plan, Vocabulary, bool], Mapping[str, object]]

_JOBS = 'jobs'
# Enough to learn pieces from; a stride over the corpus spreads the choice.
_VOCABULARY_CHARACTERS = 5_000_000
_READ_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class Job:
  """One output file to write."""

  kind: str
  shard: int

  @property
  def name(self) -> str:
    """The file without its suffix."""
    stem = 'documents' if self.kind == CORPUS else f'examples-{self.kind}'
    return f'{stem}-{self.shard:05d}'


def prepare(
  settings: PreparationSettings,
  directory: str | pathlib.Path,
  make_tasks: TasksMaker,
) -> dict:
  """Writes the tokenised examples of a collection.

  Args:
    settings: with `data_dir` an existing folder.
    directory: where the examples go; an older folder there is replaced once
      the new one is whole.
    make_tasks: makes the seqio Tasks.

  Returns:
    The manifest.

  Raises:
    UserError: for bad input; nothing is left behind then.
  """
  # Taken before the work: a file that changes meanwhile makes it stale.
  inputs = inputs_hash(settings)
  with new_folder(directory) as work:
    (work / _JOBS).mkdir()
    plan = make_plan(settings, work / DOCUMENT_IDS)
    vocabulary = _vocabulary(plan, work / VOCABULARY)
    jobs = [
      Job(kind, shard)
      for kind in (CORPUS, *settings.sources)
      for shard in range(plan.shards(kind))
    ]
    runner = _run_beam if settings.runner == 'beam' else _run_local
    runner(plan, jobs, work, make_tasks)
    manifest = _manifest(plan, vocabulary, jobs, work)
    manifest['inputs_sha256'] = inputs
    shutil.rmtree(work / _JOBS)
    manifest['files'] = _checksums(work)
    text = json.dumps(manifest, indent=1, sort_keys=True) + '\n'
    (work / MANIFEST).write_text(text, 'utf-8')
  return manifest


def _vocabulary(plan: Plan, directory: pathlib.Path) -> Vocabulary:
  path = vocabulary_path(plan.settings.vocabulary)
  if path is not None:
    vocabulary = load_vocabulary(path)
    vocabulary.save(directory)
    return vocabulary
  characters = sum(len(text) for text in plan.document_texts())
  stride = max(1, math.ceil(characters / _VOCABULARY_CHARACTERS))
  return train_sentencepiece(
    itertools.islice(plan.document_texts(), 0, None, stride),
    plan.settings.vocabulary_size,
    directory,
    _VOCABULARY_CHARACTERS,
  )


def _run_local(
  plan: Plan, jobs: Sequence[Job], work: pathlib.Path, make_tasks: TasksMaker
) -> None:
  for job in jobs:
    write_job(job, plan, work, make_tasks)


def _run_beam(
  plan: Plan, jobs: Sequence[Job], work: pathlib.Path, make_tasks: TasksMaker
) -> None:
  """Spreads the jobs over Beam workers, which share the file system."""
  import apache_beam as beam
  from apache_beam.options.pipeline_options import PipelineOptions

  options = PipelineOptions(list(plan.settings.beam_options))
  work_on = functools.partial(
    write_job, plan=plan, work=work, make_tasks=make_tasks
  )
  with beam.Pipeline(options=options) as pipeline:
    _ = (
      pipeline
      | 'shards' >> beam.Create(list(jobs))
      | 'spread' >> beam.Reshuffle()
      | 'write' >> beam.Map(work_on)
    )


@functools.lru_cache(maxsize=1)
def _tasks(
  plan: Plan, work: pathlib.Path, make_tasks: TasksMaker
) -> Mapping[str, object]:
  """The Tasks of a plan, kept for the jobs that one process does."""
  return make_tasks(plan, load_vocabulary(work / VOCABULARY), False)


def write_job(
  job: Job, plan: Plan, work: pathlib.Path, make_tasks: TasksMaker
) -> None:
  """Writes one file of records, and what the manifest needs to know of it."""
  import seqio

  settings = plan.settings
  task = _tasks(plan, work, make_tasks)[job.kind]
  feature = 'document' if job.kind == CORPUS else 'query'
  dataset = task.get_dataset(
    sequence_length={
      'query': settings.query_length,
      'document': settings.document_length,
    },
    split='train',
    shuffle=False,
    shard_info=seqio.ShardInfo(job.shard, plan.shards(job.kind)),
  )
  truncated, indices = 0, []

  def records() -> Iterator[bytes]:
    nonlocal truncated
    for tokens, index, query_id, was_truncated in _rows(dataset, feature):
      truncated += was_truncated
      indices.append(index)
      if job.kind == CORPUS:
        yield encode_tokens(tokens)
      else:
        yield encode_example(Example(tokens, index, query_id))

  count = write_shard(work / f'{job.name}.array_record', records())
  np.save(work / _JOBS / f'{job.name}.npy', np.array(indices, np.int32))
  report = {'count': count, 'truncated': truncated}
  (work / _JOBS / f'{job.name}.json').write_text(json.dumps(report))


def _rows(dataset, feature: str):
  """Tokens, document index, query id and whether cut, read in batches."""
  batches = dataset.ragged_batch(_READ_BATCH).as_numpy_iterator()
  for batch in batches:
    for row, index in enumerate(batch['document_index'].tolist()):
      yield (
        batch[feature][row],
        index,
        batch['query_id'][row].decode(),
        bool(batch[f'{feature}_truncated'][row]),
      )


def _manifest(
  plan: Plan,
  vocabulary: Vocabulary,
  jobs: Sequence[Job],
  work: pathlib.Path,
) -> dict:
  settings = plan.settings
  collection = Collection(settings.data_dir)
  entries = {}
  for kind in (CORPUS, *settings.sources):
    mine = [job for job in jobs if job.kind == kind]
    entries[kind] = _entry(mine, work)
    if kind != CORPUS:
      parts = [np.load(work / _JOBS / f'{job.name}.npy') for job in mine]
      np.save(work / document_indices_file(kind), np.concatenate(parts))
  return {
    'format': FORMAT,
    'settings': dataclasses.asdict(settings),
    'corpus_sha256': collection.corpus_sha256(),
    'collection_sha256': collection.fingerprint(),
    'vocabulary': {'sha256': vocabulary.sha256, 'size': vocabulary.size},
    'documents': entries.pop(CORPUS),
    'cut_ids': list(plan.cut_ids),
    'sources': entries,
    'bad_records': [dataclasses.asdict(bad) for bad in plan.bad_records],
  }


def _entry(jobs: Sequence[Job], work: pathlib.Path) -> dict:
  reports = [
    json.loads((work / _JOBS / f'{job.name}.json').read_text()) for job in jobs
  ]
  return {
    'count': sum(report['count'] for report in reports),
    'truncated': sum(report['truncated'] for report in reports),
    'shards': [f'{job.name}.array_record' for job in jobs],
  }


def _checksums(directory: pathlib.Path) -> dict:
  return {
    path.relative_to(directory).as_posix(): {
      'bytes': path.stat().st_size,
      'sha256': file_sha256(path),
    }
    for path in sorted(directory.rglob('*'))
    if path.is_file()
  }
