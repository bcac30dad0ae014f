"""Files of rankings by a teacher.

  DIRECTORY/
    inputs.json         what the rankings are of, and by whom
    00000.jsonl         rankings of the first queries, one a line
    00000.done.json     written after its shard: checksum of it
    manifest.json       written last: inputs, and size and SHA-256 of each shard

A line is {"query_id", "document_ids": [...], "scores": [...]}, best document
first, and the text as "query" where a run has made the query: its id may be
that of another text elsewhere. One such file alone is read as well, a record
without "query_id" at its beginning being its header, with what a manifest would
say; and a TREC run.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gr_jax.checksums import file_sha256
from gr_jax.data.records import (
  BadRecordError,
  Line,
  UnreadableFileError,
  parse_object,
  read_lines,
  text_field,
)
from gr_jax.evaluation.run_files import read_run
from gr_jax.types import UserError

FORMAT = 1
MANIFEST = 'manifest.json'
_CHECKSUM = 'manifest_sha256'


@dataclasses.dataclass(frozen=True)
class TeacherRanking:
  """How a teacher ranks documents for one query.

  Attributes:
    query_id: of the query.
    document_ids: distinct, the best first.
    scores: float32 of those documents, not rising.
    query: its text where it was kept.
  """

  query_id: str
  document_ids: tuple[str, ...]
  scores: np.ndarray
  query: str = ''


def ranking_line(ranking: TeacherRanking) -> str:
  """The line of a ranking; its scores come back bit for bit."""
  record: dict[str, Any] = {'query_id': ranking.query_id}
  if ranking.query:
    record['query'] = ranking.query
  record['document_ids'] = list(ranking.document_ids)
  # Nine digits bring a float32 back exactly.
  record['scores'] = [float(f'{s:.9g}') for s in ranking.scores.tolist()]
  return json.dumps(record) + '\n'


def read_rankings(
  path: str | pathlib.Path,
  query_ids: Container[str] | None = None,
  document_ids: Container[str] | None = None,
) -> Iterator[TeacherRanking]:
  """Yields the rankings of a teacher in the order of their files.

  Args:
    path: a folder that rank_with_teacher has written, a .jsonl file (or
      .jsonl.gz) of such lines, or a TREC run.
    query_ids: those that may be ranked for; any when None.
    document_ids: those that may be ranked; any when None.

  Yields:
    Rankings, of each query once; those of a TREC run in the order in which
    trec_eval reads them.

  Raises:
    UserError: what is missing, damaged or bad, with file, line and reason.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    found, damaged = damaged_files(path)
    if damaged:
      raise UserError(damaged[0])
    files = [path / name for name in found]
  elif path.is_file():
    files = [path]
  else:
    raise UserError(
      f'{path}: expected rankings of a teacher: a folder of '
      'gr_jax.rank_with_teacher, a .jsonl file or a TREC run; none is there'
    )
  seen: dict[str, str] = {}
  for file in files:
    read = _read_jsonl if _is_jsonl(file) else _read_trec
    yield from read(file, query_ids, document_ids, seen)


def _read_jsonl(path, query_ids, document_ids, seen) -> Iterator:
  """The rankings of one file."""
  try:
    for line in read_lines(path):
      try:
        record = parse_object(line)
        if line.number == 1 and _is_header(record):
          continue
        ranking = _ranking(record, line)
        _check_known(ranking, query_ids, document_ids)
        if ranking.query_id in seen:
          raise BadRecordError(
            f'the query {ranking.query_id[:60]!r} is ranked for already in '
            f'{seen[ranking.query_id]}'
          )
      except BadRecordError as error:
        raise UserError(f'{path}:{line.number}: {error}') from error
      seen[ranking.query_id] = f'{path.name}:{line.number}'
      yield ranking
  except UnreadableFileError as error:
    raise UserError(f'{path}:{error.line}: {error}') from error


def _is_header(record: Mapping[str, Any]) -> bool:
  """Whether a first record is of no query; what it says of them is checked."""
  if {'query_id', 'document_ids', 'scores'} & record.keys():
    return False
  for name in ('collection', 'examples'):
    text_field(record, name, required=False)
  return True


def origin(path: str | pathlib.Path) -> Mapping[str, Any]:
  """What rankings say that they are of: 'collection', 'examples', 'sources'.

  Args:
    path: as `read_rankings` takes it, which checks it.

  Returns:
    The manifest of a folder, the header of a .jsonl file; nothing for others.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    return read_manifest(path)
  if not _is_jsonl(path):
    return {}
  first = next(iter(read_lines(path)), None)
  record = {} if first is None else parse_object(first)
  return record if _is_header(record) else {}


def _is_jsonl(path: pathlib.Path) -> bool:
  bare = path.with_suffix('') if path.suffix == '.gz' else path
  return bare.suffix == '.jsonl'


def _ranking(record: Mapping[str, Any], line: Line) -> TeacherRanking:
  """One line as a ranking."""
  if line.shortened:
    raise BadRecordError('a string is too long for an id or a query')
  query_id = _identifier(record, 'query_id')
  names, scores = record.get('document_ids'), record.get('scores')
  for name, values in (('document_ids', names), ('scores', scores)):
    if not isinstance(values, list):
      raise BadRecordError(
        f'{name!r} must be a list, got {type(values).__name__}'
      )
  if len(names) != len(scores):
    raise BadRecordError(f'{len(names)} document_ids have {len(scores)} scores')
  documents = [_identifier({'document_ids': n}, 'document_ids') for n in names]
  if len(set(documents)) < len(documents):
    twice = next(d for d in documents if documents.count(d) > 1)
    raise BadRecordError(f'the document {twice[:60]!r} is ranked twice')
  values = np.array([_score(score) for score in scores], np.float32)
  if np.any(values[1:] > values[:-1]):
    place = int(np.argmax(values[1:] > values[:-1]))
    raise BadRecordError(
      f'scores should not rise along a ranking, they rise after place '
      f'{place + 1}'
    )
  query = text_field(record, 'query', required=False)
  return TeacherRanking(query_id, tuple(documents), values, query)


def _identifier(record: Mapping[str, Any], key: str) -> str:
  """An id as collections have them: without white space."""
  identifier = text_field(record, key, required=True)
  if identifier.split() != [identifier]:
    raise BadRecordError(
      f'{key}: expected an id without white space, got {identifier[:40]!r}'
    )
  return identifier


def _score(value: Any) -> float:
  """A number that float32 can hold."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise BadRecordError(
      f'a score must be a number, got {type(value).__name__}'
    )
  # Also of integers with any number of digits.
  if not abs(value) <= float(np.finfo(np.float32).max):
    raise BadRecordError(f'a score is too large: {str(value)[:20]}')
  return float(value)


def _read_trec(path, query_ids, document_ids, seen) -> Iterator:
  """The rankings of a TREC run."""
  for query_id, scores in read_run(path).items():
    with np.errstate(over='ignore'):
      values = np.array(list(scores.values())).astype(np.float32)
    names = list(scores)
    # Ties as trec_eval has them: ids descending.
    order = sorted(range(len(names)), key=lambda i: names[i], reverse=True)
    order.sort(key=lambda i: -values[i])
    ranking = TeacherRanking(
      query_id, tuple(names[i] for i in order), values[order]
    )
    try:
      if not np.all(np.isfinite(values)):
        raise BadRecordError(f'a score of {query_id!r} is too large')
      _check_known(ranking, query_ids, document_ids)
    except BadRecordError as error:
      raise UserError(f'{path}: {error}') from error
    seen[query_id] = path.name
    yield ranking


def _check_known(ranking: TeacherRanking, query_ids, document_ids) -> None:
  """Refuses ids of another collection."""
  if query_ids is not None and ranking.query_id not in query_ids:
    raise BadRecordError(
      f'the query id {ranking.query_id[:60]!r} is not among the queries'
    )
  if document_ids is None:
    return
  for name in ranking.document_ids:
    if name not in document_ids:
      raise BadRecordError(
        f'the document id {name[:60]!r} is not in the corpus'
      )


def write_manifest(
  directory: pathlib.Path,
  inputs: Mapping[str, Any],
  shards: Sequence[pathlib.Path],
) -> None:
  """Says that rankings are whole.

  Args:
    directory: of the rankings.
    inputs: what they are of, JSON data.
    shards: their files in order.
  """
  manifest = {
    'format': FORMAT,
    **inputs,
    'files': {
      shard.name: {
        'bytes': shard.stat().st_size,
        'sha256': file_sha256(shard),
      }
      for shard in shards
    },
  }
  manifest[_CHECKSUM] = _sha256(manifest)
  partial = directory / f'{MANIFEST}.partial'
  partial.write_text(json.dumps(manifest, indent=1) + '\n', encoding='utf-8')
  os.replace(partial, directory / MANIFEST)


def read_manifest(directory: pathlib.Path) -> dict[str, Any]:
  """What rankings are of: 'teachers', 'candidates', 'collection', ... 'files'.

  Args:
    directory: of the rankings.

  Raises:
    UserError: when they are not whole, or the manifest is damaged.
  """
  path = directory / MANIFEST
  try:
    manifest = json.loads(path.read_bytes().decode('utf-8'))
  except FileNotFoundError as error:
    raise UserError(
      f'{directory}: no whole rankings of a teacher ({MANIFEST} is missing): '
      'run python -m gr_jax.rank_with_teacher to its end'
    ) from error
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path}: damaged: {error}; rank again') from error
  checksum = manifest.pop(_CHECKSUM, None) if _is_manifest(manifest) else None
  if checksum is None or checksum != _sha256(manifest):
    raise UserError(f'{path}: damaged: its checksum differs; rank again')
  if manifest['format'] != FORMAT:
    raise UserError(
      f'{path} is in format {manifest["format"]}, this version reads {FORMAT}: '
      'rank again'
    )
  return manifest


def _is_manifest(data: Any) -> bool:
  return isinstance(data, dict) and {'format', 'files'} <= data.keys()


def damaged_files(
  directory: pathlib.Path,
) -> tuple[dict[str, dict], list[str]]:
  """Checks every byte of the rankings of a folder.

  Args:
    directory: of the rankings.

  Returns:
    {name: {'bytes', 'sha256'}} of its files, none where the manifest is
    damaged, and a line on each that is not as it was written.
  """
  try:
    files = read_manifest(directory)['files']
  except UserError as error:
    return {}, [str(error)]
  return files, list(_damaged(directory, files))


def _damaged(directory: pathlib.Path, files: Mapping) -> Iterator[str]:
  for name, entry in files.items():
    path = directory / name
    if not path.is_file() or path.stat().st_size != entry['bytes']:
      found = path.stat().st_size if path.is_file() else 'no file'
      yield (
        f'{path}: expected {entry["bytes"]} bytes, found {found}; rank again'
      )
    elif file_sha256(path) != entry['sha256']:
      yield f'{path}: damaged: its SHA-256 differs; rank again'


def _sha256(manifest: Mapping[str, Any]) -> str:
  text = json.dumps(manifest, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
