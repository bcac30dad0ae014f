"""The texts of a run as vectors: encoded, kept, shared between processes."""

import functools
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Sequence

import jax
import numpy as np

from gr_jax import processes, run_settings
from gr_jax.data.loader_checks import used_rates
from gr_jax.indexers.tables import TABLES
from gr_jax.retrieval.building import identified
from gr_jax.retrieval.encoding import (
  candidate_codes,
  encode_rows,
  encode_texts,
  project_vectors,
)
from gr_jax.retrieval.frozen_vectors import FrozenVectors, frozen_vectors
from gr_jax.retrieval.hard_negatives import mined_negatives
from gr_jax.retrieval.program import encode_program
from gr_jax.retrieval.shards import (
  columns,
  encode_shards,
  joined,
  make_shards,
)
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
    run_dir: of the run.
    frozen: vectors of the frozen encoder, None when it trains.
  """

  def __init__(self, settings, run_dir, model, params, prepared, hashes):
    """Opens the texts, encoding them first when the encoder is frozen.

    Args:
      settings: of the run.
      run_dir: of the run.
      model: Retriever.
      params: with the encoder's weights.
      prepared: the examples.
      hashes: of weights, vocabulary and examples.
    """
    self.prepared, self.run_dir = prepared, run_dir
    self.frozen: FrozenVectors | None = None
    self._model = model
    self._settings = settings
    self._directory = run_settings.cache_dir(settings, run_dir) / 'vectors'
    self._hashes = hashes
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

  def indexed(self, params, checkpoint: str) -> list[pathlib.Path]:
    """What an index keeps of the documents, in shards that processes share.

    Args:
      params: of the model. Of its tables a device gets the rows of a shard.
      checkpoint: checksum of all that the rows depend on; shards of the same
        are not made again.

    Returns:
      The files in order, of records with 'codes' [L] and 'vectors' [D].
    """
    others = {k: v for k, v in params.items() if k not in TABLES}
    tables = {k: v for k, v in params.items() if k in TABLES}

    def make(places, show):
      vectors_XD = self._vectors(others, places, show)
      own = jax.tree.map(lambda table_NX: table_NX[places], tables)
      codes_XL, vectors_XD = identified(
        self._model, {**others, **own}, vectors_XD
      )
      return columns(codes=codes_XL, vectors=vectors_XD)

    count = len(self.prepared.document_ids)
    return make_shards(
      self._shards / 'index', make, count, checkpoint, unit='document'
    )

  def _vectors(self, params, places, show) -> np.ndarray:
    """[X, D] unit vectors of some documents, by this process."""
    if self.frozen is not None:
      pooled_XE = self.frozen.documents[places]
      projected_XD = project_vectors(self._model, params, pooled_XE)
      show(len(places), 1.0)
      return projected_XD
    return encode_rows(
      functools.partial(encode_program, self._model, params),
      self.prepared.document_tokens(places),
      self.prepared.document_length,
      show,
    )

  def candidates(self, params) -> tuple[np.ndarray, np.ndarray]:
    """[N, W, L] identifiers a document could have, and [N, W] their costs."""
    documents_ND = self.documents(params)
    model, params = self._model, shares.gathered(params)
    if not processes.several():
      return candidate_codes(model, params, documents_ND)

    def make(numbers_X, show):
      codes_XWL, costs_XW = candidate_codes(
        model, params, documents_ND[numbers_X], numbers_X.astype(np.int32)
      )
      show(len(numbers_X), 1.0)
      return columns(codes=codes_XWL, costs=costs_XW)

    found = _met(
      make_shards(
        self._shards / 'candidates', make, len(documents_ND), _now(),
        unit='document',
      )
    )  # fmt: skip
    return found['codes'], found['costs']

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
    if not processes.several():
      return encode_texts(encode, read_tokens, count, longest)
    return _met(
      encode_shards(
        self._shards / name, encode, read_tokens, count, longest, _now()
      )
    )

  def remove_shards(self) -> None:
    """Frees the disk of vectors that nobody will ask for again."""
    processes.first(lambda: shutil.rmtree(self._shards, ignore_errors=True))


def _now() -> str:
  """Inputs of shards that no later process will go on with."""
  return str(time.time_ns())


def _met(paths: Sequence[pathlib.Path]) -> np.ndarray:
  """The rows of all shards, which nobody removes before all have read them."""
  rows = joined(paths)
  processes.meet()
  return rows
