"""A teacher's rankings of the queries that a run is trained on."""

from collections.abc import Iterable

from gr_jax import processes
from gr_jax.data.prepared import PreparedData
from gr_jax.data.ranked_lists import ListSettings, Rankings, join_rankings
from gr_jax.ranking.teacher_files import read_rankings


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
    UserError: what is bad in the rankings, or that no query has a long one.
  """
  rankings = {
    ranking.query_id: (ranking.document_ids, ranking.scores)
    for ranking in read_rankings(settings.path)
  }
  found, counts = join_rankings(prepared, rankings, settings, names)
  for name, (listed, total) in counts.items():
    processes.say(f'{listed:,} of {total:,} {name!r} queries have lists')
  return found
