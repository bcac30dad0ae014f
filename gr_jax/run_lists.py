"""The rankings of a teacher that a run is trained on."""

import pathlib

from gr_jax.data.loader_checks import used_rates
from gr_jax.data.preparation_settings import path_sha256
from gr_jax.data.ranked_lists import DrawnLists
from gr_jax.ranking.joining import joined_rankings
from gr_jax.training import shares


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
  if not settings.lists.path:
    return None
  used = used_rates(prepared, settings.loader.rates)
  found = joined_rankings(settings.lists, prepared, used)
  sources = sorted(prepared.sources)
  return DrawnLists(found, sources, settings.lists, rows, documents_NE)
