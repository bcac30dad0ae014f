"""The tables of a comparison: table.csv for programs, table.md for readers."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from gr_jax.evaluation.comparison_results import (
  BM25,
  DENSE,
  FUSED,
  GENERATIVE,
  UNTRAINED,
)
from gr_jax.evaluation.comparison_rows import (
  IDENTIFIERS,
  TRAIN_SECONDS,
  Results,
  Row,
  choose_baseline,
  sections,
  splits_of,
  with_pooled,
)
from gr_jax.evaluation.comparison_settings import (
  BEST,
  POOLED,
  ComparisonSettings,
)

_COLUMNS = (
  'data', 'split', 'variant', 'system', 'fraction', 'measure', 'seeds', 'mean',
  'half_range', 'baseline', 'difference', 'low', 'high',
)  # fmt: skip
_HOW = """\
Means over seeds ± half the range over seeds. "fused" ranks the candidates by
both scores, with the weight fitted on dev for each run (mean of the measures);
"generative alone" by the score of the identifier; "exact dense" ranks all
documents by the vectors of the same index. Differences are paired by query and
seed, with 95 % intervals from a bootstrap that draws queries and seeds."""

# (data set, variant, seed) -> why there is no result.
Failures = Mapping[tuple[str, str, int], str]


def csv_text(rows: Iterable[Row]) -> str:
  """One line a number; empty fields where nothing applies."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(_COLUMNS)
  for row in rows:
    ends = ('', '', '')
    if row.difference is not None:
      ends = (row.difference.mean, row.difference.low, row.difference.high)
    fraction = '' if row.fraction is None else row.fraction
    writer.writerow(
      (
        row.data, row.split, row.variant, row.system, fraction, row.measure,
        row.seeds, row.mean, row.half_range, row.baseline, *ends,
      )
    )  # fmt: skip
  return file.getvalue()


def markdown(
  settings: ComparisonSettings,
  rows: Sequence[Row],
  results: Results,
  failures: Failures,
) -> str:
  """What a person reads.

  Args:
    settings: of the comparison.
    rows: of comparison_rows.rows.
    results: of the runs that are finished.
    failures: of the runs that came to nothing.
  """
  planned = len(settings.data_dirs) * len(settings.variants)
  planned *= len(settings.seeds)
  lines = [
    f'{len(results)} of {planned} runs are finished'
    + (f', {len(failures)} failed.' if failures else '.'),
    '',
    _HOW,
  ]
  results = with_pooled(settings, results)
  for data in sections(settings):
    mine = [row for row in rows if row.data == data]
    for split in splits_of(settings, data):
      lines += ['', f'## {data}, {split}', '']
      lines += _score_table(settings, mine, split)
      lines += _difference_table(settings, results, mine, data, split)
    if data != POOLED:
      lines += ['', f'## {data}, identifiers', '']
      lines += _identifier_table(settings, results, mine, data)
  if failures:
    lines += ['', '## Failed', '']
    lines += [
      f'- {data}, {variant}, seed {seed}: {" ".join(message.split())}'
      for (data, variant, seed), message in failures.items()
    ]
  return '\n'.join(lines) + '\n'


def share(fraction: float) -> str:
  """'5 %' for 0.05."""
  return f'{100 * fraction:g} %'


def _score_table(settings, rows: Sequence[Row], split: str) -> list[str]:
  columns = [
    (f'{measure}, {system} {share(fraction)}', system, fraction, measure)
    for fraction in settings.fractions
    for system in (FUSED, GENERATIVE)
    for measure in settings.measures
  ]
  columns += [
    (f'{measure}, {DENSE}', DENSE, None, measure)
    for measure in settings.measures
  ]
  cells = {
    (row.variant, row.system, row.fraction, row.measure): row
    for row in rows
    if row.split == split
  }
  body = []
  for system in (BM25, UNTRAINED):
    line = [
      _value(cells.get((system, system, fraction, measure)))
      for _, _, fraction, measure in columns
    ]
    if any(line):
      body.append([system, '', *line])
  first = settings.measures[0]
  for variant in settings.variants:
    one = cells.get((variant, DENSE, None, first))
    line = [_value(cells.get((variant, *column[1:]))) for column in columns]
    body.append([variant, str(one.seeds) if one else '0', *line])
  return _table(['variant', 'seeds', *(name for name, *_ in columns)], body)


def _difference_table(
  settings, results, rows: Sequence[Row], data: str, split: str
) -> list[str]:
  chosen = {
    fraction: choose_baseline(settings, results, data, fraction)
    for fraction in settings.fractions
  }
  if not any(chosen.values()):
    return []
  heads = [
    f'{measure}, {share(fraction)}, less {name}'
    for fraction, name in chosen.items()
    for measure in settings.measures
  ]
  found = {
    (row.variant, row.fraction, row.measure): row.difference
    for row in rows
    if row.split == split and row.difference is not None
  }
  body = []
  for variant in settings.variants:
    line = [
      _interval(found.get((variant, fraction, measure)))
      for fraction in chosen
      for measure in settings.measures
    ]
    if any(line):
      body.append([variant, *line])
  how = ''
  if settings.baseline.startswith(BEST):
    prefix = settings.baseline.removeprefix(BEST)
    how = (
      f'The baseline is the variant {prefix}* with the best '
      f'{settings.measures[0]} on dev at each share.'
    )
  return ['', f'Differences of {settings.system}. {how}'.strip(), '',
          *_table(['variant', *heads], body)]  # fmt: skip


def _identifier_table(settings, results, rows, data: str) -> list[str]:
  cells = {(row.variant, row.measure): row for row in rows if not row.split}
  weights = [f'weight {share(fraction)}' for fraction in settings.fractions]
  body = []
  for variant in settings.variants:
    runs = [
      results[data, variant, seed]
      for seed in settings.seeds
      if (data, variant, seed) in results
    ]
    fitted = [
      ' '.join(_weight(run.facts['weights'][repr(f)]) for run in runs)
      for f in settings.fractions
    ]
    line = [_value(cells.get((variant, name))) for name in IDENTIFIERS]
    seconds = cells.get((variant, TRAIN_SECONDS))
    time = f'{seconds.mean:.0f}' if seconds else ''
    body.append([variant, *line, time, *fitted])
  heads = ['variant', *IDENTIFIERS, TRAIN_SECONDS, *weights]
  return _table(heads, body)


def _weight(weights: Sequence[float]) -> str:
  """The generative weight beside a dense weight of 1, of one seed."""
  return f'{weights[0]:g}' if weights[1] else 'generative alone'


def _value(row: Row | None) -> str:
  if row is None:
    return ''
  # One run has no spread, which is not the same as a spread of 0.
  spread = f' ± {row.half_range:.4f}' if row.seeds > 1 else ''
  return f'{row.mean:.4f}{spread}'


def _interval(difference) -> str:
  if difference is None:
    return ''
  return (
    f'{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]'
  )


def _table(heads: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
  def line(cells):
    return f'| {" | ".join(cells)} |'

  return [line(heads), line(['---'] * len(heads)), *map(line, body)]
