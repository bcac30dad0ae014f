"""A run that trains a cross-encoder: its model, weights, batches, dev MRR."""

import pathlib

import jax
import numpy as np

from gr_jax import processes, run_settings
from gr_jax.data import loader
from gr_jax.data.collection import Collection
from gr_jax.data.loader_checks import used_rates
from gr_jax.models import import_weights, weight_files
from gr_jax.models.bert import BertConfig
from gr_jax.models.cross_encoder import CrossEncoder
from gr_jax.training import initial, run_weights
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.types import UserError

# Queries of the dev split that are judged, and how many documents of each.
_DEV_QUERIES = 100
_DEV_DOCUMENTS = 20
_CLASSIFIER = 'BertForSequenceClassification'


class RankerRun:
  """What train_text asks of the model that it trains.

  Attributes:
    module: flax module with `loss`.
    frozen: modules that do not train.
    rates: {module: factor on its rate}.
  """

  def __init__(self, settings):
    """Takes text_run_settings.TextRunSettings with a CrossEncoderConfig."""
    self._settings = settings
    self.module = CrossEncoder(settings.model)
    self.frozen = ()
    self.rates = {'encoder': settings.training.optimizer.vector_rate}

  def imported(self) -> tuple[dict, str]:
    """Pretrained modules, and the SHA-256 of their weights ('' for none).

    A sentence encoder or a T5 gives the encoder alone, a published
    cross-encoder everything, 'run:FOLDER' what the run of a cross-encoder or
    of a retriever has of it.
    """
    source, place = self._settings.encoder_weights, 'CrossEncoderConfig.encoder'
    encoder = self._settings.model.encoder
    if not source:
      return {}, ''
    if source.startswith(run_weights.RUN):
      return self._of_run(source)
    if not isinstance(encoder, BertConfig):
      found, weights, provenance = import_weights.import_t5(source)
      unread = ('num_decoder_layers', 'logits_via_embedding')
      initial.check_config(encoder, found, place, source, unread)
      params = {'encoder': import_weights.encoder_params(weights)}
    elif _is_cross_encoder(source):
      config, params, provenance = import_weights.import_cross_encoder(source)
      initial.check_config(encoder, config.encoder, place, source)
      params = {name: params[name] for name in self._shapes() & params.keys()}
    else:
      found, weights, provenance = import_weights.import_bert(source)
      initial.check_config(encoder, found, place, source)
      params = {'encoder': weights}
    return params, provenance.sha256

  def _of_run(self, source: str) -> tuple[dict, str]:
    """The modules of the last checkpoint of another run."""
    folder = pathlib.Path(source.removeprefix(run_weights.RUN))
    checkpoints = Checkpoints(folder / 'checkpoints')
    try:
      step = checkpoints.latest()
      if step is None:
        raise UserError(
          f'{source} should name the folder of a run with a checkpoint'
        )
      found = checkpoints.restore_params(step)
    finally:
      checkpoints.close()
    shapes = self._shapes()
    params = {name: found[name] for name in sorted(shapes & found.keys())}
    for name, arrays in params.items():
      there = jax.tree.map(lambda array: array.shape, arrays)
      if there != jax.tree.map(lambda leaf: leaf.shape, shapes[name]):
        raise UserError(
          f'{source} has another {name}: use the gin files of its model'
        )
    if 'encoder' not in params:
      raise UserError(f'{source} should be a run that has an encoder')
    return params, run_weights.params_sha256(params)

  def _shapes(self) -> dict:
    """The parameters of the model by module, as shapes."""
    return jax.eval_shape(
      lambda batch: self.module.init(
        jax.random.key(0), batch, deterministic=True, method='loss'
      ),
      self.example(),
    )['params']

  def example(self) -> dict:
    """A batch of any size."""
    tokens_BS = np.ones((1, 4), np.int32)
    return {
      'query_tokens': tokens_BS,
      'document_tokens': tokens_BS,
      'document_index': np.zeros(1, np.int32),
    }

  def batches(self, prepared, rows):
    """The batches that a process reads, with hard negatives by BM25.

    Args:
      prepared: data.prepared.PreparedData.
      rows: places in the batch of those that it reads.
    """
    settings, candidates = self._settings.loader, None
    _check_marks(self._settings.model, prepared)
    if settings.hard_negatives + self._settings.model.in_batch < 1:
      raise UserError(
        'a cross-encoder learns from what a query is told from: set '
        'LoaderSettings.hard_negatives or CrossEncoderConfig.in_batch'
      )
    if settings.hard_negatives:
      from gr_jax.evaluation.lexical_negatives import lexical_negatives

      candidates = lexical_negatives(
        prepared.directory.with_name('negatives_bm25'),
        self._collection(),
        prepared,
        sorted(used_rates(prepared, settings.rates)),
        processes.say,
      )
    return loader.batches(prepared, settings, rows, None, candidates)

  def hooks(self, run_dir, prepared) -> tuple:
    """What the loop calls every `evaluate_every` steps.

    Args:
      run_dir: of the run.
      prepared: data.prepared.PreparedData.

    Returns:
      (step, state) -> {'dev/MRR@10': ...}, or nothing where there is no dev
      split.
    """
    del run_dir
    if not self._settings.training.evaluate_every:
      return ()
    from gr_jax.ranking import reranking

    collection = self._collection()
    if 'dev' not in collection.splits():
      return ()
    asked = reranking.sampled(
      collection, 'dev', _DEV_QUERIES, _DEV_DOCUMENTS, self._settings.seed
    )
    return (reranking.reranking_hook(self.module, prepared, asked),)

  def _collection(self) -> Collection:
    settings = self._settings
    run_dir = pathlib.Path(settings.run_dir)
    return Collection(*run_settings.collection_arguments(settings, run_dir))


def _check_marks(model, prepared) -> None:
  """Refuses a vocabulary that marks texts otherwise than the encoder reads.

  Args:
    model: CrossEncoderConfig.
    prepared: data.prepared.PreparedData.
  """
  marks = prepared.vocabulary().encode('', prepared.query_length)
  if len(marks) != 1 + model.skipped:
    raise UserError(
      f'CrossEncoderConfig.encoder reads {1 + model.skipped} tokens around a '
      f'text ([CLS] and [SEP] of BERT, </s> of T5), the vocabulary writes '
      f'{len(marks)}: prepare with one of its kind'
    )


def _is_cross_encoder(source: str) -> bool:
  """Whether published weights have a classifier."""
  hf = weight_files.read_config(weight_files.locate(source))
  return _CLASSIFIER in (hf.get('architectures') or ())
