"""What lies in a run folder besides checkpoints, and how it comes there."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile

import jax
import numpy as np

from gr_jax import entry, locks, run_settings
from gr_jax.data.loader_checks import used_rates
from gr_jax.data.preparation_settings import inputs_hash
from gr_jax.data.prepared import PreparedData, is_current
from gr_jax.retrieval.encoding import (
  candidate_codes,
  document_vectors,
  encode_texts,
  project_vectors,
)
from gr_jax.retrieval.frozen_vectors import FrozenVectors, frozen_vectors
from gr_jax.retrieval.hard_negatives import mined_negatives
from gr_jax.retrieval.program import encode_program
from gr_jax.settings import from_json, to_json
from gr_jax.training.manifests import FileDamaged, read_manifest
from gr_jax.types import UserError

SETTINGS = 'settings.json'
CHECKPOINTS = 'checkpoints'
INDEX = 'index'
# May change between a run and its continuation: where things lie, on how many
# devices it goes on, how its checkpoints are searched.
_FREE = ('run_dir', 'cache_dir', 'mesh', 'search')
# The same of 'training': what is written, and when.
_FREE_IN_TRAINING = (
  'log_every',
  'evaluate_every',
  'checkpoint_every',
  'keep_checkpoints',
)


def read_settings(run_dir: pathlib.Path) -> run_settings.RunSettings:
  """The settings of a run that was started."""
  path = run_dir / SETTINGS
  if not path.is_file():
    raise UserError(
      f'{run_dir} should be the folder of a run, it has no {SETTINGS}: train '
      'it with python -m gr_jax.train'
    )
  try:
    data = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(f'{path} should be JSON: {error}') from error
  return from_json(data, str(path))


def check_settings(settings, run_dir: pathlib.Path) -> None:
  """Refuses a run folder that cannot be, or that was trained otherwise.

  Only checkpoints bind: until there is one, settings and data may change.

  Args:
    settings: run_settings.RunSettings.
    run_dir: of the run.
  """
  place = next(p for p in (run_dir, *run_dir.parents) if p.exists())
  if not place.is_dir() or not os.access(place, os.W_OK):
    what = 'may not be written to' if place.is_dir() else 'is a file'
    raise UserError(
      f'{run_dir} should be a folder for the run, {place} {what}: choose '
      'another RUN_DIR'
    )
  if not any((run_dir / CHECKPOINTS).glob('step_*')):
    return
  new, old = _binding(settings), _binding(read_settings(run_dir))
  for name in new:
    if old[name] != new[name]:
      raise UserError(
        f'{run_dir} was trained with another {name} '
        f'({_difference(old[name], new[name])}): go on with the former, or '
        'choose another RUN_DIR'
      )
  _check_data(settings, run_dir)


def _binding(settings) -> dict:
  """The settings that a run's checkpoints bind, as JSON data."""
  bound = to_json(settings)
  for name in _FREE:
    del bound[name]
  for name in _FREE_IN_TRAINING:
    del bound['training'][name]
  named = settings.data_dir == run_settings.PYTHON_DOCS
  if not named and not settings.data_dir.startswith(run_settings.IR_DATASETS):
    bound['data_dir'] = str(pathlib.Path(settings.data_dir).resolve())
  return bound


def _check_data(settings, run_dir: pathlib.Path) -> None:
  """Refuses other data than a run's, before it is prepared for nothing."""
  manifests = sorted((run_dir / CHECKPOINTS).glob('step_*/manifest.json'))
  preparation = _preparation(settings, run_dir)
  if not manifests or not pathlib.Path(preparation.data_dir).exists():
    return
  try:
    hashes = read_manifest(manifests[-1])['hashes']
  except FileDamaged:
    return  # Restoring names it, and what to do.
  if hashes['examples'] != inputs_hash(preparation):
    raise UserError(
      f'{preparation.data_dir} has changed since {run_dir} was trained on it:'
      ' bring back the former, or choose another RUN_DIR'
    )


def _preparation(settings, run_dir: pathlib.Path):
  """The settings of preparation with the folder that it reads."""
  data_dir, _ = run_settings.collection_arguments(settings, run_dir)
  return dataclasses.replace(settings.preparation, data_dir=str(data_dir))


def keep_settings(settings, run_dir: pathlib.Path, config_text: str) -> None:
  """Writes settings.json and config.gin.

  Args:
    settings: run_settings.RunSettings.
    run_dir: of the run.
    config_text: the gin configuration.
  """
  run_dir.mkdir(parents=True, exist_ok=True)
  text = json.dumps(to_json(settings), indent=1) + '\n'
  for name, content in ((SETTINGS, text), ('config.gin', config_text)):
    partial = run_dir / f'{name}.partial'
    partial.write_text(content, encoding='utf-8')
    os.replace(partial, run_dir / name)


def _difference(old, new) -> str:
  """'steps was 600, is 1200' for the first setting that differs."""
  if isinstance(old, dict) and isinstance(new, dict):
    for name in {**old, **new}:
      if old.get(name) != new.get(name):
        inner = _difference(old.get(name), new.get(name))
        nested = isinstance(old.get(name), dict)
        return inner if nested else f'{name} {inner}'
  return f'was {old!r}, is {new!r}'


def held(run_dir: pathlib.Path) -> contextlib.AbstractContextManager[None]:
  """Holds a run folder against a second process that trains in it."""
  lock = run_dir / '.lock'
  return locks.held(lock, f'training {run_dir}', 'choose another RUN_DIR')


def prepared_examples(settings, run_dir: pathlib.Path) -> PreparedData:
  """The prepared examples of a run, made first if missing or stale.

  Args:
    settings: run_settings.RunSettings.
    run_dir: of the run; made only when something is written into it.

  Raises:
    UserError: for bad input; nothing is left behind then.
  """
  directory = run_settings.cache_dir(settings, run_dir) / 'prepared'
  data_dir, _ = run_settings.collection_arguments(settings, run_dir)
  named = settings.data_dir == run_settings.PYTHON_DOCS or (
    settings.data_dir.startswith(run_settings.IR_DATASETS)
  )
  write = named and not data_dir.exists()
  if write or not is_current(_preparation(settings, run_dir), directory):
    with locks.held(
      directory.with_name('.prepared.lock'),
      f'preparing the examples of {run_dir}',
      'choose another CACHE_DIR',
    ):
      _prepare(settings, run_dir, directory, write)
  prepared = PreparedData(directory)
  prepared.verify()
  pieces = prepared.vocabulary().size
  rows = settings.model.encoder.vocab_size
  # JAX reads past the end of a table without a word.
  if pieces > rows:
    raise UserError(
      f'the vocabulary has {pieces} entries, the encoder {rows} vectors: set '
      'vocab_size of its settings, or prepare with the vocabulary of the model'
    )
  return prepared


def _prepare(settings, run_dir, directory: pathlib.Path, write: bool) -> None:
  """Prepares examples, of a collection that is written first if `write`."""
  preparation = _preparation(settings, run_dir)
  data_dir, collection = preparation.data_dir, ''
  if write and settings.data_dir == run_settings.PYTHON_DOCS:
    from gr_jax.data.python_docs import write_python_docs

    print(f'writing the documentation of Python to {data_dir}', flush=True)
    write_python_docs(data_dir)
    if is_current(preparation, directory):
      return
  elif write:
    collection = settings.data_dir
  print(f'preparing the examples of {collection or data_dir}', flush=True)
  _prepare_apart(preparation, directory, collection)


def _prepare_apart(preparation, directory: pathlib.Path, collection) -> None:
  """Prepares in a process of its own: TensorFlow never enters this one."""
  with tempfile.TemporaryDirectory(prefix='gr_jax_') as scratch:
    request = pathlib.Path(scratch) / 'preparation.json'
    request.write_text(json.dumps(to_json(preparation)), encoding='utf-8')
    arguments = [f'--settings={request}', f'--output={directory}']
    if collection:
      name = collection.removeprefix(run_settings.IR_DATASETS)
      arguments.append(f'--ir_datasets={name}')
    entry.run_apart('gr_jax.prepare', arguments)


def _report(line: str) -> None:
  print(line, flush=True)


class Texts:
  """The texts of a run as vectors, whether the encoder is frozen or trains.

  Attributes:
    prepared: the examples.
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
    self.prepared = prepared
    self.frozen: FrozenVectors | None = None
    self._model = model
    self._settings = settings
    self._directory = run_settings.cache_dir(settings, run_dir) / 'vectors'
    self._hashes = hashes
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
    return mined_negatives(self._directory, vectors, self.prepared, _report)

  def _pooled(self, params) -> FrozenVectors:
    """What the encoder, as it is now, pools of all texts."""
    # The same weights under another configuration give other vectors.
    settings, model = self._settings, self._model
    inputs = {
      **self._hashes,
      'encoder': to_json(settings.model.encoder),
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
    return frozen_vectors(
      self._directory,
      lambda tokens_BS: backbone(params['encoder'], tokens_BS),
      self.prepared,
      self._sources,
      hashlib.sha256(fingerprint).hexdigest(),
      _report,
    )

  def documents(self, params) -> np.ndarray:
    """[N, D] unit vectors of the documents."""
    if self.frozen is not None:
      return project_vectors(self._model, params, self.frozen.documents)
    return document_vectors(
      self._model,
      params,
      self.prepared.document_tokens,
      len(self.prepared.document_ids),
      self.prepared.document_length,
    )

  def candidates(self, params) -> tuple[np.ndarray, np.ndarray]:
    """[N, W, L] identifiers a document could have, and [N, W] their costs."""
    return candidate_codes(self._model, params, self.documents(params))

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
      return project_vectors(self._model, params, self.frozen.queries[name])
    source = self.prepared.sources[name]
    return encode_texts(
      lambda tokens_BS: encode_program(self._model, params, tokens_BS),
      source.query_tokens,
      len(source),
      self.prepared.query_length,
    )
