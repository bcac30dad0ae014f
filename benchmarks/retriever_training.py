"""Our retriever's training step with its loader, on examples made up here."""

import dataclasses
import json
import pathlib

import jax
import numpy as np

from gr_jax.checksums import file_sha256
from gr_jax.data import loader, prepared, shard_files
from gr_jax.data.preparation_settings import FORMAT
from gr_jax.models.retriever import Retriever
from gr_jax.retrieval.frozen_vectors import FrozenVectors
from gr_jax.run_settings import RunSettings
from gr_jax.training import initial, shares, stages
from gr_jax.training.mesh import active
from gr_jax.training.step import make_step
from gr_jax.training.window import Window, make_record

_DOCUMENTS = 1024
_EXAMPLES = 4096


def write_examples(
  folder: pathlib.Path, settings: RunSettings
) -> prepared.PreparedData:
  """Prepared examples of random tokens, as long as the settings allow.

  Args:
    folder: empty.
    settings: of the run that reads them.
  """
  rng = np.random.default_rng(0)
  shape = settings.preparation
  rows = settings.model.encoder.vocab_size

  def tokens(count, length):
    return rng.integers(2, rows, (count, length), dtype=np.int32)

  (folder / prepared.DOCUMENT_IDS).write_text(
    ''.join(f'd{number}\n' for number in range(_DOCUMENTS))
  )
  texts = tokens(_DOCUMENTS, shape.document_length)
  shard_files.write_shard(
    folder / 'documents', map(shard_files.encode_tokens, texts)
  )
  sources = {}
  for name in settings.loader.rates:
    owners = rng.integers(0, _DOCUMENTS, _EXAMPLES).astype(np.int32)
    np.save(folder / prepared.document_indices_file(name), owners)
    queries = tokens(_EXAMPLES, shape.query_length)
    shard_files.write_shard(
      folder / f'examples-{name}',
      (
        shard_files.encode_example(shard_files.Example(query, int(owner), 'q'))
        for query, owner in zip(queries, owners, strict=True)
      ),
    )
    sources[name] = {'count': _EXAMPLES, 'shards': [f'examples-{name}']}
  files = {
    file.name: {'bytes': file.stat().st_size, 'sha256': file_sha256(file)}
    for file in folder.iterdir()
  }
  manifest = {
    'format': FORMAT,
    'settings': {
      'query_length': shape.query_length,
      'document_length': shape.document_length,
    },
    'documents': {'count': _DOCUMENTS, 'shards': ['documents']},
    'sources': sources,
    'files': files,
  }
  (folder / prepared.MANIFEST).write_text(json.dumps(manifest))
  return prepared.PreparedData(folder)


class RetrieverTraining:
  """A retriever that trains, in the stage in which its codes move.

  Attributes:
    step: (state, batch) -> (state, metrics), jitted; donates its state.
    state: where training stands.
    placed: one batch on the device.
  """

  def __init__(
    self, settings: RunSettings, folder: pathlib.Path, mesh: jax.sharding.Mesh
  ):
    """Draws the parameters and opens the loader.

    Args:
      settings: of the run.
      folder: empty, for the examples.
      mesh: of the devices.
    """
    training = settings.training
    self._mesh = mesh
    model = Retriever(settings.model)
    optimizers = stages.stage_optimizers(training)
    drawn = dataclasses.replace(settings, encoder_weights='')
    with active(mesh):
      state, _, _ = initial.first_state(
        drawn, model, _DOCUMENTS, optimizers['codes'], mesh
      )
    first = training.first_steps['codes']
    self.state = state.replace(step=state.step + first)
    # As training/stages.py has it, without its line on memory.
    self.step = make_step(
      model,
      optimizer=optimizers['codes'],
      settings=training,
      objective_settings=stages.stage_objective(settings.objective, 'codes'),
      upkeep=settings.model.upkeep,
      seed=settings.seed,
    )
    examples = write_examples(folder, settings)
    vectors = None if training.train_encoder else _vectors(settings)
    size = settings.loader.batch_size
    self._put = shares.putter(mesh, size)
    self._batches, self._alone = (
      loader.batches(
        examples,
        dataclasses.replace(settings.loader, hard_negatives=0, prefetch=ahead),
        shares.rows_of(mesh, size),
        vectors,
      )
      for ahead in (settings.loader.prefetch, 0)
    )
    self._window = Window(make_record(folder, examples), size)
    self.placed = self._put(next(self._alone))

  def run(self, steps: int) -> dict[str, float]:
    """Trains as `loop.train_loop` does, to the log line."""
    window = self._window
    with active(self._mesh):
      for _ in range(steps):
        batch = next(self._batches)
        self.state, metrics = self.step(self.state, self._put(batch))
        window.add(metrics, batch)
    values = window.close(int(self.state.step))
    jax.block_until_ready(self.state)
    return values

  def run_placed(self, steps: int) -> None:
    """The steps alone, on a batch that lies on the device."""
    with active(self._mesh):
      for _ in range(steps):
        self.state, _ = self.step(self.state, self.placed)
    jax.block_until_ready(self.state)

  def load(self, steps: int) -> None:
    """The batches alone, made while they are waited for and put there."""
    for _ in range(steps):
      jax.block_until_ready(self._put(next(self._alone)))


def _vectors(settings: RunSettings) -> FrozenVectors:
  """Random vectors in place of a frozen encoder's."""
  rng = np.random.default_rng(1)
  width = settings.model.encoder.emb_dim

  def draw(rows):
    return rng.standard_normal((rows, width), np.float32)

  return FrozenVectors(
    draw(_DOCUMENTS), {name: draw(_EXAMPLES) for name in settings.loader.rates}
  )
