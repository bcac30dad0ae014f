"""The texts of a run as vectors: encoded, kept, shared between processes."""

import functools
import hashlib
import json
import shutil
import time

import jax
import numpy as np

from gr_jax import processes, run_settings
from gr_jax.data.loader_checks import used_rates
from gr_jax.retrieval.encoding import (
  candidate_codes,
  encode_texts,
  project_vectors,
)
from gr_jax.retrieval.frozen_vectors import FrozenVectors, frozen_vectors
from gr_jax.retrieval.hard_negatives import mined_negatives
from gr_jax.retrieval.program import encode_program
from gr_jax.retrieval.shards import encode_shards, joined
from gr_jax.settings import to_json
from gr_jax.training import shares
from gr_jax.types import UserError

# Of a run folder: vectors that are being encoded.
SHARDS = 'encoding'
# What vectors of all texts depend on, of what a run does.
_HASHES = ('vocabulary', 'encoder_weights')


class Texts:
  """The texts of a run as vectors, whether the encoder is frozen or trains.

  Attributes:
    prepared: the examples.
    frozen: vectors of the frozen encoder, None when it trains.
  """

  def __init__(
    self, settings, run_dir, model, params, prepared, hashes, checkpoint=''
  ):
    """Opens the texts, encoding them first when the encoder is frozen.

    Args:
      settings: of the run.
      run_dir: of the run.
      model: Retriever.
      params: with the encoder's weights.
      prepared: the examples.
      hashes: of weights, vocabulary and examples.
      checkpoint: of what all parameters given later are, to go on with
        vectors of them that were encoded before; they vary when empty.
    """
    self.prepared = prepared
    self.frozen: FrozenVectors | None = None
    self._model = model
    self._settings = settings
    self._directory = run_settings.cache_dir(settings, run_dir) / 'vectors'
    self._hashes = hashes
    self._checkpoint = checkpoint
    self._shards = run_dir / SHARDS
    self._sources = sorted(used_rates(prepared, settings.loader.rates))
    if settings.training.train_encoder:
      return
    if settings.model.decoder.attends_tokens:
      raise UserError(
        'a frozen encoder keeps one vector a text: set '
        'CodeDecoderConfig.attends_tokens = False, or '
        'TrainingSettings.train_encoder = True'
      )
    self.frozen = self._pooled(params)

  def hard_negatives(self, params):
    """What hard negatives are drawn from, None for no such.

    Args:
      params: of the model before it is trained.

    Returns:
      {source: [examples, C] document numbers}, see
      retrieval.hard_negatives.mined_negatives.
    """
    if not self._settings.loader.hard_negatives:
      return None
    vectors = self.frozen or self._pooled(params)
    return mined_negatives(
      self._directory, vectors, self.prepared, processes.say
    )

  def _pooled(self, params) -> FrozenVectors:
    """What the encoder, as it is now, pools of all texts."""
    # The same weights under another configuration give other vectors.
    settings, model = self._settings, self._model
    encoder = to_json(settings.model.encoder)
    # What is computed again for gradients changes no vector.
    del encoder['remat']
    # Without them vectors are those of before there were any.
    if not encoder['relpos_buckets']:
      del encoder['relpos_buckets']
    inputs = {
      **{name: self._hashes[name] for name in _HASHES},
      'encoder': encoder,
      'pooling': settings.model.pooling,
    }
    if not settings.encoder_weights:
      inputs['seed'] = settings.seed
    fingerprint = json.dumps(inputs, sort_keys=True).encode()
    backbone = jax.jit(
      lambda encoder, tokens_BS: (
        model.apply(
          {'params': {'encoder': encoder}}, tokens_BS, method='backbone'
        ).pooled_BE
      )
    )
    encoder = shares.gathered(params['encoder'])
    return frozen_vectors(
      self._directory,
      lambda tokens_BS: backbone(encoder, tokens_BS),
      self.prepared,
      self._sources,
      hashlib.sha256(fingerprint).hexdigest(),
      processes.say,
    )

  def documents(self, params) -> np.ndarray:
    """[N, D] unit vectors of the documents."""
    prepared = self.prepared
    if self.frozen is not None:
      return self._projected(params, self.frozen.documents)
    return self._encoded(
      params,
      'documents',
      prepared.document_tokens,
      len(prepared.document_ids),
      prepared.document_length,
    )

  def candidates(self, params) -> tuple[np.ndarray, np.ndarray]:
    """[N, W, L] identifiers a document could have, and [N, W] their costs."""
    documents_ND = self.documents(params)
    with processes.local_devices():
      return candidate_codes(self._model, shares.gathered(params), documents_ND)

  def training_queries(self, params) -> tuple[np.ndarray, np.ndarray]:
    """[Q, D] unit vectors of queries to start codes from, [Q] their documents.

    Of what is trained on: the labelled and the generated ones; where there
    are neither, texts out of the documents. No vectors where all it trains on
    are whole documents.
    """
    names = [name for name in ('labelled', 'pseudo') if name in self._sources]
    if not names:
      out_of_documents = ('extractive', 'spans')
      names = [name for name in out_of_documents if name in self._sources][:1]
    if not names:
      return np.zeros((0, 0), np.float32), np.zeros(0, np.int32)
    sources = [self.prepared.sources[name] for name in names]
    return (
      np.concatenate([self._queries(params, name) for name in names]),
      np.concatenate([source.document_indices for source in sources]),
    )

  def _queries(self, params, name: str) -> np.ndarray:
    """[Q, D] unit vectors of the queries of one source."""
    if self.frozen is not None:
      return self._projected(params, self.frozen.queries[name])
    source = self.prepared.sources[name]
    return self._encoded(
      params,
      f'queries_{name}',
      source.query_tokens,
      len(source),
      self.prepared.query_length,
    )

  def _projected(self, params, pooled_NE) -> np.ndarray:
    """[N, D] unit vectors of what the frozen encoder pooled."""
    with processes.local_devices():
      return project_vectors(self._model, shares.gathered(params), pooled_NE)

  def _encoded(self, params, name, read_tokens, count, longest) -> np.ndarray:
    """[N, D] unit vectors; processes share the texts, all get all vectors."""
    params = shares.gathered(params)
    encode = functools.partial(encode_program, self._model, params)
    if not self._checkpoint and not processes.several():
      return encode_texts(encode, read_tokens, count, longest)
    inputs = self._checkpoint or str(time.time_ns())
    paths = encode_shards(
      self._shards / name, encode, read_tokens, count, longest, inputs
    )
    vectors_ND = joined(paths)
    processes.meet()
    return vectors_ND

  def remove_shards(self) -> None:
    """Frees the disk of vectors that nobody will ask for again."""
    processes.first(lambda: shutil.rmtree(self._shards, ignore_errors=True))
