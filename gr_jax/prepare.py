"""Tokenises a collection into the examples that training reads.

python -m gr_jax.prepare --gin_file=gin/runs/quickstart.gin --gin.DATA_DIR=PATH
python -m gr_jax.prepare --settings=FILE.json --output=DIR
python -m gr_jax.prepare --gin_file=... --plan=DIR

Training runs the second form by itself when examples are missing or stale. The
third writes what workers make the seqio Tasks from (docs/data.md).
"""

import argparse
import atexit
import dataclasses
import importlib.util
import json
import os
import pathlib
import sys
from typing import NoReturn

from gr_jax import entry, locks
from gr_jax.types import UserError

_NEEDED = ('seqio', 'tensorflow', 'apache_beam')


def main(arguments: list[str]) -> int:
  """The door: gin files, or settings as JSON, to one call."""
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.prepare',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument('--gin_file', action='append', metavar='PATH')
  parser.add_argument('--gin.NAME', dest='gin_example', metavar='VALUE')
  parser.add_argument(
    '--settings', metavar='PATH', help='PreparationSettings as JSON'
  )
  parser.add_argument(
    '--output', metavar='PATH', help='folder of the examples, with --settings'
  )
  parser.add_argument(
    '--ir_datasets',
    metavar='ID',
    help='collection to write to the data_dir of --settings first',
  )
  parser.add_argument(
    '--plan', metavar='PATH', help='folder of the plan to write, nothing else'
  )
  parser.add_argument(
    '--with_documents',
    action='store_true',
    help='with --plan: Tasks give queries with the tokens of their documents',
  )
  parser.add_argument(
    '--upload',
    metavar='URL',
    help='folder of a bucket to copy the examples of --gin_file to',
  )
  flags, overrides = entry.parse_arguments(parser, arguments)
  if flags.with_documents and not flags.plan:
    raise UserError('--with_documents says what the Tasks of a --plan give')
  if flags.plan:
    _plan(flags, overrides)
    return 0
  apart = flags.settings or flags.output or flags.ir_datasets
  if flags.gin_file and not apart:
    _prepare_run(flags.gin_file, overrides, flags.upload)
    return 0
  if flags.upload:
    raise UserError('--upload goes with --gin_file: it copies what a run reads')
  if flags.gin_file or overrides or not (flags.settings and flags.output):
    raise UserError(
      'expected either --gin_file with --gin.NAME=VALUE, or --settings with '
      '--output'
    )
  return _prepare_apart(flags.settings, flags.output, flags.ir_datasets)


def _plan(flags, overrides: list[str]) -> None:
  """Writes the plan of a collection for workers elsewhere."""
  from gr_jax.data.plan_files import write_plan

  if bool(flags.gin_file) == bool(flags.settings) or flags.output:
    raise UserError('--plan takes either --gin_file or --settings, no --output')
  if flags.settings:
    settings = _read_settings(flags.settings)
  else:
    from gr_jax import configuration, run_settings

    configuration.parse(flags.gin_file, overrides)
    run = configuration.build(run_settings.RunSettings)
    run_dir = pathlib.Path(run.run_dir).absolute()
    folder, _ = run_settings.collection_arguments(run, run_dir)
    settings = dataclasses.replace(run.preparation, data_dir=str(folder))
  plan = write_plan(settings, flags.plan, flags.with_documents)
  shards = {
    kind: plan.shards(kind) for kind in ('corpus', *plan.settings.sources)
  }
  print(f'{flags.plan}: shards of the Tasks: {shards}')


def _prepare_run(
  gin_files: list[str], overrides: list[str], upload_to: str | None
) -> None:
  """Prepares what a run would, if it is missing or stale."""
  from gr_jax import configuration, run_folder, run_settings

  configuration.parse(gin_files, overrides)
  settings = configuration.build(run_settings.RunSettings)
  run_dir = pathlib.Path(settings.run_dir).absolute()
  run_folder.check_settings(settings, run_dir)
  prepared = run_folder.prepared_examples(settings, run_dir)
  print(f'{prepared.directory} is ready')
  if upload_to:
    from gr_jax.data.cloud_folders import upload

    upload(prepared.directory, upload_to, print)
    print(
      f'{upload_to} is ready: --gin.PreparationSettings.prepared_at={upload_to}'
    )


def _prepare_apart(
  settings_path: str, output: str, collection: str | None
) -> NoReturn:
  """Prepares in this process, which TensorFlow then owns."""
  missing = [n for n in _NEEDED if importlib.util.find_spec(n) is None]
  if missing:
    raise UserError(
      f"preparation needs {', '.join(missing)}: pip install 'gr_jax[prepare]'"
    )
  settings = _read_settings(settings_path)
  # Before TensorFlow: it says a line or two about every processor, and its
  # kernels do nothing here but carry strings. Errors still come through. Both
  # are set firmly: JAX sets the level to 1 for itself, and what oneDNN says is
  # said at any level.
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
  os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'
  from gr_jax.data.prepare import prepare

  # TensorFlow's pipeline threads may wait for the interpreter for ever while
  # it shuts down (seen after an error inside a pipeline). Whatever ends this
  # process, all its files are closed and its traceback is out by then.
  atexit.register(os._exit, 1)
  try:
    if collection is not None:
      from gr_jax.tasks.ir_datasets import write_collection

      write_collection(collection, settings.data_dir)
    with locks.full_disk_named(
      pathlib.Path(output).absolute().parent,
      f'the examples of {settings.data_dir}',
      'choose another CACHE_DIR',
    ):
      manifest = prepare(settings, output, _beir_tasks)
    print(_summary(manifest, output), flush=True)
    status = 0
  except UserError as error:
    print(f'error: {error}', file=sys.stderr, flush=True)
    status = 2
  os._exit(status)


def _read_settings(path: str):
  """PreparationSettings from JSON."""
  from gr_jax import settings as registry
  from gr_jax.data.preparation_settings import PreparationSettings

  registry.register(PreparationSettings)
  try:
    data = json.loads(pathlib.Path(path).read_text('utf-8'))
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: no settings: {error}') from error
  settings = registry.from_json(data, path)
  if not isinstance(settings, PreparationSettings):
    raise UserError(
      f'{path}: expected PreparationSettings, got {type(settings).__name__}'
    )
  return settings


def _beir_tasks(plan, vocabulary, with_documents):
  """The Tasks of a plan; bad input is refused before TensorFlow's seconds."""
  from gr_jax.tasks.beir import beir_tasks

  return beir_tasks(plan, vocabulary, with_documents)


def _summary(manifest: dict, directory: str | pathlib.Path) -> str:
  kinds = ', '.join(
    f'{source["count"]} {name}'
    for name, source in sorted(manifest['sources'].items())
  )
  left_out = len(manifest['bad_records'])
  tail = f'; {left_out} bad records left out' if left_out else ''
  cut = f'; {len(manifest["cut_ids"])} cut' if manifest['cut_ids'] else ''
  return (
    f'{directory}: {manifest["documents"]["count"]} documents; queries: '
    f'{kinds}{tail}{cut}'
  )


if __name__ == '__main__':
  entry.run_main(main)
