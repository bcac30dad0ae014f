"""Asks a teacher to rank the candidates of a split, shard by shard.

What a shard holds depends on its queries alone: one that was interrupted is
ranked anew, the others stay, and the files are the same bytes. Several
processes share the shards.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from gr_jax import processes
from gr_jax.progress import Pace
from gr_jax.ranking.candidates import Source
from gr_jax.ranking.corpus import Asked
from gr_jax.ranking.teacher_files import (
  TeacherRanking,
  ranking_line,
  write_manifest,
)
from gr_jax.ranking.teachers import Teacher, candidate_rows, ranked
from gr_jax.retrieval.shards import is_done, mark_done, write_whole
from gr_jax.types import UserError

_INPUTS = 'inputs.json'


def write_rankings(
  directory: pathlib.Path,
  asked: Asked,
  teacher: Teacher,
  sources: Sequence[Source],
  depth: int,
  shard_queries: int,
  inputs: Mapping[str, Any],
) -> None:
  """Writes the rankings of all queries; those that are there already stay.

  Several processes call it together, with one folder that all can read.

  Args:
    directory: for the files; see `check_inputs`.
    asked: corpus, queries and their positives.
    teacher: ranks.
    sources: find candidates besides the positives.
    depth: candidates of a query that each source gives at most.
    shard_queries: queries of a shard.
    inputs: what the rankings depend on, for the manifest.
  """
  starts = range(0, len(asked.queries), shard_queries)
  paths = _paths(directory, len(starts))
  missing = missing_shards(directory, len(starts))
  mine = missing[processes.index() :: processes.count()]
  sizes = [
    min(shard_queries, len(asked.queries) - starts[number]) for number in mine
  ]
  done = 0
  with Pace(max(sum(sizes), 1), 'ranking') as pace, processes.local_devices():
    for number, size in zip(mine, sizes, strict=True):
      places = range(starts[number], starts[number] + size)
      save_shard(paths[number], _lines(asked, teacher, sources, depth, places))
      done += size
      pace.show(done, done / sum(sizes))
  processes.meet()
  processes.first(lambda: write_manifest(directory, inputs, paths))


def missing_shards(directory: pathlib.Path, count: int) -> list[int]:
  """The numbers of those that are to be ranked, the same in all processes."""
  return processes.first(
    lambda: [
      number
      for number, path in enumerate(_paths(directory, count))
      if not is_done(path)
    ]
  )


def _paths(directory: pathlib.Path, count: int) -> list[pathlib.Path]:
  return [directory / f'{number:05d}.jsonl' for number in range(count)]


def _lines(asked, teacher, sources, depth, places) -> str:
  """The rankings of some queries."""
  queries = [asked.queries[place] for place in places]
  found = [source.find(queries, depth) for source in sources]
  rows = [
    candidate_rows(asked.positives[place], [rows_BC[n] for rows_BC in found])
    for n, place in enumerate(places)
  ]
  lines = []
  scores = teacher.scores(queries, rows)
  for query, rows_C, scores_C in zip(queries, rows, scores, strict=True):
    rows_C, scores_C = ranked(scores_C, rows_C)
    names = tuple(asked.documents[row].id for row in rows_C)
    text = query.text if asked.made else ''
    ranking = TeacherRanking(query.id, names, scores_C, text)
    lines.append(ranking_line(ranking))
  return ''.join(lines)


def save_shard(path: pathlib.Path, text: str) -> None:
  """Writes a shard and its mark; it appears whole."""
  partial = path.with_name(f'{path.name}.partial')
  with partial.open('w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)
  mark_done(path)


def check_inputs(directory: pathlib.Path, inputs: Mapping[str, Any]) -> None:
  """Begins a folder of rankings, or goes on with one of the same inputs.

  Args:
    directory: for the files.
    inputs: what the rankings depend on, JSON data.

  Raises:
    UserError: when it holds rankings of other inputs, or other files.
  """
  path = directory / _INPUTS
  if not path.is_file():
    if directory.is_file() or any(directory.glob('*.jsonl')):
      raise UserError(
        f'{directory} is or holds files that are not of this command: choose '
        'another --output'
      )
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(inputs, indent=1) + '\n')
    return
  try:
    before = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(f'{path} should be JSON: {error}; delete it') from error
  if before == json.loads(json.dumps(inputs)):
    return
  there = before if isinstance(before, dict) else {}
  names = [n for n in {**there, **inputs} if there.get(n) != inputs.get(n)]
  raise UserError(
    f'{directory} holds rankings of other {" and ".join(names)}: '
    'go on with the former, or choose another --output'
  )
