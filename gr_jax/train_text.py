"""Trains a model of texts: a query generator, or a cross-encoder.

python -m gr_jax.train_text --gin_file=gin/runs/query_generation.gin \
  --gin.DATA_DIR=PATH --gin.RUN_DIR=PATH

The same command goes on where an interrupted run stopped. A model joins by its
kind of settings and a class as run_generator.GeneratorRun is.
"""

import argparse
import contextlib
import pathlib

from gr_jax import entry, processes


def main(arguments: list[str]) -> int:
  """The door: gin files and flags to one call."""
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.train_text',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  entry.add_gin_flags(parser)
  processes.add_flags(parser)
  flags, overrides = entry.parse_arguments(parser, arguments)
  entry.keep_compiled()
  from gr_jax import configuration, text_run_settings

  configuration.parse(flags.gin_file, overrides)
  settings = configuration.build(text_run_settings.TextRunSettings)
  with processes.joined(flags):
    train(settings, pathlib.Path(settings.run_dir), configuration.config_text())
  return 0


def train(settings, run_dir: pathlib.Path, config_text: str = '') -> None:
  """Trains a run to its last step, or goes on with one.

  Args:
    settings: text_run_settings.TextRunSettings.
    run_dir: folder of the run; its settings.json must be the same settings
      when it has checkpoints.
    config_text: the gin configuration, kept beside settings.json.
  """
  from gr_jax import run_folder
  from gr_jax.training import mesh as meshes

  run_dir = run_dir.absolute()
  run_folder.check_settings(settings, run_dir)
  with run_folder.held(run_dir):
    prepared = run_folder.prepared_examples(settings, run_dir)
    run_folder.keep_settings(settings, run_dir, config_text)
    with meshes.active(meshes.make_mesh(settings.mesh)) as mesh:
      _train(_run_of(settings), settings, run_dir, prepared, mesh)


def _run_of(settings):
  """What the kind of model brings."""
  from gr_jax.models.cross_encoder import CrossEncoderConfig
  from gr_jax.models.query_generator import GeneratorConfig
  from gr_jax.run_generator import GeneratorRun
  from gr_jax.run_ranker import RankerRun

  kinds = {GeneratorConfig: GeneratorRun, CrossEncoderConfig: RankerRun}
  return kinds[type(settings.model)](settings)


def _train(run, settings, run_dir, prepared, mesh):
  """Builds the parts of a run and hands them to the loop."""
  import functools

  from gr_jax.training import interrupts, logs, loop, shares, text_step
  from gr_jax.training.checkpoints import Checkpoints
  from gr_jax.training.memory import ReportingStep
  from gr_jax.training.optimizer import make_optimizer
  from gr_jax.training.window import Window, make_record

  training, size = settings.training, settings.loader.batch_size
  optimizer = make_optimizer(training.optimizer, training.steps, run.rates)
  imported, sha256 = run.imported()
  state = text_step.first_text_state(
    run.module,
    run.example(),
    settings.seed,
    optimizer,
    mesh,
    imported,
    run.frozen,
  )
  hashes = prepared.hashes() | {'encoder_weights': sha256}
  batches = run.batches(prepared, shares.rows_of(mesh, size))
  step = text_step.make_text_step(
    run.module, optimizer, training.accumulate, settings.seed
  )
  with interrupts.deferred() as stop, contextlib.ExitStack() as stack:
    checkpoints = Checkpoints(
      run_dir / 'checkpoints', training.keep_checkpoints
    )
    stack.callback(checkpoints.close)
    stop.also = checkpoints.check
    state = checkpoints.resume(state, batches, hashes)
    stage = ReportingStep(step, text_step.STAGE, processes.say)
    loop.train_loop(
      state=state,
      stages=shares.together({text_step.STAGE: ((), None, stage)}),
      batches=batches,
      put=shares.putter(mesh, size),
      settings=training,
      save=functools.partial(checkpoints.save, hashes=hashes),
      log=logs.open_log(stack, run_dir / 'logs', training.steps, state.step),
      window=Window(make_record(run_dir / 'logs', prepared), size),
      watch=lambda state: {},
      hooks=shares.led(run.hooks(run_dir, prepared)),
      stop=stop,
    )


if __name__ == '__main__':
  entry.run_main(main)
