"""Parameters at step 0: drawn, imported, and codebooks from k-means."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.indexers.kmeans import residual_kmeans
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.models import import_weights
from gr_jax.models.bert import BertConfig
from gr_jax.models.retriever import unit_length
from gr_jax.types import UserError, near_miss

# Vectors that k-means sees: more change the centres little and cost memory.
KMEANS_SAMPLE = 262_144

# Free to choose whatever the weights were trained with.
_TRAINING_ONLY = ('dtype', 'dropout_rate', 'initializer_stddev')
# What one half of a T5 does not read; the retriever has no text head.
_DECODER_ONLY = ('num_decoder_layers', 'logits_via_embedding')
_ENCODER_ONLY = ('num_encoder_layers', 'logits_via_embedding', 'vocab_size')

INITIALISATIONS = ('documents', 'queries', 'half', 'none')


def init_params(model, seed):
  """Draws all parameters.

  Args:
    model: models.retriever.Retriever.
    seed: of the draw.

  Returns:
    The parameters and their logical axes (the 'params_axes' collection).
  """
  tokens_BS = jnp.ones((2, 2), jnp.int32)
  batch = {
    'query_tokens': tokens_BS,
    'document_tokens': tokens_BS,
    'document_index': jnp.arange(2),
  }

  def init(key):
    keys = jax.random.split(key)
    return model.init(
      {'params': keys[0], 'dropout': keys[1]},
      batch,
      temperature=1.0,
      noise=0.0,
      deterministic=True,
    )

  variables = jax.jit(init)(jax.random.key(seed))
  return variables['params'], variables['params_axes']


def import_params(params, config, source):
  """Puts pretrained weights in place of drawn ones.

  A T5 with a decoder gives the code decoder's stack too: its first layers
  when the stack has fewer (the position bias is the first layer's, so they
  work without the others), nothing when the stack has none.

  Args:
    params: from `init_params`.
    config: RetrieverConfig.
    source: as models.import_weights takes it; empty to change nothing.

  Returns:
    The parameters, and the SHA-256 of the weights ('' for none).
  """
  if not source:
    return params, ''
  if isinstance(config.encoder, BertConfig):
    found, encoder, provenance = import_weights.import_bert(source)
    _check_config(config.encoder, found, 'RetrieverConfig.encoder', source)
    return {**params, 'encoder': encoder}, provenance.sha256
  found, weights, provenance = import_weights.import_t5(source)
  _check_config(
    config.encoder, found, 'RetrieverConfig.encoder', source, _DECODER_ONLY
  )
  params = {**params, 'encoder': import_weights.encoder_params(weights)}
  stack = config.decoder.stack
  if 'decoder' in weights and stack.num_decoder_layers:
    name = 'CodeDecoderConfig.stack'
    _check_config(stack, found, name, source, _ENCODER_ONLY)
    layers = _first_layers(
      import_weights.decoder_params(weights), stack.num_decoder_layers
    )
    params = {**params, 'decoder': {**params['decoder'], 'stack': layers}}
  return params, provenance.sha256


def _check_config(wanted, found, place, source, unread=()):
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


def starting_vectors(documents_ND, query_vectors, documents_of_queries, kind):
  """What k-means clusters: documents, their queries, or half of each.

  Clustering on the queries is bottleneck-minimal indexing (arXiv 2405.10974);
  half and half is our reconstruction. A document without a query stands for
  itself.

  Args:
    documents_ND: unit vectors.
    query_vectors: [Q, D] unit vectors of training queries.
    documents_of_queries: [Q] int document of each.
    kind: of `INITIALISATIONS`, but not 'none'.

  Returns:
    [N, D] vectors.
  """
  documents_ND = np.asarray(documents_ND, np.float32)
  if kind == 'documents' or not len(query_vectors):
    return documents_ND
  sums_ND = np.zeros_like(documents_ND)
  np.add.at(sums_ND, documents_of_queries, np.asarray(query_vectors))
  has_query_N1 = np.bincount(documents_of_queries, minlength=len(documents_ND))[
    :, None
  ].astype(bool)
  means_ND = np.asarray(unit_length(jnp.asarray(sums_ND)))
  share = 1.0 if kind == 'queries' else 0.5
  mixed_ND = (1 - share) * documents_ND + share * means_ND
  return np.where(has_query_N1, mixed_ND, documents_ND)


def with_codebooks(state, config, vectors_ND, seed):
  """A state whose codebooks are those of residual k-means.

  Args:
    state: training.state.TrainState.
    config: RetrieverConfig.
    vectors_ND: from `starting_vectors`; every n-th of them when there are
      more than `KMEANS_SAMPLE`.
    seed: of the first centres.

  Returns:
    The state, its codebooks placed as they were.
  """
  every = -(-len(vectors_ND) // KMEANS_SAMPLE)
  codebooks_LKD, _ = residual_kmeans(
    vectors_ND[::every],
    jax.random.key(seed),
    positions=config.positions,
    codes=config.codes,
  )
  before = state.params['indexer']['codebooks']
  indexer = {
    **state.params['indexer'],
    'codebooks': jax.device_put(codebooks_LKD, before.sharding),
  }
  return state.replace(params={**state.params, 'indexer': indexer})


def codebook_start(config):
  """What the indexer's codebooks start from, of `INITIALISATIONS`."""
  if not isinstance(config.indexer, ResidualConfig):
    return 'none'
  kind = config.indexer.initialisation
  if kind not in INITIALISATIONS:
    raise UserError(
      f'ResidualConfig.initialisation is one of {list(INITIALISATIONS)}, not '
      f'{kind!r}{near_miss(kind, INITIALISATIONS)}'
    )
  return kind
