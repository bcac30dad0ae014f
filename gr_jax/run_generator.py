"""A run that trains a query generator: model, weights, batches, dev loss."""

import numpy as np

from gr_jax import run_settings
from gr_jax.data import document_queries
from gr_jax.data.collection import Collection
from gr_jax.data.loader import pad
from gr_jax.data.text_examples import controlled
from gr_jax.models import import_weights
from gr_jax.models.bert import BertConfig
from gr_jax.models.query_generator import QueryGenerator, example_batch
from gr_jax.querygen.likelihood import token_metrics
from gr_jax.training import initial
from gr_jax.types import UserError, document_text

# Pairs of the dev split whose likelihood is measured.
_DEV_PAIRS = 256
_DEV_BATCH = 32


class GeneratorRun:
  """What train_text asks of the model that it trains.

  Attributes:
    module: flax module with `loss`.
    frozen: modules that do not train.
    rates: {module: factor on its rate}.
  """

  def __init__(self, settings):
    """Takes text_run_settings.TextRunSettings with a GeneratorConfig."""
    self._settings = settings
    self.module = QueryGenerator(settings.model)
    self.frozen = () if settings.model.train_encoder else ('encoder',)
    self.rates = {'encoder': settings.training.optimizer.vector_rate}

  def imported(self) -> tuple[dict, str]:
    """Pretrained modules, and the SHA-256 of their weights ('' for none)."""
    model, source = self._settings.model, self._settings.encoder_weights
    if not source:
      return {}, ''
    if isinstance(model.encoder, BertConfig):
      params, sha256 = initial.import_params({}, model, source)
      # A new decoder starts from what the encoder knows of tokens.
      if model.encoder.emb_dim == model.decoder.emb_dim:
        table = params['encoder']['token_embedder']['embedding']
        params['token_embedder'] = {'embedding': np.array(table)}
      return params, sha256
    found, weights, provenance = import_weights.import_t5(source)
    initial.check_config(
      model.encoder, found, 'GeneratorConfig.encoder', source
    )
    params = {'encoder': import_weights.encoder_params(weights)}
    if 'decoder' in weights:
      initial.check_config(
        model.decoder, found, 'GeneratorConfig.decoder', source
      )
      params['decoder'] = weights['decoder']
      params['token_embedder'] = weights['token_embedder']
    return params, provenance.sha256

  def example(self) -> dict:
    """A batch of any size."""
    return example_batch()

  def batches(self, prepared, rows):
    """The batches that a process reads.

    Args:
      prepared: data.prepared.PreparedData.
      rows: places in the batch of those that it reads.

    Raises:
      UserError: the vocabulary begins or ends texts otherwise than the model.
    """
    loader, model = self._settings.loader, self._settings.model
    _check_marks(model, prepared.vocabulary().encode('', prepared.query_length))
    return document_queries.batches(
      prepared,
      loader.batch_size,
      model.queries_per_document,
      loader.seed,
      loader.prefetch,
      rows,
    )

  def hooks(self, run_dir, prepared) -> tuple:
    """What the loop calls every `evaluate_every` steps.

    Args:
      run_dir: of the run.
      prepared: data.prepared.PreparedData.

    Returns:
      (step, state) -> {'dev/token_loss': nats a token, 'dev/token_accuracy':
      share of tokens that are the likeliest}, or nothing where there is no dev
      split.

    Raises:
      UserError: no query of the dev split has a relevant document.
    """
    settings = self._settings
    folder, bad = run_settings.collection_arguments(settings, run_dir)
    if not settings.training.evaluate_every or not folder.is_dir():
      return ()
    collection = Collection(folder, bad)
    if 'dev' not in collection.splits():
      return ()
    batches = _dev_batches(
      collection, prepared, settings.seed, settings.preparation.control_field
    )

    def hook(step, state):
      del step
      sums: dict[str, np.ndarray] = {}
      for batch in batches:
        found = token_metrics(self.module, state.all_params(), batch)
        for name, pair in found.items():
          sums[name] = sums.get(name, 0.0) + np.array(pair, np.float64)
      return {
        f'dev/{name}': total / max(count, 1.0)
        for name, (total, count) in sums.items()
      }

    return (hook,)


def _check_marks(model, marks: list[int]) -> None:
  """Refuses a model that begins or ends queries otherwise than its examples.

  Args:
    model: GeneratorConfig.
    marks: tokens of an empty text: what ends it, behind what begins it.
  """
  if marks == ([model.start, model.end] if model.start else [model.end]):
    return
  *first, end = marks or [None]
  raise UserError(
    f'GeneratorConfig.start = {model.start} and end = {model.end}, but the '
    f'vocabulary writes {marks} around a text: set start = {[*first, 0][0]} '
    f'and end = {end}, or prepare with the vocabulary of the model'
  )


def _dev_batches(collection, prepared, seed, field) -> list[dict]:
  """Pairs of the dev split, prepared as those trained on, one query a row."""
  queries = {
    query.id: controlled(query, field) if field else query.text
    for query in collection.queries()
  }
  pairs = [
    (j.document_id, queries[j.query_id])
    for j in collection.judgements('dev')
    if j.relevance > 0
  ]
  if not pairs:
    raise UserError(
      f"split 'dev' of {collection.directory} should hold queries with a "
      'relevant document, it holds none'
    )
  order = np.random.default_rng(seed).permutation(len(pairs))
  # Batches of one shape, which is compiled once.
  kept = [pairs[place] for place in np.resize(order, _DEV_PAIRS)]
  wanted = {document_id for document_id, _ in kept}
  texts = {
    document.id: document_text(document)
    for document in collection.documents()
    if document.id in wanted
  }
  vocabulary = prepared.vocabulary()
  documents = vocabulary.encode_batch(
    [texts[document_id] for document_id, _ in kept], prepared.document_length
  )
  written = vocabulary.encode_batch(
    [query for _, query in kept], prepared.query_length
  )
  documents_XS = pad([np.array(x) for x in documents], prepared.document_length)
  queries_XL = pad([np.array(x) for x in written], prepared.query_length)
  return [
    {
      'document_tokens': documents_XS[start : start + _DEV_BATCH],
      'query_tokens': queries_XL[start : start + _DEV_BATCH, None],
    }
    for start in range(0, _DEV_PAIRS, _DEV_BATCH)
  ]
