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
import json
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from gr_jax.checksums import file_sha256
from gr_jax.data.collection import Collection
from gr_jax.data.folders import new_folder
from gr_jax.data.plan_files import inputs_stamp
from gr_jax.data.plan_vocabulary import plan_vocabulary
from gr_jax.data.preparation_settings import (
  FORMAT,
  PreparationSettings,
)
from gr_jax.data.prepared import (
  DOCUMENT_IDS,
  MANIFEST,
  VOCABULARY,
  document_indices_file,
  manifest_text,
)
from gr_jax.data.shard_files import (
  Example,
  encode_example,
  encode_tokens,
  write_shard,
)
from gr_jax.data.task_rows import Row, read_rows
from gr_jax.data.text_examples import CORPUS, Plan, make_plan
from gr_jax.data.vocabularies import Vocabulary, load_vocabulary

# Makes the Tasks of a plan by source name; tasks/ has it, and nothing below
# the doors imports tasks/.
TasksMaker = Callable[[Plan, Vocabulary, bool], Mapping[str, object]]

_JOBS = 'jobs'


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
  with new_folder(directory) as work:
    (work / _JOBS).mkdir()
    plan = make_plan(settings, work / DOCUMENT_IDS)
    vocabulary = plan_vocabulary(plan, work / VOCABULARY)
    jobs = [
      Job(kind, shard)
      for kind in (CORPUS, *settings.sources)
      for shard in range(plan.shards(kind))
    ]
    cached = {}
    if settings.task_cache:
      cached = _from_cache(plan, jobs, work, make_tasks)
    else:
      runner = _run_beam if settings.runner == 'beam' else _run_local
      runner(plan, jobs, work, make_tasks)
    manifest = _manifest(plan, vocabulary, jobs, work)
    manifest |= {'inputs_sha256': plan.inputs_sha256, 'task_cache': cached}
    shutil.rmtree(work / _JOBS)
    manifest['files'] = _checksums(work)
    (work / MANIFEST).write_text(manifest_text(manifest), 'utf-8')
  return manifest


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


def _from_cache(
  plan: Plan, jobs: Sequence[Job], work: pathlib.Path, make_tasks: TasksMaker
) -> dict:
  """Writes the files of all jobs from cached Tasks; returns their hashes."""
  from gr_jax.data.task_cache import TaskCache

  tasks = _tasks(plan, work, make_tasks)
  stamp = inputs_stamp(plan, load_vocabulary(work / VOCABULARY))
  hashes = {}
  for kind in (CORPUS, *plan.settings.sources):
    cache = TaskCache(tasks[kind], plan.settings.task_cache, stamp)
    hashes[kind] = cache.spill(work / _JOBS, _feature(kind))
    for job in (job for job in jobs if job.kind == kind):
      _write(job, work, cache.sorted_rows(work / _JOBS, job.shard))
  return hashes


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
  dataset = _tasks(plan, work, make_tasks)[job.kind].get_dataset(
    sequence_length={
      'query': settings.query_length,
      'document': settings.document_length,
    },
    split='train',
    shuffle=False,
    shard_info=seqio.ShardInfo(job.shard, plan.shards(job.kind)),
  )
  _write(job, work, read_rows(dataset, _feature(job.kind)))


def _feature(kind: str) -> str:
  return 'document' if kind == CORPUS else 'query'


def _write(job: Job, work: pathlib.Path, rows: Iterable[Row]) -> None:
  """Writes the rows of a job, and what the manifest needs to know of them."""
  truncated, indices = 0, []

  def records() -> Iterator[bytes]:
    nonlocal truncated
    for row in rows:
      truncated += row.truncated
      indices.append(row.document_index)
      if job.kind == CORPUS:
        yield encode_tokens(row.tokens)
      else:
        yield encode_example(
          Example(row.tokens, row.document_index, row.query_id)
        )

  count = write_shard(work / f'{job.name}.array_record', records())
  np.save(work / _JOBS / f'{job.name}.npy', np.array(indices, np.int32))
  report = {'count': count, 'truncated': truncated}
  (work / _JOBS / f'{job.name}.json').write_text(json.dumps(report))


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
