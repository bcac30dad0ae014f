"""Trains a retriever: from a collection to checkpoints of a run.

python -m gr_jax.train --gin_file=gin/runs/quickstart.gin
python -m gr_jax.train --gin_file=... --gin.DATA_DIR=PATH --gin.RUN_DIR=PATH

The same command goes on where an interrupted run stopped.
"""

import argparse
import contextlib
import importlib.util
import pathlib

from gr_jax import entry
from gr_jax.types import UserError


def main(arguments: list[str]) -> int:
  """The door: gin files and flags to one call."""
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.train',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  entry.add_gin_flags(parser)
  flags, overrides = entry.parse_arguments(parser, arguments)
  from gr_jax import configuration, index_corpus, run_settings

  configuration.parse(flags.gin_file, overrides)
  settings = configuration.build(run_settings.RunSettings)
  run_dir = pathlib.Path(settings.run_dir)
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
  from gr_jax import run_folder
  from gr_jax.training import mesh as meshes

  entry.refuse_several_processes()
  run_dir = run_dir.absolute()
  run_folder.check_settings(settings, run_dir)
  with run_folder.held(run_dir):
    prepared = run_folder.prepared_examples(settings, run_dir)
    asked = _dev_questions(settings, run_dir)
    run_folder.keep_settings(settings, run_dir, config_text)
    for name, rate in settings.loader.rates.items():
      if rate and not len(prepared.sources.get(name, (None,))):
        print(f'{name}: the collection has no such examples', flush=True)
    with meshes.active(meshes.make_mesh(settings.mesh)) as mesh:
      _train(settings, run_dir, prepared, asked, mesh)


def _train(settings, run_dir, prepared, asked, mesh):
  """Builds the parts of a run and hands them to the loop."""
  import functools

  from gr_jax import run_folder
  from gr_jax.models.retriever import Retriever
  from gr_jax.objectives.weighted_sum import bottleneck_alone
  from gr_jax.training import initial, interrupts, loop, step
  from gr_jax.training.checkpoints import Checkpoints
  from gr_jax.training.mesh import put_batch
  from gr_jax.training.optimizer import make_optimizer

  training = settings.training
  model = Retriever(settings.model)
  # A stage each: moments and rate start anew when codes and decoder do.
  dense_steps = training.dense_steps
  dense_optimizer = make_optimizer(training.optimizer, dense_steps)
  optimizer = make_optimizer(training.optimizer, training.steps - dense_steps)
  params, axes = initial.init_params(model, settings.seed)
  params, weights_sha256 = initial.import_params(
    params, settings.model, settings.encoder_weights
  )
  hashes = {
    'vocabulary': prepared.vocabulary().sha256,
    'encoder_weights': weights_sha256,
    'examples': prepared.manifest['inputs_sha256'],
  }
  texts = run_folder.Texts(settings, run_dir, model, params, prepared, hashes)
  make_step = functools.partial(
    step.make_step, model, settings=training, seed=settings.seed
  )
  folder = run_dir / 'checkpoints'
  # Whatever ends the loop, a save under way is finished and the logs are shut.
  with contextlib.ExitStack() as stack:
    checkpoints = Checkpoints(folder, training.keep_checkpoints)
    stack.callback(checkpoints.close)
    state, batches = _start(
      settings, params, axes, optimizer, mesh, texts, checkpoints, hashes
    )
    loop.train_loop(
      state=state,
      dense_step=make_step(
        optimizer=dense_optimizer,
        objective_settings=bottleneck_alone(settings.objective),
      ),
      step_fn=make_step(
        optimizer=optimizer, objective_settings=settings.objective
      ),
      start_codes=functools.partial(_start_codes, settings, texts, optimizer),
      batches=batches,
      put=functools.partial(put_batch, mesh),
      settings=training,
      save=functools.partial(checkpoints.save, hashes=hashes),
      log=_log(stack, run_dir, training.steps, int(state.step)),
      hooks=_hooks(settings, model, texts, asked),
      check_interrupt=stack.enter_context(interrupts.deferred()),
    )


def _log(stack, run_dir, steps, first_step):
  """Writes the logs of a run, which process 0 does for all."""
  import jax

  from gr_jax.training.logs import MetricWriter

  if jax.process_index():
    return lambda step, values: None
  writer = MetricWriter(run_dir / 'logs', steps, first_step)
  stack.callback(writer.close)
  return writer.write


def _start(settings, params, axes, optimizer, mesh, texts, checkpoints, hashes):
  """State and batches at step 0, or where the last checkpoint stands."""
  import jax

  from gr_jax.data import loader
  from gr_jax.training.mesh import shardings_for
  from gr_jax.training.state import make_state

  state = make_state(params, optimizer, settings.training.train_encoder)
  state = jax.device_put(state, shardings_for(mesh, axes, state))
  batches = loader.batches(
    texts.prepared,
    settings.loader,
    jax.process_index(),
    jax.process_count(),
    texts.frozen,
  )
  latest = checkpoints.latest()
  if latest is None:
    checkpoints.check_space(state)
    return state, batches
  restored = checkpoints.restore(latest, state, hashes)
  batches.set_state(restored.data_state)
  return restored.state, batches


def _start_codes(settings, texts, optimizer, state):
  """The state of the second stage: codebooks from k-means, a new optimizer."""
  import jax

  from gr_jax.training import initial

  fresh = jax.tree.map(
    lambda new, old: jax.device_put(new, old.sharding),
    optimizer.init(state.params),
    state.opt_state,
  )
  state = state.replace(opt_state=fresh)
  kind = initial.codebook_start(settings.model)
  if kind == 'none':
    return state
  params = state.all_params()
  queries_QD, documents_Q = texts.training_queries(params)
  vectors_ND = initial.starting_vectors(
    texts.documents(params), queries_QD, documents_Q, kind
  )
  return initial.with_codebooks(
    state, settings.model, vectors_ND, settings.seed
  )


def _dev_questions(settings, run_dir):
  """What the loop asks, read before anything takes long; None for nothing."""
  if not settings.training.evaluate_every:
    return None
  if importlib.util.find_spec('ir_measures') is None:
    raise UserError(
      'TrainingSettings.evaluate_every needs ir_measures: pip install '
      "'gr_jax[baselines]', or set it to 0"
    )
  from gr_jax import run_settings
  from gr_jax.data.collection import Collection
  from gr_jax.evaluation import judging

  folder = run_settings.collection_arguments(settings, run_dir)
  return judging.questions(Collection(*folder), 'dev')


def _hooks(settings, model, texts, asked):
  """What the loop calls every `evaluate_every` steps."""
  if asked is None:
    return ()
  from gr_jax.evaluation.in_loop import dev_hook

  return (dev_hook(model, settings, asked, texts),)


if __name__ == '__main__':
  entry.run_main(main)
