"""One way to ask and to time every system, so that rows are comparable."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from gr_jax.evaluation import metrics
from gr_jax.evaluation.rankings import Rankings, canonical, concatenate
from gr_jax.types import Judgement, Query


class System(Protocol):
  """Anything that ranks documents for texts."""

  document_ids: Sequence[str]

  def search(self, texts: Sequence[str], k: int) -> Rankings:
    """Ranks documents for each text, keeping k."""
    ...


@dataclasses.dataclass(frozen=True)
class Measured:
  """A system's answers and what they are worth.

  Attributes:
    name: the row's name.
    document_ids: the id of each document row of the rankings.
    rankings: answers to all queries asked, ties in canonical order.
    scores: metrics per query.
    queries_per_second: from text to ranked documents, in batches.
  """

  name: str
  document_ids: Sequence[str]
  rankings: Rankings
  scores: metrics.Scores
  queries_per_second: float


def ask(
  system: System,
  texts: Sequence[str],
  k: int,
  batch: int,
  clock: Callable[[], float] = time.perf_counter,
) -> tuple[Rankings, float]:
  """Asks all queries in batches of one size and takes the time.

  The time runs from text to ranked documents on the host: tokens, encoder,
  search and sorting. A batch of texts of all lengths is asked once before the
  clock starts, so that compilation and first reads are not in it. The last
  batch is filled up with its last text, as one more shape would be compiled
  inside the clock; the filling's time counts, its answers do not.

  Args:
    system: what is asked.
    texts: the queries.
    k: places of a ranking.
    batch: queries asked at once.
    clock: seconds, monotonic.

  Returns:
    The answers in order and the queries per second.
  """
  batch = min(batch, len(texts))
  warm_up(system, texts, k, batch)
  found, seconds = answered(system, texts, k, batch, clock)
  return found, len(texts) / max(seconds, 1e-9)


def warm_up(system: System, texts: Sequence[str], k: int, batch: int) -> None:
  """Asks a batch of texts of all lengths; arguments as of `ask`."""
  # Systems may compile a program for each of a few text lengths.
  by_length = sorted(texts, key=len)
  places = np.linspace(0, len(texts) - 1, batch).round().astype(int)
  system.search([by_length[place] for place in places], k)


def answered(
  system: System,
  texts: Sequence[str],
  k: int,
  batch: int,
  clock: Callable[[], float] = time.perf_counter,
) -> tuple[Rankings, float]:
  """The answers in order and the seconds they took; arguments as of `ask`."""
  chunks = [
    list(texts[start : start + batch]) for start in range(0, len(texts), batch)
  ]
  chunks[-1] += chunks[-1][-1:] * (batch - len(chunks[-1]))
  start = clock()
  parts = [system.search(chunk, k) for chunk in chunks]
  seconds = clock() - start
  together = concatenate(parts)
  cut = Rankings(
    *(
      np.asarray(getattr(together, field.name))[: len(texts)]
      for field in dataclasses.fields(Rankings)
    )
  )
  return cut, seconds


def measure(
  name: str,
  system: System,
  queries: Sequence[Query],
  judgements: Sequence[Judgement],
  batch: int = 256,
) -> Measured:
  """Asks a system all queries, judges its answers, takes the time.

  Args:
    name: the row's name.
    system: what is asked.
    queries: of one split.
    judgements: of the same split.
    batch: queries asked at once.

  Returns:
    Answers, metrics and queries per second (see `ask`).
  """
  answers = ask(system, [query.text for query in queries], metrics.DEPTH, batch)
  return judged(name, system.document_ids, *answers, queries, judgements)


def judged(
  name: str,
  document_ids: Sequence[str],
  rankings: Rankings,
  rate: float,
  queries: Sequence[Query],
  judgements: Sequence[Judgement],
) -> Measured:
  """What a system's answers are worth.

  Args:
    name: the row's name.
    document_ids: the id of each document row.
    rankings: answers to the queries in order.
    rate: queries per second.
    queries: of one split.
    judgements: of the same split.
  """
  rankings = canonical(rankings, document_ids)
  scores = metrics.score(
    rankings, [query.id for query in queries], document_ids, judgements
  )
  return Measured(name, document_ids, rankings, scores, rate)
