"""Trains a retriever: from a collection to checkpoints of a run.

python -m gr_jax.train --gin_file=gin/runs/quickstart.gin
python -m gr_jax.train --gin_file=... --gin.DATA_DIR=PATH --gin.RUN_DIR=PATH

The same command goes on where an interrupted run stopped.
"""

import argparse
import contextlib
import pathlib

from gr_jax import entry, processes


def main(arguments: list[str]) -> int:
  """The door: gin files and flags to one call."""
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.train',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  entry.add_gin_flags(parser)
  processes.add_flags(parser)
  flags, overrides = entry.parse_arguments(parser, arguments)
  entry.keep_compiled()
  from gr_jax import configuration, index_corpus, run_settings

  configuration.parse(flags.gin_file, overrides)
  settings = configuration.build(run_settings.RunSettings)
  run_dir = pathlib.Path(settings.run_dir)
  with processes.joined(flags):
    train(settings, run_dir, configuration.config_text())
    index_corpus.index_run(run_dir)
    index_corpus.warm_up(run_dir / 'index')
  return 0


def train(settings, run_dir: pathlib.Path, config_text: str = '') -> None:
  """Trains a run to its last step, or goes on with one.

  Args:
    settings: run_settings.RunSettings.
    run_dir: folder of the run; its settings.json must be the same settings
      when it has checkpoints.
    config_text: the gin configuration, kept beside settings.json.
  """
  from gr_jax import run_folder, run_settings
  from gr_jax.evaluation.in_loop import dev_questions
  from gr_jax.training import mesh as meshes

  run_dir = run_dir.absolute()
  run_folder.check_settings(settings, run_dir)
  with run_folder.held(run_dir):
    prepared = run_folder.prepared_examples(settings, run_dir)
    asked = dev_questions(
      settings.training.evaluate_every,
      *run_settings.collection_arguments(settings, run_dir),
    )
    run_folder.keep_settings(settings, run_dir, config_text)
    run_folder.tell_missing(settings, prepared)
    with meshes.active(meshes.make_mesh(settings.mesh)) as mesh:
      _train(settings, run_dir, prepared, asked, mesh)


def _train(settings, run_dir, prepared, asked, mesh):
  """Builds the parts of a run and hands them to the loop."""
  from gr_jax import run_lists, run_texts
  from gr_jax.data import loader
  from gr_jax.evaluation.in_loop import dev_hooks
  from gr_jax.models.retriever import Retriever
  from gr_jax.training import initial, interrupts, logs, loop, shares, stages
  from gr_jax.training.checkpoints import Checkpoints
  from gr_jax.training.guard import make_watch
  from gr_jax.training.window import Window, make_record

  training = settings.training
  model = Retriever(settings.model)
  optimizers = stages.stage_optimizers(training)
  state, _, weights = initial.first_state(
    settings, model, len(prepared.document_ids), optimizers['dense'], mesh
  )
  hashes = prepared.hashes() | weights | run_lists.hashes(settings)
  texts = run_texts.Texts(
    settings, run_dir, model, state.all_params(), prepared, hashes
  )
  batches = loader.batches(
    prepared,
    settings.loader,
    shares.rows_of(mesh, settings.loader.batch_size),
    texts.frozen,
    texts.hard_negatives(state.all_params()),
    run_lists.drawn_lists(settings, prepared, texts, mesh),
  )
  # Whatever ends the loop, a save under way is finished and the logs are shut.
  with interrupts.deferred() as stop, contextlib.ExitStack() as stack:
    folder = run_dir / 'checkpoints'
    checkpoints = Checkpoints(folder, training.keep_checkpoints)
    stack.callback(checkpoints.close)
    stop.also = checkpoints.check
    state = checkpoints.resume(state, batches, hashes)
    loop.train_loop(
      state=state,
      stages=run_lists.stages(model, settings, texts, optimizers),
      batches=batches,
      put=shares.putter(mesh, settings.loader.batch_size),
      settings=training,
      save=lambda *kept: checkpoints.save(*kept, hashes),
      log=logs.open_log(stack, run_dir / 'logs', training.steps, state.step),
      window=Window(
        make_record(run_dir / 'logs', prepared), settings.loader.batch_size
      ),
      watch=make_watch(settings.model.code_sizes, processes.say),
      hooks=shares.led(dev_hooks(model, settings, asked, texts)),
      stop=stop,
    )


if __name__ == '__main__':
  entry.run_main(main)
