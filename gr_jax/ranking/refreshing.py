"""Lists of what a run itself finds, ranked anew every few steps.

  RUN/rankings/
    refresh_00000400/   what gr_jax.ranking.teacher_files reads

The lists of a step depend on the parameters at the refresh before it, which a
checkpoint in between does not have: rankings are kept as long as a checkpoint
goes on with them.
"""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gr_jax import processes
from gr_jax.data.loader_checks import used_rates
from gr_jax.data.prepared import PreparedData
from gr_jax.data.ranked_lists import DrawnLists
from gr_jax.progress import Pace
from gr_jax.ranking.joining import checked_rankings, lists_told
from gr_jax.ranking.teacher_files import (
  TeacherRanking,
  ranking_line,
  read_rankings,
  write_manifest,
)
from gr_jax.ranking.teachers import candidate_rows, ranked
from gr_jax.ranking.teaching import save_shard
from gr_jax.retrieval.encoding import moved_vectors, project_vectors
from gr_jax.retrieval.exact import exact_top_k
from gr_jax.retrieval.from_vectors import found_by_identifiers
from gr_jax.training.checkpoints import STEP
from gr_jax.training.mesh import put_batch
from gr_jax.types import UserError

# Queries that are ranked together.
_BATCH = 1024
_REFRESH = re.compile(r'refresh_(\d{8,})')


class _Query(NamedTuple):
  """A query of the examples: where its vector is, and what answers it."""

  id: str
  source: str
  example: int
  answers: list[int]


class RefreshedLists:
  """Adds lists of what a run finds to the batches of its steps."""

  def __init__(
    self,
    settings: Any,
    model: Any,
    prepared: PreparedData,
    frozen: Any,
    folder: pathlib.Path,
  ):
    """Reads the queries, and the teacher's rankings where there are some.

    Args:
      settings: run_settings.RunSettings.
      model: Retriever.
      prepared: the examples.
      frozen: retrieval.frozen_vectors.FrozenVectors of them.
      folder: for rankings, beside the folder of the checkpoints.
    """
    self._settings, self._lists = settings, settings.lists
    self._model, self._prepared, self._frozen = model, prepared, frozen
    self._folder = folder
    self._sources = list(used_rates(prepared, settings.loader.rates))
    self._teacher: Mapping[str, TeacherRanking] | None = None
    if settings.lists.path:
      self._teacher = checked_rankings(settings.lists.path, prepared)
    self._queries = _queries(prepared, self._sources, self._teacher)
    self._at: int | None = None
    self._rankings: dict[str, TeacherRanking] = {}
    self._drawn: DrawnLists | None = None

  def begin(self, begins: Container[int], begin: Callable, state: Any) -> Any:
    """The state before a step that a stage begins at, or that is ranked before.

    Args:
      begins: steps before which the stage begins.
      begin: state -> state, of the stage.
      state: training.state.TrainState.
    """
    step = int(state.step)
    if step in begins:
      state = begin(state)
    if step % self._lists.refresh_every == 0:
      self._refresh(step, state.all_params())
    return state

  def step(
    self, step_fn: Callable, state: Any, batch: Mapping[str, jax.Array]
  ) -> tuple[Any, dict]:
    """A step of training on a batch with lists.

    Args:
      step_fn: from training.step.make_step.
      state: training.state.TrainState, one step after that of the last call.
      batch: on the devices.
    """
    if self._at is None:
      self._go_on(int(state.step))
    if self._drawn is None:
      self._drawn = self._joined()
    seed = [self._settings.seed, *b'lists', self._at]
    told = {
      name: np.asarray(batch[name])
      for name in ('source', 'example', 'document_index')
    }
    drawn = self._drawn(told, np.random.default_rng(seed))
    added = {name: drawn[name] for name in drawn.keys() - told.keys()}
    self._at += 1
    return step_fn(
      state, {**batch, **put_batch(jax.sharding.get_mesh(), added)}
    )

  def _joined(self) -> DrawnLists:
    """What draws lists of the rankings as they are now."""
    found = lists_told(
      self._prepared, self._rankings, self._lists, self._sources
    )
    weight = self._settings.teaching.dense_weight
    rows = np.arange(self._settings.loader.batch_size)
    return DrawnLists(
      found,
      sorted(self._prepared.sources),
      self._lists,
      rows,
      self._frozen.documents if weight else None,
    )

  def _go_on(self, step: int) -> None:
    """With the rankings that the run had when it came to a step."""
    self._at, self._rankings = step, self._before(step)

  def _refresh(self, step: int, params: Any) -> None:
    """Ranks what the run finds by now."""
    if self._at is None:
      self._go_on(step)
    chosen = self._queries
    if 0 < self._lists.refresh_queries < len(chosen):
      rng = np.random.default_rng([self._settings.seed, *b'queries', step])
      places = rng.choice(len(chosen), self._lists.refresh_queries, False)
      chosen = [chosen[place] for place in np.sort(places)]
    documents_ND = project_vectors(self._model, params, self._frozen.documents)
    if self._model.config.ranks_moved:
      documents_ND = moved_vectors(self._model, params, documents_ND)
    with Pace(len(chosen), 'ranking') as pace:
      for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        for ranking in self._ranked(params, documents_ND, part):
          self._rankings[ranking.query_id] = ranking
        done = start + len(part)
        pace.show(done, done / len(chosen))
    processes.say(f'step {step}: ranked what {len(chosen):,} queries find')
    self._drawn = None
    self._keep(step)

  def _ranked(self, params, documents_ND, queries) -> list[TeacherRanking]:
    """The rankings of some queries."""
    vectors = self._frozen.queries
    pooled_QE = np.stack([vectors[q.source][q.example] for q in queries])
    queries_QD = project_vectors(self._model, params, pooled_QE)
    half = max(min(self._lists.depth, len(documents_ND)) // 2, 1)
    by_vectors_QC, _ = exact_top_k(queries_QD, documents_ND, half)
    by_identifiers_QC = found_by_identifiers(
      self._model,
      params,
      pooled_QE,
      half,
      self._lists.refresh_beams,
      self._settings.search.renormalised,
    )
    rankings = []
    for query, query_D, *found in zip(
      queries, queries_QD, by_vectors_QC, by_identifiers_QC, strict=True
    ):
      rows_C = candidate_rows(np.array(query.answers), found)
      scores_C = np.einsum('CD,D->C', documents_ND[rows_C], query_D)
      rows_C, scores_C = ranked(scores_C, rows_C)
      names = tuple(self._prepared.document_ids[row] for row in rows_C)
      ranking = TeacherRanking(query.id, names, scores_C)
      rankings.append(self._judged(ranking, len(query.answers)))
    return rankings

  def _judged(self, found: TeacherRanking, answers: int) -> TeacherRanking:
    """What was found in the teacher's order, all of it where little was."""
    if self._teacher is None:
      return found
    given, names = self._teacher[found.query_id], set(found.document_ids)
    kept = [i for i, name in enumerate(given.document_ids) if name in names]
    if len(kept) < self._lists.least + answers:
      return given
    names = tuple(given.document_ids[place] for place in kept)
    return dataclasses.replace(
      given, document_ids=names, scores=given.scores[kept]
    )

  def _before(self, step: int) -> dict[str, TeacherRanking]:
    """The rankings that the run had when it came to a step."""
    if step == 0:
      return dict(self._teacher or {})
    every = self._lists.refresh_every
    if step % every == 0 and not self._lists.refresh_queries:
      return {}
    path = self._place(_last_before(step, every))
    if not path.is_dir():
      raise UserError(
        f'{path} should hold the rankings that step {step} goes on with, it is '
        'not there: bring it back, or train into another RUN_DIR'
      )
    return {ranking.query_id: ranking for ranking in read_rankings(path)}

  def _keep(self, step: int) -> None:
    """Writes the rankings; of others stay those of a checkpoint."""
    path, every = self._place(step), self._lists.refresh_every
    path.mkdir(parents=True, exist_ok=True)
    shard = path / '00000.jsonl'
    save_shard(shard, ''.join(map(ranking_line, self._rankings.values())))
    collection = self._prepared.manifest['collection_sha256']
    write_manifest(path, {'collection': collection, 'step': step}, [shard])
    kept = {_last_before(s, every) for s in _steps(self._checkpoints) if s}
    # SIGTERM by now saves this step, from which it is ranked once more.
    kept |= {step, _last_before(step, every)}
    for other in _steps(self._folder, _REFRESH) - kept:
      shutil.rmtree(self._place(other))

  @property
  def _checkpoints(self) -> pathlib.Path:
    return self._folder.with_name('checkpoints')

  def _place(self, step: int) -> pathlib.Path:
    return self._folder / f'refresh_{step:08d}'


def _last_before(step: int, every: int) -> int:
  """The last refresh before a step."""
  return (step - 1) // every * every


def _steps(folder: pathlib.Path, names: re.Pattern = STEP) -> set[int]:
  """The steps of which a folder holds something."""
  if not folder.is_dir():
    return set()
  found = map(names.fullmatch, (path.name for path in folder.iterdir()))
  return {int(match[1]) for match in found if match}


def _queries(
  prepared: PreparedData,
  names: Sequence[str],
  known: Mapping[str, TeacherRanking] | None,
) -> list[_Query]:
  """The queries of some sources, each once, in order.

  Args:
    prepared: the examples.
    names: of the sources.
    known: those that count; all when None.
  """
  found: dict[str, _Query] = {}
  for name in names:
    source = prepared.sources[name]
    for start in range(0, len(source), 4096):
      numbers = range(start, min(start + 4096, len(source)))
      for number, example in zip(
        numbers, source.examples(numbers), strict=True
      ):
        if known is not None and example.query_id not in known:
          continue
        query = _Query(example.query_id, name, number, [])
        answers = found.setdefault(query.id, query).answers
        answers.append(example.document_index)
  return list(found.values())
