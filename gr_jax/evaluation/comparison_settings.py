"""What a comparison runs, on what, and how it is judged."""

import dataclasses
import re
from collections.abc import Mapping

from gr_jax.evaluation.comparison_results import FUSED, GENERATIVE
from gr_jax.types import UserError, near_miss

# As baseline: the variant of this prefix that is the best on dev.
BEST = 'best:'
# Measures as tables name them, and as metrics.NAMES has them.
MEASURES = {
  'R@1': 'R@1',
  'R@10': 'R@10',
  'R@100': 'R@100',
  'MRR@10': 'RR@10',
  'nDCG@10': 'nDCG@10',
}
# The folder of what runs share; no data set may be called so.
CACHE = 'cache'
# What tables call the queries of all data sets together.
POOLED = 'pooled'
# What a comparison binds for each run itself.
_OWN = ('RUN_DIR', 'DATA_DIR', 'CACHE_DIR', 'SEED')
_NAME = re.compile(r'\w[\w.+=-]*(/\w[\w.+=-]*)*')


@dataclasses.dataclass(frozen=True)
class ComparisonSettings:
  """Variants of a run over data sets and seeds, with one budget.

  Attributes:
    folder: of the runs (FOLDER/DATA/VARIANT/seed_S) and of the tables.
    gin_files: of every run, through the macros RUN_DIR, DATA_DIR and SEED.
    data_dirs: name of a data set -> its DATA_DIR.
    cache_dirs: name of a data set -> a CACHE_DIR that is there already; else
      one is made below `folder` for each way in which texts are prepared. A
      folder named here is used, and made anew, by whatever variant comes.
    common: bindings 'NAME=value' of every run.
    variants: name -> its bindings, which win over the common ones; an item
      that ends in '.gin' is one more gin file. A '/' in a name makes a group,
      as in 'static/random'. '{folder}', '{data}' and '{seed}' in a value stand
      for those of the run: "TRAINED_RUN='{folder}/{data}/base/seed_{seed}'"
      goes on from the variant 'base', which stands before (with `keep_runs`).
    seeds: of the runs of each variant.
    fractions: documents scored for a query, as shares of the corpus. A run is
      searched once, with SearchSettings.beams or as many beams as the largest
      share has documents; smaller shares take the first of these candidates.
    baseline: the variant that the others are compared with, or 'best:PREFIX'
      for the best on dev among those whose names begin so; empty for none.
    system: the ranking that baseline, differences and plot are of: 'fused', or
      'generative alone', by identifiers without any vector of a document.
    split: 'dev' or 'test'. Weights and the choice of the baseline come from
      dev always.
    measures: of the table; their mean chooses weights, the first the baseline.
    pooled: whether tables also have the queries of all data sets together, as
      of folds of one collection (`split_queries --by=queries`).
    keep_runs: leaves the checkpoints of a finished run where they are.
  """

  folder: str
  gin_files: tuple[str, ...] = ('gin/runs/quickstart.gin',)
  data_dirs: Mapping[str, str] = dataclasses.field(
    default_factory=lambda: {'python_docs': 'python_docs'}
  )
  cache_dirs: Mapping[str, str] = dataclasses.field(default_factory=dict)
  common: tuple[str, ...] = ()
  variants: Mapping[str, tuple[str, ...]] = dataclasses.field(
    default_factory=lambda: {'default': ()}
  )
  seeds: tuple[int, ...] = (0,)
  fractions: tuple[float, ...] = (0.01, 0.05)
  baseline: str = ''
  system: str = FUSED
  split: str = 'dev'
  measures: tuple[str, ...] = ('R@10', 'MRR@10')
  pooled: bool = False
  keep_runs: bool = False

  def __post_init__(self):
    for field in ('gin_files', 'data_dirs', 'variants', 'seeds', 'fractions',
                  'measures'):  # fmt: skip
      if not getattr(self, field):
        raise UserError(f'ComparisonSettings.{field} should not be empty')
    for kind in ('data_dirs', 'variants'):
      for name in getattr(self, kind):
        self._check_name(kind, name)
    for name in self.cache_dirs:
      self._require(name, self.data_dirs, 'cache_dirs')
    for name in self.measures:
      self._require(name, MEASURES, 'measures')
    self._require(self.split, ('dev', 'test'), 'split')
    self._require(self.system, (FUSED, GENERATIVE), 'system')
    for name in ('seeds', 'fractions', 'measures'):
      values = getattr(self, name)
      if len(set(values)) != len(values):
        raise UserError(f'ComparisonSettings.{name} has one twice: {values}')
    if not all(0 < fraction <= 1 for fraction in self.fractions):
      raise UserError(
        'ComparisonSettings.fractions should lie in (0, 1], got '
        f'{self.fractions}'
      )
    self._check_baseline()
    for variant in ((), *self.variants.values()):
      for item in (*self.common, *variant):
        self._check_item(item)

  def bindings(
    self, variant: str, own: Mapping[str, object], data: str = ''
  ) -> tuple[list[str], list[str]]:
    """Gin files and overrides of a run, as configuration.parse takes them.

    Args:
      variant: its name.
      own: values of the macros that differ from run to run.
      data: name of the data set.
    """
    items = [
      item.replace('{folder}', self.folder)
      .replace('{data}', data)
      .replace('{seed}', str(own.get('SEED')))
      for item in (*self.common, *self.variants[variant])
    ]
    files = [item for item in items if _is_file(item)]
    values = {name: f'{name}={value}' for name, value in own.items()}
    for item in items:
      if not _is_file(item):
        values[item.partition('=')[0].strip()] = item
    return [*self.gin_files, *files], list(values.values())

  def _check_name(self, kind: str, name: str) -> None:
    """Names are folders: nothing that leads elsewhere."""
    taken = kind == 'data_dirs' and name in (CACHE, POOLED)
    if taken or not _NAME.fullmatch(name) or re.search(r'seed_\d+', name):
      raise UserError(
        f'a name in ComparisonSettings.{kind} should be of letters, digits '
        f"and . + = - _, with / between parts, and none of '{CACHE}', "
        f"'{POOLED}' and seed_N; got {name!r}"
      )

  def _check_baseline(self) -> None:
    if self.baseline.startswith(BEST):
      prefix = self.baseline.removeprefix(BEST)
      if not any(name.startswith(prefix) for name in self.variants):
        raise UserError(
          'ComparisonSettings.baseline should begin the name of a variant '
          f'after {BEST!r}, got {prefix!r} with {", ".join(self.variants)}'
        )
    elif self.baseline:
      self._require(self.baseline, self.variants, 'baseline')

  def _check_item(self, item: str) -> None:
    name, equals, _ = item.partition('=')
    if not equals and not _is_file(item):
      raise UserError(
        "a variant should be made of 'NAME=value' and names of .gin files, "
        f'got {item!r}'
      )
    if name.strip() in _OWN:
      raise UserError(
        f'a comparison sets {name.strip()} of each run itself, got {item!r}: '
        'see ComparisonSettings.folder, data_dirs, cache_dirs and seeds'
      )

  def _require(self, name, options, field: str) -> None:
    if name not in options:
      raise UserError(
        f'ComparisonSettings.{field} should name {", ".join(options)}; got '
        f'{name!r}{near_miss(name, options)}'
      )


def _is_file(item: str) -> bool:
  return item.endswith('.gin') and '=' not in item
