"""Rows of a table from the results of runs: means, spread, differences."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gr_jax.evaluation import metrics
from gr_jax.evaluation.comparison_results import (
  BM25,
  DENSE,
  FUSED,
  GENERATIVE,
  UNTRAINED,
  Result,
  score_key,
)
from gr_jax.evaluation.comparison_settings import (
  BEST,
  MEASURES,
  POOLED,
  ComparisonSettings,
)

# Of identifiers and of the run, as 'facts' of a Result name them.
IDENTIFIERS = (
  'uniqueness',
  'sequence entropy',
  'documents per ID, mean',
  'documents per ID, p99',
  'documents per ID, max',
)
TRAIN_SECONDS = 'train seconds'
# Draws of a bootstrap: the ends of an interval move by a few % of its width.
_SAMPLES = 4000

# (data set, variant, seed) -> what came of it.
Results = Mapping[tuple[str, str, int], Result]


@dataclasses.dataclass(frozen=True)
class Row:
  """One number of the table.

  Attributes:
    data: name of the data set.
    split: 'dev' or 'test', empty for what has no queries.
    variant: its name.
    system: comparison_results.FUSED and the like.
    fraction: of documents scored; None for systems that score all.
    measure: one of MEASURES, IDENTIFIERS, or TRAIN_SECONDS.
    seeds: how many runs.
    mean: over them.
    half_range: (max - min) / 2 over them.
    baseline: that the difference is to, or ''.
    difference: variant less baseline over the seeds that both have, or None.
  """

  data: str
  split: str
  variant: str
  system: str
  fraction: float | None
  measure: str
  seeds: int
  mean: float
  half_range: float
  baseline: str = ''
  difference: metrics.Difference | None = None


def splits(settings: ComparisonSettings) -> tuple[str, ...]:
  """What every run is scored on: weights come from dev always."""
  return ('dev',) if settings.split == 'dev' else ('dev', 'test')


def splits_of(settings: ComparisonSettings, data: str) -> tuple[str, ...]:
  """What tables show of a data set; folds have the same dev, each of them."""
  return (settings.split,) if data == POOLED else splits(settings)


def sections(settings: ComparisonSettings) -> tuple[str, ...]:
  """The data sets, and all together where that is asked for."""
  return (*settings.data_dirs, *([POOLED] if settings.pooled else ()))


def with_pooled(settings: ComparisonSettings, results: Results) -> Results:
  """Adds the queries of all data sets as those of one.

  Args:
    settings: of the comparison.
    results: of the runs that are finished.

  Returns:
    These, and a result under POOLED of each variant and seed that has finished
    on all data sets; it has scores and no facts.
  """
  if not settings.pooled:
    return results
  found = dict(results)
  for variant in settings.variants:
    for seed in settings.seeds:
      keys = [(data, variant, seed) for data in settings.data_dirs]
      if all(key in results for key in keys):
        parts = [results[key].scores for key in keys]
        scores = {
          name: np.concatenate([part[name] for part in parts])
          for name in parts[0]
        }
        found[POOLED, variant, seed] = Result({}, scores)
  return found


def choose_baseline(
  settings: ComparisonSettings, results: Results, data: str, fraction: float
) -> str:
  """The variant that others are compared with at a share of documents.

  'best:PREFIX' looks at dev alone, at the first of the measures and at this
  share, so that the strongest stands at each.

  Args:
    settings: of the comparison.
    results: of the runs that are finished.
    data: name of the data set.
    fraction: of documents scored.

  Returns:
    Its name; empty where there is none, or none that has finished.
  """
  if not settings.baseline.startswith(BEST):
    return settings.baseline
  prefix = settings.baseline.removeprefix(BEST)
  measure = MEASURES[settings.measures[0]]
  key = score_key('dev', settings.system, fraction, measure)
  means = {}
  for variant in settings.variants:
    found = _of_variant(settings, results, data, variant)
    if variant.startswith(prefix) and found:
      means[variant] = np.mean(
        [result.scores[key].mean() for result in found.values()]
      )
  return max(means, key=means.get, default='')


def rows(
  settings: ComparisonSettings,
  results: Results,
  references: Mapping[str, Mapping[str, np.ndarray]],
) -> list[Row]:
  """All numbers of a comparison, of the runs that are finished.

  Args:
    settings: of the comparison.
    results: of the runs.
    references: data set -> scores of systems that no variant changes.
  """
  found = []
  results = with_pooled(settings, results)
  for data in sections(settings):
    found += _reference_rows(settings, data, references.get(data, {}))
    for variant in settings.variants:
      runs = _of_variant(settings, results, data, variant)
      if runs:
        found += _score_rows(settings, data, variant, list(runs.values()))
        if data != POOLED:
          found += _fact_rows(data, variant, list(runs.values()))
  return _with_differences(settings, results, found)


def _of_variant(settings, results, data, variant) -> dict[int, Result]:
  """Seed -> result of the runs that are finished."""
  return {
    seed: results[data, variant, seed]
    for seed in settings.seeds
    if (data, variant, seed) in results
  }


def _row(data, split, variant, system, fraction, measure, values) -> Row:
  values = np.asarray(values, np.float64)
  half = float(values.max() - values.min()) / 2
  mean = float(values.mean())
  return Row(
    data, split, variant, system, fraction, measure, len(values), mean, half
  )


def _reference_rows(settings, data, scores) -> list[Row]:
  found = []
  for split in splits(settings):
    for system in (BM25, UNTRAINED):
      for measure in settings.measures:
        key = score_key(split, system, None, MEASURES[measure])
        if key in scores:
          value = [scores[key].mean()]
          found.append(_row(data, split, system, system, None, measure, value))
  return found


def _score_rows(settings, data, variant, runs: Sequence[Result]) -> list[Row]:
  systems = [
    (system, fraction)
    for system in (FUSED, GENERATIVE)
    for fraction in settings.fractions
  ]
  found = []
  for split in splits_of(settings, data):
    for system, fraction in [*systems, (DENSE, None)]:
      for measure in settings.measures:
        key = score_key(split, system, fraction, MEASURES[measure])
        values = [run.scores[key].mean() for run in runs]
        found.append(
          _row(data, split, variant, system, fraction, measure, values)
        )
  return found


def _fact_rows(data, variant, runs: Sequence[Result]) -> list[Row]:
  found = []
  for measure in IDENTIFIERS:
    values = [run.facts['identifiers'][measure] for run in runs]
    found.append(_row(data, '', variant, 'identifiers', None, measure, values))
  values = [run.facts['seconds']['train'] for run in runs]
  found.append(_row(data, '', variant, 'run', None, TRAIN_SECONDS, values))
  return found


def _with_differences(settings, results, found: list[Row]) -> list[Row]:
  """Adds paired differences to the rows of `settings.system`."""
  chosen = {
    (data, fraction): choose_baseline(settings, results, data, fraction)
    for data in sections(settings)
    for fraction in settings.fractions
  }
  pending: dict[tuple[str, str], list[tuple[int, str, np.ndarray]]] = {}
  for place, row in enumerate(found):
    baseline = chosen.get((row.data, row.fraction), '')
    if row.system == settings.system and baseline not in ('', row.variant):
      difference_RB = _paired(settings, results, row, baseline)
      if difference_RB is not None:
        pending.setdefault((row.data, row.split), []).append(
          (place, baseline, difference_RB)
        )
  found = list(found)
  for waiting in pending.values():
    differences = metrics.bootstrap_means(
      [values for _, _, values in waiting], samples=_SAMPLES
    )
    for (place, name, _), difference in zip(waiting, differences, strict=True):
      found[place] = dataclasses.replace(
        found[place], baseline=name, difference=difference
      )
  return found


def _paired(settings, results, row: Row, baseline: str) -> np.ndarray | None:
  """[R, B] differences over the seeds that both have; None without any."""
  mine = _of_variant(settings, results, row.data, row.variant)
  theirs = _of_variant(settings, results, row.data, baseline)
  key = score_key(row.split, row.system, row.fraction, MEASURES[row.measure])
  shared = [seed for seed in mine if seed in theirs]
  if not shared:
    return None
  return np.stack(
    [
      mine[seed].scores[key].astype(np.float64) - theirs[seed].scores[key]
      for seed in shared
    ]
  )
