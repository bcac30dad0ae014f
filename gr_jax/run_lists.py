"""The rankings that a run is trained on: a teacher's, or of what it finds."""

import functools
import pathlib

from gr_jax import processes
from gr_jax.data.loader_checks import used_rates
from gr_jax.data.preparation_settings import path_sha256
from gr_jax.data.ranked_lists import DrawnLists
from gr_jax.ranking.joining import joined_rankings
from gr_jax.ranking.refreshing import RefreshedLists
from gr_jax.training import shares
from gr_jax.training import stages as training_stages
from gr_jax.types import UserError

# Of a run folder: rankings of what it found at a step.
RANKINGS = 'rankings'


def hashes(settings) -> dict[str, str]:
  """{'lists': SHA-256} of the rankings of a run; nothing without.

  Args:
    settings: run_settings.RunSettings.
  """
  if not settings.lists.path:
    return {}
  # A path that is not there has a better message where it is read.
  path = pathlib.Path(settings.lists.path)
  return {'lists': path_sha256(path)} if path.exists() else {}


def drawn_lists(settings, prepared, texts, mesh):
  """What adds lists to batches; None for a run without.

  Args:
    settings: run_settings.RunSettings.
    prepared: data.prepared.PreparedData.
    texts: run_texts.Texts.
    mesh: whose devices share a batch.
  """
  rows = shares.rows_of(mesh, settings.loader.batch_size)
  dense = settings.teaching.dense_weight
  documents_NE = texts.frozen.documents if dense else None
  return lists_of_rows(settings, prepared, rows, documents_NE)


def lists_of_rows(settings, prepared, rows, documents_NE=None):
  """The same for some rows of each batch.

  Args:
    settings: run_settings.RunSettings.
    prepared: data.prepared.PreparedData.
    rows: places in the batch that this process reads.
    documents_NE: vectors that dense scores are made from, None for none.
  """
  # What is ranked anew while it trains comes to a batch on its way to the step.
  if not settings.lists.path or settings.lists.refresh_every:
    return None
  used = used_rates(prepared, settings.loader.rates)
  found = joined_rankings(settings.lists, prepared, used)
  sources = sorted(prepared.sources)
  return DrawnLists(found, sources, settings.lists, rows, documents_NE)


def stages(model, settings, texts, optimizers):
  """What `loop.train_loop` goes through, with lists that are ranked anew.

  Args:
    model: models.retriever.Retriever.
    settings: run_settings.RunSettings.
    texts: run_texts.Texts.
    optimizers: from training.stages.stage_optimizers.

  Returns:
    {'dense' | 'codes' | 'settled': (begins, begin, step_fn)}.
  """
  made = training_stages.stages(model, settings, texts, optimizers)
  if not settings.lists.refresh_every:
    return shares.together(made)
  if processes.several():
    raise UserError(
      'ListSettings.refresh_every is of one process: set it to 0, or rank '
      'with gr_jax.rank_with_teacher and distil again'
    )
  lists = RefreshedLists(
    settings, model, texts.prepared, texts.frozen, texts.run_dir / RANKINGS
  )
  every = range(0, settings.training.steps, settings.lists.refresh_every)
  return {
    name: (
      {*begins, *every},
      functools.partial(lists.begin, begins, begin),
      functools.partial(lists.step, step_fn),
    )
    for name, (begins, begin, step_fn) in made.items()
  }
