"""Writes pseudo-queries for the documents of a collection.

python -m gr_jax.generate_queries --gin_file=gin/querygen/default.gin \
  --gin.DATA_DIR=FOLDER --gin.OUTPUT=runs/pseudo

The same command goes on where it was stopped. What it writes is read with
--gin.PreparationSettings.pseudo_queries=runs/pseudo.
"""

import argparse
import pathlib

from gr_jax import entry, processes
from gr_jax.types import UserError


def main(arguments: list[str]) -> int:
  """The door: gin files and flags to one call."""
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.generate_queries',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  entry.add_gin_flags(parser)
  processes.add_flags(parser)
  parser.add_argument(
    '--samples',
    type=int,
    default=0,
    metavar='N',
    help='shows this many random documents with their queries',
  )
  flags, overrides = entry.parse_arguments(parser, arguments)
  if flags.samples < 0:
    raise UserError(f'--samples should be at least 0, got {flags.samples}')
  with processes.joined(flags):
    _generate(flags.gin_file, overrides, flags.samples)
  return 0


def _generate(gin_files: list[str], overrides: list[str], samples: int) -> None:
  """Generates, and says what came of it."""
  from gr_jax import configuration
  from gr_jax.data.collection import Collection
  from gr_jax.querygen import pipeline
  from gr_jax.querygen import samples as shown
  from gr_jax.querygen.query_settings import (
    SETTINGS,
    QueryGenerationSettings,
  )

  configuration.register(*SETTINGS)
  configuration.parse(gin_files, overrides)
  settings = configuration.build(QueryGenerationSettings)
  entry.keep_compiled()
  manifest = pipeline.generate_queries(settings)
  processes.say(f'{settings.output}: {pipeline.summary(manifest)}')
  if samples:
    drawn = shown.sample_lines(
      Collection(settings.data_dir, settings.max_bad_records),
      pathlib.Path(settings.output),
      samples,
      settings.seed,
    )
    processes.say('\n'.join(drawn))


if __name__ == '__main__':
  entry.run_main(main)
