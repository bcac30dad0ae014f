"""The stages of training: what each looks at, moves, and begins with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.indexers import starting
from gr_jax.indexers.upkeep import fresh_usage
from gr_jax.objectives.weighted_sum import only
from gr_jax.training.optimizer import make_optimizer
from gr_jax.training.step import make_step


def stages(model, settings, texts, optimizers):
  """What `loop.train_loop` goes through.

  Args:
    model: models.retriever.Retriever.
    settings: run_settings.RunSettings.
    texts: run_folder.Texts.
    optimizers: from `stage_optimizers`.

  Returns:
    {'dense' | 'codes' | 'decoder': (begin, step_fn)}.
  """
  return {
    name: (
      functools.partial(begin_stage, name, settings, texts, optimizer),
      make_step(
        model,
        optimizer=optimizer,
        settings=settings.training,
        objective_settings=stage_objective(settings.objective, name),
        # In the other stages identifiers stand still, or do not exist.
        upkeep=settings.model.upkeep if name == 'codes' else None,
        seed=settings.seed,
      ),
    )
    for name, optimizer in optimizers.items()
  }


def stage_optimizers(training):
  """{'dense' | 'codes' | 'decoder': optimizer} of a run.

  A stage each: moments and rate start anew when codes and decoder do.

  Args:
    training: training.state.TrainingSettings.
  """
  first = [*training.first_steps.values(), training.steps]
  vectors = ('encoder', 'projection')
  decoder = {'decoder': training.optimizer.decoder_rate}
  factors = {
    'dense': {},
    'codes': decoder | dict.fromkeys(vectors, training.optimizer.vector_rate),
    'decoder': decoder | dict.fromkeys((*vectors, 'indexer'), 0.0),
  }
  return {
    name: make_optimizer(training.optimizer, end - start, factors[name])
    for name, start, end in zip(factors, first[:-1], first[1:], strict=True)
  }


def stage_objective(settings, stage):
  """What a stage of training looks at.

  Args:
    settings: ObjectiveSettings.
    stage: 'dense', 'codes' or 'decoder'.
  """
  if stage == 'dense':
    return only(settings, 'bottleneck')
  return only(settings, 'generation') if stage == 'decoder' else settings


def begin_stage(name, settings, texts, optimizer, state):
  """The state that a stage of training begins with.

  Args:
    name: 'dense', 'codes' (identifiers start from what the vectors became) or
      'decoder'.
    settings: run_settings.RunSettings.
    texts: run_folder.Texts, the vectors of documents and training queries.
    optimizer: of the stage; it starts anew.
    state: training.state.TrainState after the stage before.

  Returns:
    The state, each array placed as it was.
  """
  if name == 'codes':
    found = _starting_codes(settings, texts, state.all_params())
    params = _replaced(state.params, found)
    usage = fresh_usage(
      state.usage, params['indexer']['codebooks'], settings.model.code_sizes
    )
    state = state.replace(
      params=params,
      frozen=_replaced(state.frozen, found),
      usage=jax.tree.map(_placed, usage, state.usage),
    )
  return state.replace(
    opt_state=jax.tree.map(
      _placed, optimizer.init(state.params), state.opt_state
    )
  )


def _starting_codes(settings, texts, params):
  """{'module': {'parameter': array}} of indexer and tables."""
  config = settings.model.indexer
  kind = starting.initialisation(config)
  documents_ND = texts.documents(params)
  means_ND = starting.query_means(
    *texts.training_queries(params), documents_ND.shape
  )
  vectors_ND = None
  if kind != 'none':
    vectors_ND = starting.starting_vectors(
      documents_ND, means_ND, kind, settings.model.query_share
    )
  found = starting.starting_params(
    config, vectors_ND, texts.prepared.document_ids, settings.seed
  )
  if 'query_means' in params:
    found['query_means'] = {'table': means_ND.astype(np.float16)}
  return found


def _replaced(params, found):
  """Parameters with those that were found in place of what was there."""
  replaced = {}
  for name, module in params.items():
    new = {
      leaf: _placed(value, module[leaf])
      for leaf, value in found.get(name, {}).items()
    }
    replaced[name] = {**module, **new}
  return replaced


def _placed(new, old):
  """A copy on the devices of the array it replaces.

  Steps donate all of a state: nothing in it may be another's buffer too, as
  keys are that start as codebooks.
  """
  return jax.device_put(jnp.array(new, copy=True), old.sharding)
