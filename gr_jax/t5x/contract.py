"""A run of ours as the model that T5X trains, evaluates and decodes with.

T5X asks for methods and for no base class. Of our TrainState, `params` are its
parameters; `frozen` and `usage` are its Flax mutables: it takes gradients of
all parameters, and tables are integers. So its optimizer is ours, unmasked,
and checkpoints differ in names alone.
"""

import functools

import flax.core
import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.linen import partitioning

from gr_jax.decoding.beam import Rules
from gr_jax.indexers.interface import given
from gr_jax.indexers.static import StaticConfig
from gr_jax.models.listing import listing
from gr_jax.models.retriever import Retriever
from gr_jax.objectives.weighted_sum import objective
from gr_jax.retrieval.program import decoded, expand_buckets
from gr_jax.t5x.identifiers import CurrentTrie
from gr_jax.training.initial import init_params, split_frozen
from gr_jax.training.stages import stage_objective, stage_optimizers
from gr_jax.types import UserError, check_option

STAGES = ('dense', 'codes', 'settled')


class RetrieverModel:
  """One stage of a run.

  Attributes:
    settings: run_settings.RunSettings.
    documents: N, of the corpus.
    stage: 'dense', 'codes' or 'settled', as training.stages has them.
    module: the Retriever.
    places: documents that a prediction names at most.
  """

  def __init__(self, settings, documents, stage, identifiers=None, places=100):
    """Makes the model; parameters come from T5X.

    Args:
      settings: run_settings.RunSettings.
      documents: N, of the corpus.
      stage: what is trained.
      identifiers: [N, L] what to start with and to decode, in place of those
        that a state holds.
      places: documents that a prediction names at most.
    """
    check_option('the stage of a T5X run', stage, STAGES)
    if settings.loader.hard_negatives:
      raise UserError(
        'hard negatives are mined by gr_jax.train alone: set '
        'LoaderSettings.hard_negatives = 0 for T5X'
      )
    if settings.teaching.dense_weight:
      raise UserError(
        'T5X reads no vectors of listed documents: set '
        'DistillationSettings.dense_weight = 0'
      )
    if settings.lists.refresh_every:
      raise UserError(
        'lists are ranked anew by gr_jax.train alone: set '
        'ListSettings.refresh_every = 0 for T5X'
      )
    if settings.training.accumulate != 1:
      raise UserError(
        'T5X adds gradients of microbatches, in which in-batch criteria see '
        'less: set TrainingSettings.accumulate = 1'
      )
    self.settings = settings
    self.documents = documents
    self.stage = stage
    self.places = min(places, documents)
    self.module = Retriever(settings.model, settled=stage == 'settled')
    if settings.lists.path:
      self.module = listing(self.module, settings.teaching)
    self._identifiers = identifiers
    self._trie = CurrentTrie(settings.model.code_sizes)

  @property
  def FEATURE_CONVERTER_CLS(self):
    """Seqio's converter, under the name that T5X looks for."""
    from gr_jax.data.seqio_converter import RetrievalFeatureConverter

    return RetrievalFeatureConverter

  @functools.cached_property
  def optimizer_def(self):
    """The optimizer of the stage, as T5X takes it."""
    from gr_jax.t5x.optimizer import StageOptimizer

    return StageOptimizer(stage_optimizers(self.settings.training)[self.stage])

  @property
  def moves_identifiers(self):
    """Whether documents have other identifiers with every step."""
    static = isinstance(self.settings.model.indexer, StaticConfig)
    return not static and self.stage != 'settled' and self._identifiers is None

  def get_initial_variables(self, rng, input_shapes, input_types=None):
    """Parameters and mutables at step 0, with their logical axes.

    Drawn as our launcher draws them, from RunSettings.seed.

    Args:
      rng: not read.
      input_shapes: not read.
      input_types: not read.

    Returns:
      {'params', 'usage', 'frozen' and the '_axes' of each: tree}.
    """
    del rng, input_shapes, input_types
    params, axes, usage = init_params(
      self.module, self.settings.seed, self.documents
    )
    trained, frozen = self._split(params)
    return self.variables(trained, self._with_given(frozen), usage, axes)

  def variables(self, params, frozen, usage, axes):
    """What a state holds, as T5X takes it.

    Args:
      params: training.state.TrainState's.
      frozen: the same.
      usage: the same.
      axes: logical axes of all parameters, the collection 'params_axes'.
    """
    params_axes, frozen_axes = self._split(axes)
    return {
      'params': params,
      'params_axes': _names(params, params_axes),
      'frozen': frozen,
      'frozen_axes': _names(frozen, frozen_axes),
      'usage': usage,
      'usage_axes': _names(usage, {}),
    }

  def _split(self, tree):
    """What trains and what does not."""
    tree = flax.core.unfreeze(tree)
    return split_frozen(tree, self.settings.training.train_encoder)

  def loss_fn(self, params, batch, dropout_rng, flax_mutables):
    """The objective of a batch; T5X adds those of microbatches.

    Args:
      params: trained parameters.
      batch: what FEATURE_CONVERTER_CLS makes, and 'step', the updates done.
      dropout_rng: of dropout and Gumbel noise; flax draws them apart.
      flax_mutables: {'frozen', 'usage'}.

    Returns:
      The loss, and clu metrics with the mutables after the batch.

    Raises:
      UserError: rankings are followed, and the batch has no lists of them.
    """
    if self.settings.lists.path and 'list_index' not in batch:
      raise UserError(
        f"batches have no 'list_index', and {self.settings.lists.path} "
        '(ListSettings.path) is to be followed: train on '
        '@prepared.training_mixture() with lists = @run.lists() and '
        '@run.training_lengths(), as gin/t5x/train.gin does, or set '
        'train.get_dataset_fn = @batches.prepared_batches'
      )
    loss, metrics, usage = self._loss(
      params, batch, flax_mutables, dropout_rng, deterministic=False
    )
    return loss, (metrics, flax_mutables.copy({'usage': usage}))

  def eval_fn(self, params, batch, flax_mutables):
    """The same without dropout and noise; nothing changes."""
    loss, metrics, _ = self._loss(
      params, batch, flax_mutables, jax.random.key(0), deterministic=True
    )
    return loss, metrics

  def _loss(self, params, batch, mutables, rng, deterministic):
    """Objective, metrics and usage; also tests' door to it without T5X."""
    training = self.settings.training
    progress = training.codes_progress(batch['step'])
    noise = 0.0 if deterministic else training.noise.at(progress)
    params = self.joined(params, mutables)
    outputs, mutated = self.module.apply(
      {'params': params, 'usage': flax.core.unfreeze(mutables['usage'])},
      self._read(params, batch),
      temperature=training.temperature.at(progress),
      noise=noise,
      deterministic=deterministic,
      rngs={'dropout': rng},
      mutable=['usage'],
    )
    loss, metrics = objective(
      outputs,
      batch['document_index'],
      self.settings.model.code_sizes,
      stage_objective(self.settings.objective, self.stage),
      progress,
    )
    return loss, _averages(metrics), flax.core.freeze(mutated['usage'])

  def joined(self, params, mutables):
    """All parameters as the module has them."""
    frozen = flax.core.unfreeze(mutables['frozen'])
    return {**frozen, **flax.core.unfreeze(params)}

  def _read(self, params, batch):
    """What the module reads: the vectors of a frozen encoder, or tokens."""
    if self.settings.training.train_encoder:
      return {name: rows for name, rows in batch.items() if name != 'step'}
    pooled = functools.partial(
      self.module.apply, {'params': params}, method='backbone'
    )
    kept = ('document_index', 'list_index', 'list_scores')
    return {
      'query_vectors': pooled(batch['query_tokens']).pooled_BE,
      'document_vectors': pooled(batch['document_tokens']).pooled_BE,
      **{name: batch[name] for name in kept if name in batch},
    }

  def predict_batch(self, params, batch, rng=None, flax_mutables=None):
    """[B, places] numbers of documents, the best first, -1 behind the last."""
    return self.predict_batch_with_aux(params, batch, rng, flax_mutables)[0]

  def predict_batch_with_aux(self, params, batch, rng=None, flax_mutables=None):
    """Searches the trie of the documents' identifiers.

    Documents stand in the order of their identifiers' scores, and in that of
    the corpus where they share one: vectors of documents are an index's.

    Args:
      params: trained parameters.
      batch: with 'query_tokens' [B, S].
      rng: not read: nothing is drawn.
      flax_mutables: {'frozen', 'usage'}.

    Returns:
      [B, places] numbers of documents, -1 behind the last, and {'scores':
      [B, places], 'codes': [B, places, L]} of their identifiers.
    """
    del rng
    frozen = self._with_given(flax.core.unfreeze(flax_mutables['frozen']))
    config, search = self.settings.model, self.settings.search
    tables = self._trie.tables(frozen['identifiers']['table'])
    _, beams = decoded(
      self.module,
      self.joined(params, {'frozen': frozen}),
      batch['query_tokens'],
      tables,
      None,
      lambda _: Rules(search.renormalised),
      search.beams,
      config.positions,
    )
    documents_BC, beams_BC = expand_buckets(
      beams, tables, self.places, jnp.int32(self.places)
    )
    aux = {
      'scores': jnp.take_along_axis(beams.scores_BW, beams_BC, axis=1),
      'codes': jnp.take_along_axis(
        beams.codes_BWL, beams_BC[..., None], axis=1
      ),
    }
    return documents_BC, aux

  def score_batch(
    self, params, batch, return_intermediates=False, flax_mutables=None
  ):
    """[B] log P(z|q) of each document's identifier, or of the nearest one.

    Args:
      params: trained parameters.
      batch: what FEATURE_CONVERTER_CLS makes.
      return_intermediates: refused.
      flax_mutables: {'frozen', 'usage'}.
    """
    if return_intermediates:
      raise UserError('score_batch has no intermediates to return')
    frozen = self._with_given(flax.core.unfreeze(flax_mutables['frozen']))
    return self.module.apply(
      {'params': self.joined(params, {'frozen': frozen})}, batch, method=_score
    )

  def _with_given(self, frozen):
    """The frozen parameters with the identifiers that were given."""
    if self._identifiers is None:
      return frozen
    return {**frozen, 'identifiers': {'table': jnp.asarray(self._identifiers)}}


def _score(module, batch):
  """Log-probabilities of identifiers under a Retriever."""
  queries = module.encode(batch['query_tokens'])
  documents_BD = module.encode(batch['document_tokens']).vectors_BD
  codes_BL = module.assign(documents_BD, batch['document_index'])
  codebooks_LKD = module.indexer.codebooks()
  scores_BLK = module.decoder(
    queries,
    given(codes_BL, codebooks_LKD).codewords_BLD,
    codebooks_LKD,
    deterministic=True,
  )
  log_BLK = jax.nn.log_softmax(scores_BLK, axis=-1)
  chosen_BL1 = jnp.take_along_axis(log_BLK, codes_BL[..., None], axis=-1)
  return jnp.sum(chosen_BL1, axis=(1, 2))


def _names(arrays, axes):
  """Names of the axes of arrays, as T5X wants them: one for each leaf.

  None where there is no name, and for an axis of 1, which no mesh divides.
  """
  axes = traverse_util.flatten_dict(axes)
  named = {}
  for path, leaf in traverse_util.flatten_dict(
    flax.core.unfreeze(arrays)
  ).items():
    path = (*path[:-1], f'{path[-1]}_axes')
    names = axes[path].names if path in axes else (None,) * leaf.ndim
    sizes = zip(names, leaf.shape, strict=True)
    named[path] = partitioning.AxisMetadata(
      names=tuple(None if size == 1 else name for name, size in sizes)
    )
  return traverse_util.unflatten_dict(named)


def _averages(metrics):
  """Metrics (total, count) as clu's averages, which add up the same way."""
  from clu.metrics import Average

  return {
    name: Average(
      total=jnp.asarray(total, jnp.float32),
      count=jnp.asarray(count, jnp.float32),
    )
    for name, (total, count) in metrics.items()
  }
