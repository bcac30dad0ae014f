"""A trained query generator: documents in, queries out."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gr_jax.models.query_generator import (
  GeneratorConfig,
  QueryGenerator,
  example_batch,
)
from gr_jax.querygen.sampling import SamplingSettings, draw
from gr_jax.ranking.opening import open_run
from gr_jax.retrieval.encoding import padded_lengths
from gr_jax.training.mesh import (
  BATCH,
  MeshSettings,
  active,
  make_mesh,
  put,
  shardings_for,
)
from gr_jax.types import Document, UserError, document_text

# Documents of a call that a device has, or those that share its rows.
_BATCH = 16


class GeneratedQuery(NamedTuple):
  """A query, and how likely the generator finds it.

  Attributes:
    text: of the query.
    log_probability: of all its tokens, in nats.
  """

  text: str
  log_probability: float


class Generator:
  """Writes queries of documents.

  Attributes:
    sha256: of the parameters.
    batch_size: B, documents that one call of the program takes.
  """

  def __init__(
    self, model, params, vocabulary, document_length, sha256, mesh=None
  ):
    """Takes a model, whose parameters lie where those of training do.

    Args:
      model: models.query_generator.QueryGenerator.
      params: of the model.
      vocabulary: data.vocabularies.Vocabulary that it was trained with.
      document_length: tokens of a document that are read at most.
      sha256: of the parameters.
      mesh: of devices of this process, which share documents along data and
        fsdp and parameters along model and fsdp; one device when None.

    Raises:
      UserError: the model has modules of which there are no parameters.
    """
    self._model = model
    self._mesh = mesh or make_mesh(MeshSettings(), jax.local_devices()[:1])
    shapes = jax.eval_shape(
      lambda key: model.init(key, example_batch(), True, method='loss'),
      jax.random.key(0),
    )
    if missing := sorted(shapes['params'].keys() - params.keys()):
      raise UserError(
        f'the generator was trained without {" and ".join(missing)}, as by an '
        'earlier version: train it again, or write the setting that leaves '
        "them out into 'model' of its settings.json"
      )
    places = shardings_for(self._mesh, shapes['params_axes'], params)
    self._params = jax.tree.map(put, params, places)
    self._vocabulary = vocabulary
    self._length = document_length
    self.sha256 = sha256
    parts = self._mesh.shape['data'] * self._mesh.shape['fsdp']
    self.batch_size = _BATCH * parts

  def generate(
    self,
    documents: Sequence[Document],
    settings: SamplingSettings,
    seed: int,
    prefix: str = '',
  ) -> list[list[GeneratedQuery]]:
    """Queries of documents, in their order.

    The same documents in one call give the same queries again. What a document
    is given depends on its id; on those beside it and on the mesh only as far
    as a row of a product is rounded differently.

    Args:
      documents: the documents.
      settings: how queries are drawn.
      seed: of all documents.
      prefix: text that every query begins with and that is left out again.

    Returns:
      SamplingSettings.queries of each document; fewer where some are empty.
    """
    tokens = self._vocabulary.encode_batch(
      [document_text(document) for document in documents], self._length
    )
    lengths = padded_lengths(self._length)
    buckets = np.searchsorted(lengths, [len(ids) for ids in tokens])
    forced = self._forced(prefix)
    found: list = [[] for _ in documents]
    for bucket in np.unique(buckets):
      members = np.flatnonzero(buckets == bucket)
      for start in range(0, len(members), self.batch_size):
        chosen = members[start : start + self.batch_size]
        # An incomplete batch repeats its documents.
        filled = np.resize(chosen, self.batch_size)
        batch_BS = np.zeros((self.batch_size, lengths[bucket]), np.int32)
        for row, member in enumerate(filled):
          batch_BS[row, : len(tokens[member])] = tokens[member]
        names = [documents[member].id for member in filled]
        keys_B = document_keys(names, seed)
        queries, log_probs = self._drawn(batch_BS, keys_B, settings, forced)
        for row, member in enumerate(chosen):
          found[member] = self._texts(
            queries[row, :, len(forced) :], log_probs[row]
          )
    return found

  def _drawn(self, batch_BS, keys_B, settings, forced):
    """What `draw` gives on the devices of the mesh, as numpy arrays."""
    rows = NamedSharding(self._mesh, PartitionSpec(BATCH))
    with active(self._mesh):
      return jax.device_get(
        draw(
          self._model,
          self._params,
          *jax.device_put((batch_BS, keys_B), rows),
          settings,
          forced,
          # It says nothing, and texts leave it out.
          (self._vocabulary.unk_id,),
        )
      )

  def _forced(self, prefix: str) -> tuple[int, ...]:
    """Tokens of a prefix without what marks beginning and end."""
    if not prefix:
      return ()
    config = self._model.config
    ids = self._vocabulary.encode(prefix, self._length)
    return tuple(i for i in ids if i not in (config.start, config.end))

  def _texts(self, tokens_WL, log_probs_W) -> list[GeneratedQuery]:
    texts = [
      self._vocabulary.decode(row[row > 0].tolist()).strip()
      for row in tokens_WL
    ]
    return [
      GeneratedQuery(text, float(log_prob))
      for text, log_prob in zip(texts, log_probs_W, strict=True)
      if text
    ]


def document_keys(names: Sequence[str], seed: int) -> jax.Array:
  """[B] random keys of documents, by their ids.

  Args:
    names: ids of documents.
    seed: of all documents.
  """
  hashes = [
    int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest())
    for name in names
  ]
  key = jax.random.key(seed)
  return jax.vmap(jax.random.fold_in, (None, 0))(
    key, jnp.asarray(hashes, jnp.uint32)
  )


def load_generator(
  run_dir: str | pathlib.Path,
  mesh: Mesh | None = None,
  query_language: str = '',
) -> Generator:
  """Opens the generator that a run of train_text has trained.

  Args:
    run_dir: of the run.
    mesh: of devices of this process; one device when None.
    query_language: that it will be asked for, '' for none.

  Raises:
    UserError: it is none, or has no checkpoint; a language is given and its
      queries began with none, or the reverse.
  """
  run = open_run(pathlib.Path(run_dir), GeneratorConfig)
  _check_language(run_dir, run.control_field, query_language)
  return Generator(
    QueryGenerator(run.config),
    run.params,
    run.vocabulary,
    run.document_length,
    run.sha256,
    mesh,
  )


def _check_language(run_dir, field: str, language: str) -> None:
  """Refuses to ask for what queries did not begin with, or for nothing."""
  if language and not field:
    raise UserError(
      f'GeneratorSource.query_language is {language!r}, and {run_dir} was '
      'trained without a PreparationSettings.control_field: leave it out, or '
      'train a generator with one'
    )
  if field and not language:
    raise UserError(
      f'{run_dir} was trained with PreparationSettings.control_field = '
      f'{field!r}, and would write its values into the queries: set '
      'GeneratorSource.query_language to one of them'
    )
