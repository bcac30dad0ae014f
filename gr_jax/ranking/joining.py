"""A teacher's rankings of the queries that a run is trained on."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from gr_jax import processes
from gr_jax.data.preparation_settings import PreparationSettings, inputs_hash
from gr_jax.data.prepared import PreparedData
from gr_jax.data.ranked_lists import ListSettings, Rankings, join_rankings
from gr_jax.ranking.teacher_files import TeacherRanking, origin, read_rankings
from gr_jax.types import UserError


def joined_rankings(
  settings: ListSettings, prepared: PreparedData, names: Iterable[str]
) -> dict[str, Rankings]:
  """Reads rankings, finds their queries, and says how many have lists.

  Args:
    settings: which rankings, and how much of them is kept.
    prepared: the examples.
    names: sources that are trained on.

  Returns:
    {source: Rankings} of the sources with a ranked query.

  Raises:
    UserError: what is bad in the rankings, that they are of other queries or
      documents, or that no query has a long one.
  """
  rankings = checked_rankings(settings.path, prepared)
  return lists_told(prepared, rankings, settings, names)


def lists_told(
  prepared: PreparedData,
  rankings: Mapping[str, TeacherRanking],
  settings: ListSettings,
  names: Iterable[str],
) -> dict[str, Rankings]:
  """data.ranked_lists.join_rankings, saying how many queries have lists."""
  found, counts = join_rankings(prepared, rankings, settings, names)
  for name, (listed, total) in counts.items():
    processes.say(f'{listed:,} of {total:,} {name!r} queries have lists')
  return found


def checked_rankings(
  path: str, prepared: PreparedData
) -> dict[str, TeacherRanking]:
  """Rankings by query id, which are of the documents of a collection.

  Args:
    path: of the rankings.
    prepared: of the collection.
  """
  rankings = {ranking.query_id: ranking for ranking in read_rankings(path)}
  with_texts = all(ranking.query for ranking in rankings.values())
  _check_origin(path, origin(path), prepared, with_texts)
  known = set(prepared.document_ids)
  unknown = sum(
    name not in known
    for ranking in rankings.values()
    for name in ranking.document_ids
  )
  if unknown:
    processes.say(
      f'{path}: {unknown:,} places of its rankings hold documents that the '
      'collection does not have; they are left out'
    )
  return rankings


def _check_origin(path, said: Mapping[str, Any], prepared, with_texts) -> None:
  """Refuses rankings of another collection or of queries made otherwise."""
  of, mine = said.get('collection'), prepared.manifest['collection_sha256']
  if of not in (None, mine):
    raise UserError(
      f'{path} ranks for the collection {of[:12]}, {prepared.directory} was '
      f'prepared from {mine[:12]}: rank for this one'
    )
  # Texts say more: other settings may well make the same queries.
  if with_texts or not {'examples', 'sources'} <= said.keys():
    return
  examples = _examples(prepared, said['sources'])
  if examples not in (None, said['examples']):
    raise UserError(
      f'{path} ranks for the examples {said["examples"][:12]}, those of '
      f'{prepared.directory} are {examples[:12]}: other queries may have the '
      'same ids; rank again, with gr_jax.rank_with_teacher --run_dir of a run '
      'with these'
    )


def _examples(prepared, sources) -> str | None:
  """What rank_with_teacher would say of examples; None where none can tell."""
  settings = PreparationSettings(**prepared.manifest['settings'])
  if not set(sources) <= set(settings.sources):
    return None
  if not pathlib.Path(settings.data_dir).is_dir():
    return None
  pseudo = settings.pseudo_queries if 'pseudo' in sources else ''
  return inputs_hash(
    dataclasses.replace(settings, sources=sources, pseudo_queries=pseudo)
  )
