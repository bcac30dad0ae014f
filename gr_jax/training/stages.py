"""The stages of training: what each looks at, moves, and begins with."""

import functools

import jax
import numpy as np

from gr_jax import processes
from gr_jax.indexers import settling, starting
from gr_jax.indexers.static import StaticConfig
from gr_jax.indexers.upkeep import fresh_usage
from gr_jax.models.cached_gradients import caching
from gr_jax.models.listing import listing
from gr_jax.objectives.weighted_sum import only
from gr_jax.training.memory import ReportingStep
from gr_jax.training.mesh import put
from gr_jax.training.optimizer import make_optimizer
from gr_jax.training.step import make_step

# The criteria that identifiers which stand still are found by.
_SETTLED = (
  'generation', 'quantised', 'prefix_contrast', 'consistency', 'distillation',
)  # fmt: skip


def stages(model, settings, texts, optimizers):
  """What `loop.train_loop` goes through.

  Args:
    model: models.retriever.Retriever.
    settings: run_settings.RunSettings.
    texts: run_texts.Texts.
    optimizers: from `stage_optimizers`.

  Returns:
    {'dense' | 'codes' | 'settled': (begins, begin, step_fn)}, see
    loop.train_loop.
  """
  if settings.training.encoder_chunks > 1:
    model = caching(model, settings.training.encoder_chunks)
  if settings.lists.given:
    model = listing(model, settings.teaching)

  def step(name, optimizer):
    return make_step(
      model.clone(settled=name == 'settled'),
      optimizer=optimizer,
      settings=settings.training,
      objective_settings=stage_objective(settings.objective, name),
      # In the other stages identifiers stand still, or do not exist.
      upkeep=settings.model.upkeep if name == 'codes' else None,
      seed=settings.seed,
    )

  return {
    name: (
      settings.training.beginnings,
      functools.partial(begin_stage, name, settings, texts, optimizer),
      ReportingStep(step(name, optimizer), name, processes.say),
    )
    for name, optimizer in optimizers.items()
  }


def stage_optimizers(training):
  """{'dense' | 'codes' | 'settled': optimizer} of a run.

  A stage each: moments and rate start anew with it, and with each round.

  Args:
    training: training.state.TrainingSettings.
  """
  steps = stage_steps(training)
  vectors = ('encoder', 'projection')
  decoder = {'decoder': training.optimizer.decoder_rate}
  factors = {
    'dense': {},
    'codes': decoder | dict.fromkeys(vectors, training.optimizer.vector_rate),
    # Identifiers that are given anew follow vectors that stand still.
    'settled': decoder
    | dict.fromkeys(
      vectors,
      0.0 if training.settled_rounds else training.optimizer.vector_rate,
    ),
  }
  return {
    name: make_optimizer(training.optimizer, steps[name], factors[name])
    for name in factors
  }


def stage_steps(training):
  """{'dense' | 'codes' | 'settled': steps} from a start of moments and rate.

  Args:
    training: training.state.TrainingSettings.
  """
  first = training.first_steps
  return {
    'dense': first['codes'],
    'codes': first['settled'] - first['codes'],
    'settled': training.round_steps,
  }


def stage_objective(settings, stage):
  """What a stage of training looks at.

  Args:
    settings: ObjectiveSettings.
    stage: 'dense', 'codes' or 'settled' (what says where identifiers should
      be is left out).
  """
  if stage == 'dense':
    return only(settings, 'bottleneck')
  return only(settings, *_SETTLED) if stage == 'settled' else settings


def begin_stage(name, settings, texts, optimizer, state):
  """The state that a stage of training begins with.

  Args:
    name: 'dense', 'codes' (identifiers start from what the vectors became) or
      'settled' (they are given to the whole corpus, except static ones and
      where there are no rounds of giving).
    settings: run_settings.RunSettings.
    texts: run_texts.Texts, the vectors of documents and training queries.
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
  static = isinstance(settings.model.indexer, StaticConfig)
  if name == 'settled' and not static and settings.training.settled_rounds:
    found = _settled_codes(settings.model, texts, state.all_params())
    state = state.replace(frozen=_replaced(state.frozen, found))
  return state.replace(
    opt_state=jax.jit(
      optimizer.init,
      out_shardings=jax.tree.map(lambda x: x.sharding, state.opt_state),
    )(state.params)
  )


def _starting_codes(settings, texts, params):
  """{'module': {'parameter': array}} of indexer and tables."""
  config, ids = settings.model.indexer, texts.prepared.document_ids
  kind = starting.initialisation(config)
  if kind == 'none' and 'query_means' not in params:
    # Nothing is encoded for codes that no text tells.
    return starting.starting_params(config, None, ids, settings.seed)
  documents_ND, vectors_ND = texts.documents(params), None
  means_ND = starting.query_means(
    *texts.training_queries(params), documents_ND.shape
  )
  if kind != 'none':
    vectors_ND = starting.starting_vectors(
      documents_ND, means_ND, kind, settings.model.query_share
    )
  found = starting.starting_params(config, vectors_ND, ids, settings.seed)
  if 'query_means' in params:
    found['query_means'] = {'table': means_ND.astype(np.float16)}
  return found


def _settled_codes(config, texts, params):
  """{'identifiers': {'table': array}}, what all documents are given."""
  codes_NWL, costs_NW = texts.candidates(params)
  most = settling.capacity(len(codes_NWL), config.code_sizes, config.room)
  return {'identifiers': {'table': settling.settle(codes_NWL, costs_NW, most)}}


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
  return put(new.astype(old.dtype), old.sharding)
