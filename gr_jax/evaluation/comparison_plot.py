"""The plot of a comparison: scores of all variants, a panel each data."""

import importlib.util
import os
import pathlib
from collections.abc import Sequence

from gr_jax.evaluation.comparison_results import BM25, DENSE
from gr_jax.evaluation.comparison_rows import Row, sections
from gr_jax.evaluation.comparison_settings import ComparisonSettings
from gr_jax.evaluation.comparison_table import share


def missing() -> str:
  """Why there will be no plot; empty where there will be one."""
  if importlib.util.find_spec('matplotlib') is None:
    return "no plot: it needs matplotlib (pip install 'gr_jax[plots]')"
  return ''


def write(
  path: pathlib.Path, settings: ComparisonSettings, rows: Sequence[Row]
) -> None:
  """Draws the first measure of each variant, with its range over seeds.

  Nothing is drawn where matplotlib is missing.

  Args:
    path: of an .svg file.
    settings: of the comparison.
    rows: of comparison_rows.rows.
  """
  if missing():
    return
  # Its figures without pyplot, which keeps state and looks for a screen.
  from matplotlib.figure import Figure

  panels = sections(settings)
  height = 1.2 + 0.3 * len(settings.variants)
  figure = Figure(figsize=(2.5 + 4 * len(panels), height), layout='constrained')
  axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  for axis, data in zip(axes, panels, strict=True):
    chosen = [
      row
      for row in rows
      if (row.data, row.split) == (data, settings.split)
      and row.measure == settings.measures[0]
    ]
    _draw(axis, settings, chosen)
    axis.set_title(f'{data}, {settings.split}')
    axis.set_xlabel(settings.measures[0])
  axes[0].set_yticks(range(len(settings.variants)), list(settings.variants))
  axes[0].invert_yaxis()
  handles, labels = axes[-1].get_legend_handles_labels()
  if handles:
    figure.legend(handles, labels, loc='outside lower center', ncols=4)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'partial.{path.name}')
  figure.savefig(partial, format='svg')
  os.replace(partial, path)


def _draw(axis, settings, rows: Sequence[Row]) -> None:
  """Dots for each share of documents, crosses for exact dense search."""
  places = {name: place for place, name in enumerate(settings.variants)}
  kinds = [(settings.system, fraction) for fraction in settings.fractions]
  for system, fraction in [*kinds, (DENSE, None)]:
    found = [r for r in rows if (r.system, r.fraction) == (system, fraction)]
    axis.errorbar(
      [row.mean for row in found],
      [places[row.variant] for row in found],
      xerr=[row.half_range for row in found],
      fmt='x' if fraction is None else 'o',
      label=DENSE if fraction is None else f'{system}, {share(fraction)}',
    )
  for row in rows:
    if row.system == BM25:
      axis.axvline(row.mean, linestyle=':', color='grey', label=BM25)
