"""Parameters at step 0, and codes where the second stage starts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.indexers.tables import TABLES
from gr_jax.models import import_weights
from gr_jax.models.bert import BertConfig
from gr_jax.training import run_weights
from gr_jax.training.mesh import made_on, put, replicated, shardings_for
from gr_jax.training.state import TrainState
from gr_jax.types import UserError

# Free to choose whatever the weights were trained with.
_TRAINING_ONLY = ('dtype', 'dropout_rate', 'initializer_stddev', 'remat')
# What one half of a T5 does not read; the retriever has no text head.
_DECODER_ONLY = ('num_decoder_layers', 'logits_via_embedding')
_ENCODER_ONLY = ('num_encoder_layers', 'logits_via_embedding', 'vocab_size')


def init_params(model, seed, documents, mesh=None, imported=()):
  """Draws all parameters.

  Args:
    model: models.retriever.Retriever.
    seed: of the draw.
    documents: N, rows of the tables of what is known of documents.
    mesh: where they are to lie; one device when None.
    imported: modules whose weights come from elsewhere: of these there are
      shapes alone, and nothing is drawn.

  Returns:
    The parameters, their logical axes (the 'params_axes' collection) and the
    state 'usage'.
  """
  tokens_BS = jnp.ones((2, 2), jnp.int32)
  batch = {
    'query_tokens': tokens_BS,
    'document_tokens': tokens_BS,
    'document_index': jnp.arange(2),
  }

  def init(key):
    keys = jax.random.split(key)
    variables = model.init(
      {'params': keys[0], 'dropout': keys[1]},
      batch,
      temperature=1.0,
      noise=0.0,
      deterministic=True,
    )
    params = dict(variables['params'])
    for name in TABLES:
      if name in params:
        row_1X = params[name]['table']
        params[name] = {'table': jnp.repeat(row_1X, documents, axis=0)}
    return {**variables, 'params': params}

  def drawn(key):
    variables = init(key)
    params = variables['params']
    own = {name: params[name] for name in params if name not in imported}
    return own, variables['usage']

  key = jax.random.key(seed)
  shapes = jax.eval_shape(init, key)
  axes = shapes['params_axes']
  if mesh is None:
    params, usage = jax.jit(drawn)(key)
  else:
    params, usage = made_on(mesh, axes, drawn, key)
  awaited = {name: shapes['params'][name] for name in imported}
  return params | awaited, axes, usage


def make_state(params, usage, optimizer, train_encoder):
  """A state at step 0.

  Args:
    params: the model's parameters, by module.
    usage: the model's state of that name.
    optimizer: optax transformation.
    train_encoder: whether params['encoder'] trains.

  Returns:
    The TrainState.
  """
  trained, frozen = split_frozen(params, train_encoder)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=trained,
    frozen=frozen,
    opt_state=optimizer.init(trained),
    usage=usage,
  )


def split_frozen(params, train_encoder):
  """What trains and what does not, of trees with a branch for each module.

  Args:
    params: parameters, or what else there is of each.
    train_encoder: whether the encoder trains.

  Returns:
    Both as trees with fewer branches.
  """
  frozen_names = TABLES if train_encoder else (*TABLES, 'encoder')
  frozen = {k: v for k, v in params.items() if k in frozen_names}
  return {k: v for k, v in params.items() if k not in frozen_names}, frozen


def first_state(settings, model, documents, optimizer, mesh=None):
  """The state at step 0, with pretrained weights where there are some.

  Args:
    settings: run_settings.RunSettings.
    model: models.retriever.Retriever.
    documents: N, of the corpus.
    optimizer: optax transformation.
    mesh: where each array is to lie from the start; one device when None.

  Returns:
    The TrainState, the parameters' logical axes, and {name: SHA-256} of what
    the parameters come from: 'encoder_weights' ('' for none) and, where there
    is one, 'trained_run'.
  """
  # All kinds of weights have the whole encoder.
  imported = ('encoder',) if settings.encoder_weights else ()
  params, axes, usage = init_params(
    model, settings.seed, documents, mesh, imported
  )
  params, weights_sha256 = import_params(
    params, settings.model, settings.encoder_weights
  )
  train_encoder = settings.training.train_encoder
  hashes = {'encoder_weights': weights_sha256}
  if settings.trained_run:
    params, hashes['trained_run'] = run_weights.begin_with(
      params, settings.trained_run
    )
    if not settings.training.settled_rounds:
      run_weights.check_identifiers(params, settings.trained_run)
  if mesh is None:
    params = jax.tree.map(jnp.asarray, params)
    state = make_state(params, usage, optimizer, train_encoder)
    return state, axes, hashes
  params = _without_host_arrays(params, shardings_for(mesh, axes, params))
  # Moments are as large as parameters: made in place as well.
  moments = functools.partial(made_on, mesh, axes, optimizer.init)
  optimizer = optimizer._replace(init=moments)
  state = make_state(params, usage, optimizer, train_encoder)
  step = put(np.zeros((), np.int32), replicated(mesh))
  return state.replace(step=step), axes, hashes


def _without_host_arrays(params, shardings):
  """Parameters with those of imported weights put on the devices one by one."""
  return jax.tree.map(
    lambda leaf, sharding: (
      leaf if isinstance(leaf, jax.Array) else put(leaf, sharding)
    ),
    params,
    shardings,
  )


def import_params(params, config, source):
  """Puts pretrained weights in place of drawn ones.

  A T5 with a decoder gives the code decoder's stack too: its first layers
  when the stack has fewer (the position bias is the first layer's, so they
  work without the others), nothing when the stack has none.

  Args:
    params: from `init_params`.
    config: RetrieverConfig.
    source: as models.import_weights takes it, or 'run:FOLDER' for the encoder
      and the projection of another run; empty to change nothing.

  Returns:
    The parameters, and the SHA-256 of the weights ('' for none).
  """
  if not source:
    return params, ''
  if source.startswith(run_weights.RUN):
    return run_weights.import_run(params, source)
  if isinstance(config.encoder, BertConfig):
    found, encoder, provenance = import_weights.import_bert(source)
    check_config(config.encoder, found, 'RetrieverConfig.encoder', source)
    return {**params, 'encoder': encoder}, provenance.sha256
  found, weights, provenance = import_weights.import_t5(source)
  check_config(
    config.encoder, found, 'RetrieverConfig.encoder', source, _DECODER_ONLY
  )
  params = {**params, 'encoder': import_weights.encoder_params(weights)}
  stack = config.decoder.stack
  if 'decoder' in weights and stack.num_decoder_layers:
    name = 'CodeDecoderConfig.stack'
    check_config(stack, found, name, source, _ENCODER_ONLY)
    layers = _first_layers(
      import_weights.decoder_params(weights), stack.num_decoder_layers
    )
    params = {**params, 'decoder': {**params['decoder'], 'stack': layers}}
  return params, provenance.sha256


def check_config(wanted, found, place, source, unread=()):
  """Refuses weights of another model: its shapes alone do not tell it.

  Args:
    wanted: the configuration of the part that takes the weights.
    found: that of the weights.
    place: setting that holds `wanted`.
    source: of the weights.
    unread: fields that this part does not read.
  """
  kind = type(wanted).__name__
  changes = []
  for field in dataclasses.fields(wanted):
    name = field.name
    ours, theirs = getattr(wanted, name), getattr(found, name)
    # Fewer layers of a decoder are its first ones.
    shallower = name == 'num_decoder_layers' and ours < theirs
    if name in (*_TRAINING_ONLY, *unread) or ours == theirs or shallower:
      continue
    changes.append(f'{kind}.{name} = {theirs!r} (it is {ours!r})')
  if changes:
    raise UserError(
      f'the weights of {source} do not fit {place}: set {", ".join(changes)}, '
      'or choose other RunSettings.encoder_weights'
    )


def _first_layers(stack, count):
  """The parameters of a decoder stack of `count` layers out of a deeper one."""
  keep = {f'layers_{i}' for i in range(count)}
  return {
    name: value
    for name, value in stack.items()
    if name in keep or not name.startswith('layers_')
  }
