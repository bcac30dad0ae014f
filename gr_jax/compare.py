"""Compares variants of a run over data sets and seeds, and writes the tables.

python -m gr_jax.compare --gin_file=gin/experiments/NAME.gin [--only=GLOB]

The same command goes on where an interrupted comparison stopped.
"""

import argparse
import dataclasses
import fnmatch
import functools
import importlib.util
import pathlib
import shutil
import time

from gr_jax import entry
from gr_jax.types import UserError

_NEEDED = ('bm25s', 'Stemmer', 'ir_measures')
_STAMP = 'run.sha256'
# Compiled programs of runs with other settings stay in memory until then.
_CLEAR_EVERY = 8


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of the plan.

  Attributes:
    key: data set, variant and seed.
    folder: of the run.
    settings: run_settings.RunSettings, None where they were refused.
    config_text: the gin configuration.
    trained_sha256: of all that training depends on.
    sha256: of that and of how it is judged.
    texts_key: of how its texts are prepared and encoded.
    references_sha256: of what the systems that no run changes depend on.
    refused: why there are no settings.
  """

  key: tuple[str, str, int]
  folder: pathlib.Path
  references_sha256: str
  settings: object = None
  config_text: str = ''
  trained_sha256: str = ''
  sha256: str = ''
  texts_key: str = ''
  refused: str = ''

  @property
  def name(self) -> str:
    """For whoever reads along."""
    return f'{self.key[0]}, {self.key[1]}, seed {self.key[2]}'


def main(arguments: list[str]) -> int:
  """The door: gin files and flags to one call."""
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.compare',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  entry.add_gin_flags(parser)
  parser.add_argument(
    '--only', default='*', metavar='GLOB', help='variants to run; others wait'
  )
  parser.add_argument(
    '--list', action='store_true', help='says which runs are finished, and ends'
  )
  flags, overrides = entry.parse_arguments(parser, arguments)
  missing = [n for n in _NEEDED if importlib.util.find_spec(n) is None]
  if missing:
    raise UserError(
      f'comparing needs {", ".join(missing)}: pip install gr_jax[baselines]'
    )
  from gr_jax import configuration
  from gr_jax.evaluation.comparison_settings import ComparisonSettings

  configuration.register(ComparisonSettings)
  configuration.parse(flags.gin_file, overrides)
  settings = configuration.build(ComparisonSettings)
  entry.keep_compiled()
  return compare(settings, flags.only, flags.list)


def compare(settings, only: str = '*', only_list: bool = False) -> int:
  """Runs what is not finished yet, and writes the tables after each run.

  Args:
    settings: evaluation.comparison_settings.ComparisonSettings.
    only: glob of the variants to run; tables hold all that is finished.
    only_list: says what is finished, and runs nothing.

  Returns:
    Exit status: 1 where a run failed.
  """
  from gr_jax.evaluation import comparison_plot, comparison_results

  runs = plan(settings)
  if not any(fnmatch.fnmatchcase(run.key[1], only) for run in runs):
    raise UserError(
      f'--only={only} should match a variant: {", ".join(settings.variants)}'
    )
  results, failures, waiting = {}, {}, []
  for run in runs:
    result = None
    if run.refused:
      failures[run.key] = run.refused
    else:
      result = comparison_results.read(run.folder, run.sha256)
    if result is not None:
      results[run.key] = result
    elif not run.refused and fnmatch.fnmatchcase(run.key[1], only):
      waiting.append(run)
    if only_list:
      print(f'{run.name}: {_state(run, result, waiting)}')
  if only_list:
    return 0
  if comparison_plot.missing():
    print(comparison_plot.missing(), flush=True)
  for run in runs:
    if run.refused:
      print(f'{run.name}: failed: {run.refused}', flush=True)
  tables = functools.partial(_write_tables, settings, runs, results, failures)
  _run_all(settings, waiting, results, failures, tables)
  return 1 if failures else 0


def _state(run, result, waiting) -> str:
  if run.refused:
    return f'refused: {run.refused}'
  if result is not None:
    return 'finished'
  return 'to run' if waiting and waiting[-1] is run else 'left out by --only'


def _run_all(settings, waiting, results, failures, write_tables) -> None:
  """Runs one after another in this process, which shares what it compiles."""
  import jax

  from gr_jax.evaluation.comparison_bench import Bench

  bench = Bench(settings)
  write_tables()
  start = time.monotonic()
  for number, run in enumerate(waiting, 1):
    try:
      results[run.key] = _run(run, settings, bench)
      said = _said(settings, results[run.key])
    except UserError as error:
      failures[run.key] = str(error)
      said = f'failed: {error}'
    write_tables()
    each = (time.monotonic() - start) / number
    left = each * (len(waiting) - number)
    print(
      f'[{number}/{len(waiting)}] {run.name}: {said}; {each:.0f} s a run, '
      f'{left / 60:.0f} min left',
      flush=True,
    )
    if number % _CLEAR_EVERY == 0:
      jax.clear_caches()
  table = pathlib.Path(settings.folder) / 'table.md'
  print(table.read_text(encoding='utf-8'))


def _said(settings, result) -> str:
  """The first measure of a finished run, in one line."""
  from gr_jax.evaluation.comparison_results import score_key
  from gr_jax.evaluation.comparison_settings import MEASURES

  measure = settings.measures[0]
  parts = []
  for fraction in settings.fractions:
    key = score_key(
      settings.split, settings.system, fraction, MEASURES[measure]
    )
    parts.append(f'{result.scores[key].mean():.4f} at {100 * fraction:g} %')
  return f'{measure} {", ".join(parts)}'


def plan(settings) -> list[Run]:
  """All runs of a comparison, a data set after another, seed by seed.

  Args:
    settings: evaluation.comparison_settings.ComparisonSettings.
  """
  data_hashes = {
    data: _data_sha256(path) for data, path in settings.data_dirs.items()
  }
  runs = {}
  for data in settings.data_dirs:
    for seed in settings.seeds:
      for variant in settings.variants:
        run = _planned(settings, data, variant, seed, data_hashes[data], runs)
        runs[run.folder] = run
  return list(runs.values())


def _data_sha256(data_dir: str) -> str:
  """Of the files of a collection; the name of one that is still to come."""
  from gr_jax import run_settings
  from gr_jax.data.collection import Collection

  named = data_dir == run_settings.PYTHON_DOCS
  if named or data_dir.startswith(run_settings.IR_DATASETS):
    return data_dir
  return Collection(pathlib.Path(data_dir)).fingerprint()


def _planned(settings, data, variant, seed, data_sha256, runs) -> Run:
  """A run with its settings, or with the reason why it has none."""
  from gr_jax import configuration, run_lists, run_settings
  from gr_jax.evaluation import comparison_results, comparison_rows
  from gr_jax.settings import to_json

  key = (data, variant, seed)
  root = pathlib.Path(settings.folder).absolute()
  folder = root / data / variant / f'seed_{seed}'
  own = {
    'RUN_DIR': str(folder),
    'DATA_DIR': settings.data_dirs[data],
    'SEED': seed,
  }
  splits = comparison_rows.splits(settings)
  references = comparison_results.stamp(data_sha256, splits)
  try:
    configuration.parse(*settings.bindings(variant, own, data))
    made = configuration.build(run_settings.RunSettings)
  except UserError as error:
    return Run(key, folder, references, refused=str(error))
  # Frozen vectors of an encoder that was drawn depend on the draw.
  drawn = not made.encoder_weights and not made.training.train_encoder
  texts = [
    data_sha256, to_json(made.preparation), made.encoder_weights,
    to_json(made.model.encoder), made.model.pooling,
    made.seed if drawn else 0,
  ]  # fmt: skip
  texts_key = comparison_results.stamp(texts)
  cache = root / 'cache' / data / texts_key[:12]
  made = dataclasses.replace(
    made, cache_dir=settings.cache_dirs.get(data, str(cache))
  )
  bound = to_json(made)
  for name in ('run_dir', 'data_dir', 'cache_dir', 'mesh'):
    del bound[name]
  before = runs.get(pathlib.Path(made.trained_run).absolute())
  trained = comparison_results.stamp(
    bound,
    data_sha256,
    # Nothing for the runs that neither go on nor have a teacher.
    *([before.trained_sha256] if before else ()),
    *run_lists.hashes(made).values(),
  )
  judged = [list(settings.fractions), list(settings.measures)]
  return Run(
    key, folder, references, made, configuration.config_text(), trained,
    comparison_results.stamp(trained, splits, judged),
    texts_key,
  )  # fmt: skip


def _run(run: Run, settings, bench):
  """Trains and judges one run; returns its comparison_results.Result."""
  from gr_jax import train
  from gr_jax.evaluation import comparison_results, report

  start = time.monotonic()
  _claim(run)
  _share_vectors(run, settings)
  train.train(run.settings, run.folder, run.config_text)
  trained = time.monotonic()
  made = _indexed(run)
  judged = bench.judge(made, lambda: _collection(run))
  facts = {
    'data': run.key[0],
    'variant': run.key[1],
    'seed': run.key[2],
    'weights': judged['weights'],
    'identifiers': judged['identifiers'],
    'seconds': {
      'train': trained - start,
      'judge': time.monotonic() - trained,
    },
    'versions': report.versions(),
  }
  result = comparison_results.Result(facts, judged['scores'])
  comparison_results.write(run.folder, run.sha256, result)
  folder, key = _references(settings, run)
  if comparison_results.read(folder, key) is None:
    references = comparison_results.Result({}, bench.references(made))
    comparison_results.write(folder, key, references)
  if not settings.keep_runs:
    shutil.rmtree(run.folder / 'checkpoints')
  return result


def _write_tables(settings, runs, results, failures) -> None:
  """Writes the tables of what is finished by now."""
  from gr_jax.evaluation import comparison_bench, comparison_results

  references = {}
  for run in runs:
    if run.key[0] not in references:
      found = comparison_results.read(*_references(settings, run))
      references[run.key[0]] = found.scores if found else {}
  comparison_bench.write_tables(settings, results, failures, references)


def _references(settings, run: Run) -> tuple[pathlib.Path, str]:
  """Where scores of BM25 and the like lie, and of what they should be."""
  root = pathlib.Path(settings.folder)
  return root / run.key[0] / 'references', run.references_sha256


def _collection(run: Run):
  """Opens the data set of a run, which is there once it is trained."""
  from gr_jax import run_settings
  from gr_jax.data.collection import Collection

  where = run_settings.collection_arguments(run.settings, run.folder)
  return Collection(*where)


def _claim(run: Run) -> None:
  """Empties the folder of a run that was trained otherwise."""
  from gr_jax.evaluation import comparison_results

  mark = run.folder / _STAMP
  if mark.is_file():
    if mark.read_text(encoding='utf-8').strip() != run.trained_sha256:
      shutil.rmtree(run.folder)
  elif run.folder.exists() and any(run.folder.iterdir()):
    raise UserError(
      f'{run.folder} should hold a run of this comparison, it has no {_STAMP}:'
      ' move it away, or choose another ComparisonSettings.folder'
    )
  comparison_results.write_atomically(mark, run.trained_sha256 + '\n')
  # A kill between scores and result must not join new ones to an old one.
  (run.folder / comparison_results.RESULT).unlink(missing_ok=True)


def _share_vectors(run: Run, settings) -> None:
  """Texts that another preparation has too are encoded once."""
  from gr_jax.retrieval.frozen_vectors import share_vectors

  if run.key[0] in settings.cache_dirs:
    return
  cache = pathlib.Path(run.settings.cache_dir)
  # The first that is found is taken: those of this data set. Folds of one
  # collection have the same documents.
  own = sorted(cache.parent.glob('*/vectors'))
  others = sorted(cache.parents[1].glob('*/*/vectors'))
  share_vectors(cache / 'vectors', [*own, *others])


def _indexed(run: Run):
  """A trained run with its index in memory, as comparison_bench judges it."""
  from gr_jax import run_settings, run_texts
  from gr_jax.data.prepared import PreparedData
  from gr_jax.evaluation.comparison_bench import Trained
  from gr_jax.models.retriever import Retriever
  from gr_jax.retrieval.building import build_index
  from gr_jax.training.checkpoints import Checkpoints

  settings = run.settings
  checkpoints = Checkpoints(run.folder / 'checkpoints')
  step = checkpoints.latest()
  hashes = checkpoints.verify(step)['hashes']
  params = checkpoints.restore_params(step)
  checkpoints.close()
  cache = run_settings.cache_dir(settings, run.folder)
  prepared = PreparedData(cache / 'prepared')
  model = Retriever(settings.model)
  texts = run_texts.Texts(settings, run.folder, model, params, prepared, hashes)
  blank = [''] * len(prepared.document_ids)
  index = build_index(
    model, params, texts.documents(params), settings.search.vector_type,
    prepared.document_ids, blank, blank,
  )  # fmt: skip
  return Trained(
    run.key[0], index, model, params, prepared, settings.search,
    texts.frozen and texts.frozen.documents, run.texts_key,
  )  # fmt: skip


if __name__ == '__main__':
  entry.run_main(main)
