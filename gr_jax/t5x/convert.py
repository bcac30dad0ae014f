"""Takes a run to T5X and back: parameters, optimizer, step, mutables.

python -m gr_jax.t5x.convert --gin_file=... --gin.RUN_DIR=RUN --to=MODEL_DIR
python -m gr_jax.t5x.convert --run_dir=RUN --to=MODEL_DIR
python -m gr_jax.t5x.convert --run_dir=RUN --from=MODEL_DIR

The first starts a run; --to begins the stage or round that the state stands
at, as gr_jax.train would. --from writes a checkpoint that gr_jax.train goes on
from, and gr_jax.index_corpus indexes.
"""

import argparse
import pathlib

from gr_jax import entry
from gr_jax.types import UserError


def main(arguments: list[str]) -> int:
  """The door: flags to one call."""
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.t5x.convert',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument('--gin_file', action='append', metavar='PATH')
  parser.add_argument('--gin.NAME', dest='gin_example', metavar='VALUE')
  entry.add_run_dir_flag(parser, required=False)
  where = parser.add_mutually_exclusive_group(required=True)
  where.add_argument('--to', metavar='PATH', help="T5X's MODEL_DIR")
  where.add_argument(
    '--from',
    dest='source',
    metavar='PATH',
    help="T5X's MODEL_DIR, or one checkpoint_STEP of it",
  )
  flags, overrides = entry.parse_arguments(parser, arguments)
  if bool(flags.gin_file) == bool(flags.run_dir) or (
    flags.run_dir and overrides
  ):
    raise UserError(
      'expected either --run_dir, or --gin_file with --gin.NAME=VALUE'
    )
  settings, run_dir, text = _settings(flags, overrides)
  if flags.to:
    folder = to_t5x(settings, run_dir, pathlib.Path(flags.to), text)
  else:
    folder = from_t5x(settings, run_dir, pathlib.Path(flags.source))
  print(f'wrote {folder}')
  return 0


def _settings(flags, overrides):
  """Settings of a run, its folder, and the configuration where it is new."""
  from gr_jax import configuration, run_folder, run_settings

  if flags.run_dir:
    run_dir = pathlib.Path(flags.run_dir).absolute()
    return run_folder.read_settings(run_dir), run_dir, None
  configuration.parse(flags.gin_file, overrides)
  settings = configuration.build(run_settings.RunSettings)
  run_dir = pathlib.Path(settings.run_dir).absolute()
  run_folder.check_settings(settings, run_dir)
  return settings, run_dir, configuration.config_text()


def to_t5x(
  settings,
  run_dir: pathlib.Path,
  model_dir: pathlib.Path,
  config_text: str | None = None,
) -> pathlib.Path:
  """Writes the last state of a run, or its first, as a T5X checkpoint.

  Args:
    settings: run_settings.RunSettings.
    run_dir: of the run.
    model_dir: T5X's MODEL_DIR.
    config_text: the gin configuration of a run that is new.

  Returns:
    The folder of the checkpoint.
  """
  from gr_jax import run_folder, run_texts
  from gr_jax.t5x import states
  from gr_jax.t5x.contract import RetrieverModel
  from gr_jax.t5x.run import stage_end
  from gr_jax.training.stages import begin_stage, stage_optimizers

  entry.refuse_several_processes()
  with run_folder.held(run_dir):
    opened = _Opened(settings, run_dir)
    if config_text is not None:
      run_folder.keep_settings(settings, run_dir, config_text)
    state, training = opened.state(), settings.training
    step = int(state.step)
    if step >= training.steps:
      raise UserError(f'{run_dir} is trained to its last step, {step}')
    name = training.stage(step)
    if step in training.beginnings:
      texts = run_texts.Texts(
        settings, run_dir, opened.model, state.all_params(), opened.prepared,
        opened.hashes,
      )  # fmt: skip
      optimizer = stage_optimizers(training)[name]
      state = begin_stage(name, settings, texts, optimizer, state)
    model = RetrieverModel(settings, len(opened.prepared.document_ids), name)
    end = stage_end(training, step)
    print(f"STAGE = '{name}', TRAIN_STEPS = {end}", flush=True)
    return states.write(model, state, opened.axes, model_dir)


def from_t5x(
  settings, run_dir: pathlib.Path, source: pathlib.Path
) -> pathlib.Path:
  """Writes a T5X checkpoint as one of the run.

  Args:
    settings: run_settings.RunSettings.
    run_dir: of the run.
    source: a MODEL_DIR of T5X or a checkpoint of it.

  Returns:
    The folder of the checkpoint.
  """
  import jax

  from gr_jax import run_folder
  from gr_jax.t5x import states
  from gr_jax.t5x.contract import RetrieverModel
  from gr_jax.training.checkpoints import Checkpoints

  entry.refuse_several_processes()
  with run_folder.held(run_dir):
    opened = _Opened(settings, run_dir)
    # All stages have states of one shape.
    model = RetrieverModel(settings, len(opened.prepared.document_ids), 'codes')
    state = states.read(model, opened.first, opened.axes, source)
    step = int(state.step)
    checkpoints = Checkpoints(
      run_dir / 'checkpoints', settings.training.keep_checkpoints
    )
    try:
      if (latest := checkpoints.latest()) is not None and latest >= step:
        raise UserError(
          f'{run_dir} has a checkpoint of step {latest} already, {source} is '
          f'at {step}: choose a later one'
        )
      checkpoints.save(
        step, jax.device_put(state), {'next_index': step}, opened.hashes
      )
    finally:
      checkpoints.close()
    return checkpoints.directory / f'step_{step:08d}'


class _Opened:
  """A run, its examples, and its state at step 0."""

  def __init__(self, settings, run_dir):
    from gr_jax import run_folder, run_lists
    from gr_jax.models.retriever import Retriever
    from gr_jax.training import initial
    from gr_jax.training.stages import stage_optimizers

    self._run_dir = run_dir
    self._keep = settings.training.keep_checkpoints
    self.prepared = run_folder.prepared_examples(settings, run_dir)
    self.model = Retriever(settings.model)
    self.first, self.axes, hashes = initial.first_state(
      settings,
      self.model,
      len(self.prepared.document_ids),
      stage_optimizers(settings.training)['dense'],
    )
    self.hashes = self.prepared.hashes() | hashes | run_lists.hashes(settings)

  def state(self):
    """The state of the last checkpoint, or the first one."""
    from gr_jax.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(self._run_dir / 'checkpoints', self._keep)
    try:
      latest = checkpoints.latest()
      if latest is None:
        return self.first
      return checkpoints.restore(latest, self.first, self.hashes).state
    finally:
      checkpoints.close()


if __name__ == '__main__':
  entry.run_main(main)
