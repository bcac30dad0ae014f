"""Puts every system through one split and keeps what it answered."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from gr_jax import locks, processes
from gr_jax.data.collection import Collection
from gr_jax.evaluation import metrics, protocol, report, run_files
from gr_jax.evaluation.shared_answers import ask_in_shards, joined_answers
from gr_jax.index.index import SNIPPET_LENGTH, Index
from gr_jax.retrieval.shards import write_whole
from gr_jax.types import Judgement, Query, UserError

# Of answers: raised where the same inputs have others.
FORMAT = 1


def check_documents(
  index: Index, index_path: pathlib.Path, collection: Collection
) -> None:
  """Refuses an index of another corpus than the one that is judged.

  The corpus of an evaluation is that of the index: a document that is missing
  would count as a miss without a word, a foreign one has no text for BM25.

  Args:
    index: what is judged.
    index_path: what messages call it.
    collection: corpus and judgements.
  """
  there = collection.document_index().keys()
  indexed = set(index.document_ids)
  if indexed != there:
    raise UserError(
      f'{index_path} should hold the documents of {collection.directory}: '
      f'{len(there - indexed)} are missing and {len(indexed - there)} are '
      'foreign; insert what is missing (python -m gr_jax.insert), name the '
      'folder of what it holds as --data_dir, or train in another RUN_DIR'
    )
  # An index in memory was made from what is there now.
  if index.manifest is None:
    return
  # With other texts under the same ids the vectors are of the old ones.
  was = index.manifest['inputs_sha256']['corpus']
  now = collection.corpus_sha256()
  if np.any(index.new_N) or index.folded:
    # No one file is what the index was made from.
    _check_texts(index, index_path, collection)
  elif was != now:
    raise UserError(
      f'{index_path} is of a corpus of SHA-256 {was[:12]}, that of '
      f'{collection.directory} is {now[:12]}: bring back the former, or train '
      'in another RUN_DIR'
    )


def _check_texts(
  index: Index, index_path: pathlib.Path, collection: Collection
) -> None:
  """Refuses texts that differ from those in the index, as far as it has them.

  The index keeps titles and the beginnings of texts.
  """
  row_of = {name: row for row, name in enumerate(index.document_ids)}
  for document in collection.documents():
    row = row_of[document.id]
    beginning = document.text[:SNIPPET_LENGTH]
    if (index.titles[row], index.snippets[row]) != (document.title, beginning):
      raise UserError(
        f'{index_path} has another text of {document.id!r} than '
        f'{collection.directory}: bring back the former, or train in another '
        'RUN_DIR'
      )


@dataclasses.dataclass(frozen=True)
class Questions:
  """The judged queries of a split, in the collection's order."""

  split: str
  queries: Sequence[Query]
  judgements: Sequence[Judgement]


def questions(collection: Collection, split: str) -> Questions:
  """Reads a split; to be called before anything that takes long.

  Args:
    collection: queries and judgements.
    split: of the judgements.

  Returns:
    The queries that have a judgement, relevant or not.
  """
  judgements = collection.judgements(split)
  wanted = {judgement.query_id for judgement in judgements}
  queries = [query for query in collection.queries() if query.id in wanted]
  if not queries:
    raise UserError(
      f'split {split!r} of {collection.directory} should hold judged queries, '
      'it holds none: check its qrels file'
    )
  return Questions(split, queries, judgements)


def judge(
  systems: Iterable[tuple[str, protocol.System]],
  asked: Questions,
  folder: pathlib.Path,
  kept: pathlib.Path,
  batch: int = 256,
) -> list[protocol.Measured]:
  """Asks all systems the queries of a split and writes their run files.

  Several processes share the queries; process 0 judges.

  Args:
    systems: row names and systems, in the order of the table; taken one at
      a time, so that a generator need not hold them all.
    asked: queries and judgements.
    folder: for the TREC run files, NAME.SPLIT.trec.
    kept: folder for answers, of these systems and queries alone; those that
      are there already are not asked for again.
    batch: queries asked at once.

  Returns:
    A row for each system; of other processes than the first, none.
  """
  texts = [query.text for query in asked.queries]
  rows = []
  for name, system in systems:
    paths = ask_in_shards(
      system, texts, metrics.DEPTH, batch, kept / report.slug(name), name
    )
    judge_one = functools.partial(
      _judge_one, name, system.document_ids, asked, folder, paths, rows
    )
    processes.first(judge_one)
  return rows


def _judge_one(name, document_ids, asked, folder, paths, rows) -> None:
  """Adds the row of a system and writes its run file."""
  row = protocol.judged(
    name, document_ids, *joined_answers(paths), asked.queries, asked.judgements
  )
  path = folder / f'{report.slug(name)}.{asked.split}.trec'
  query_ids = [query.id for query in asked.queries]
  run_files.write_run(path, query_ids, row.document_ids, row.rankings, name)
  rows.append(row)


@contextlib.contextmanager
def keeping_answers(
  folder: pathlib.Path, output: pathlib.Path, inputs: Mapping[str, object]
) -> Iterator[pathlib.Path]:
  """A place for the answers of one evaluation, which a kill leaves.

  Args:
    folder: for the places of all evaluations; it goes when it is empty.
    output: what the evaluation writes, one place for each.
    inputs: what the answers depend on beside software and devices, JSON data.

  Yields:
    The folder for `judge`; it goes at the end. What it holds from before is of
    the same inputs.

  Raises:
    UserError: when another process makes an evaluation of that output.
  """
  devices = [device.device_kind for device in jax.local_devices()]
  text = json.dumps([FORMAT, inputs, report.versions(), devices])
  identity = hashlib.sha256(text.encode()).hexdigest()
  processes.agree(identity, 'index, split, software or devices')
  place = hashlib.sha256(str(output.absolute()).encode()).hexdigest()[:8]
  kept = folder / f'{output.stem}-{place}'
  lock = locks.held(
    folder / f'{kept.name}.lock', f'making the evaluation {output}',
    'write another --output',
  )  # fmt: skip

  def begin():
    mark = kept / 'inputs.txt'
    if not mark.is_file() or mark.read_text(encoding='utf-8') != identity:
      shutil.rmtree(kept, ignore_errors=True)
      kept.mkdir(parents=True)
      write_whole(mark, identity)

  def end():
    shutil.rmtree(kept, ignore_errors=True)

  with contextlib.ExitStack() as stack:
    processes.first(lambda: stack.enter_context(lock))
    processes.first(begin)
    yield kept
    processes.first(end)
  with contextlib.suppress(OSError):
    folder.rmdir()
