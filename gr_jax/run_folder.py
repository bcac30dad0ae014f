"""What lies in a run folder besides checkpoints, and how it comes there."""

import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile

from gr_jax import entry, locks, processes, run_settings
from gr_jax.data.cloud_folders import fetch
from gr_jax.data.preparation_settings import WHERE, inputs_hash
from gr_jax.data.prepared import PreparedData, is_current
from gr_jax.settings import from_json, to_json
from gr_jax.training.manifests import FileDamaged, read_manifest
from gr_jax.types import UserError

SETTINGS = 'settings.json'
CHECKPOINTS = 'checkpoints'
INDEX = 'index'
# As encoder_weights: what another run trained.
_RUN = 'run:'
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
  if bound.get('lists', {}).get('refresh_every'):
    # What is trained on is found so.
    bound['renormalised'] = bound['search']['renormalised']
  for name in _FREE:
    # A model of texts is not searched.
    bound.pop(name, None)
  for name in _FREE_IN_TRAINING:
    del bound['training'][name]
  for name in WHERE:
    del bound['preparation'][name]
  named = settings.data_dir == run_settings.PYTHON_DOCS
  if not named and not settings.data_dir.startswith(run_settings.IR_DATASETS):
    bound['data_dir'] = str(pathlib.Path(settings.data_dir).resolve())
  return bound


def _check_data(settings, run_dir: pathlib.Path) -> None:
  """Refuses other data than a run's, before it is prepared for nothing."""
  hashes, preparation = _trained_upon(run_dir), _preparation(settings, run_dir)
  if not hashes or not pathlib.Path(preparation.data_dir).exists():
    return
  if hashes['examples'] != inputs_hash(preparation):
    raise UserError(
      f'{preparation.data_dir} has changed since {run_dir} was trained on it:'
      ' bring back the former, or choose another RUN_DIR'
    )


def _trained_upon(run_dir: pathlib.Path) -> dict[str, str]:
  """Hashes of what the last checkpoint depends on; {} where none is whole."""
  manifests = sorted((run_dir / CHECKPOINTS).glob('step_*/manifest.json'))
  try:
    return read_manifest(manifests[-1])['hashes'] if manifests else {}
  except FileDamaged:
    return {}  # Restoring names it, and what to do.


def _preparation(settings, run_dir: pathlib.Path):
  """The settings of preparation with the folder that it reads."""
  data_dir, _ = run_settings.collection_arguments(settings, run_dir)
  return dataclasses.replace(settings.preparation, data_dir=str(data_dir))


def prepared_from(run_dir: pathlib.Path, sources=None):
  """How the examples of a run were made.

  Args:
    run_dir: of the run.
    sources: those of interest, all of the run's by default.

  Returns:
    data.preparation_settings.PreparationSettings of these sources.
  """
  preparation = _preparation(read_settings(run_dir), run_dir)
  if unknown := set(sources or ()) - set(preparation.sources):
    raise UserError(
      f'{run_dir} has queries of {list(preparation.sources)}, none of '
      f'{sorted(unknown)}'
    )
  sources = tuple(sources or preparation.sources)
  pseudo = preparation.pseudo_queries if 'pseudo' in sources else ''
  return dataclasses.replace(
    preparation, sources=sources, pseudo_queries=pseudo
  )


def keep_settings(settings, run_dir: pathlib.Path, config_text: str) -> None:
  """Writes settings.json and config.gin.

  Args:
    settings: run_settings.RunSettings.
    run_dir: of the run.
    config_text: the gin configuration.
  """
  text = json.dumps(to_json(settings), indent=1) + '\n'

  def write():
    run_dir.mkdir(parents=True, exist_ok=True)
    for name, content in ((SETTINGS, text), ('config.gin', config_text)):
      partial = run_dir / f'{name}.partial'
      partial.write_text(content, encoding='utf-8')
      os.replace(partial, run_dir / name)

  processes.first(write)


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
  """Holds a run folder against another run that trains in it."""
  lock = locks.held(
    run_dir / '.lock', f'training {run_dir}', 'choose another RUN_DIR'
  )
  stack = contextlib.ExitStack()
  processes.first(lambda: stack.enter_context(lock))
  return stack


def prepared_examples(settings, run_dir: pathlib.Path) -> PreparedData:
  """The prepared examples of a run, made first if missing or stale.

  With PreparationSettings.prepared_at they are copied from there instead, by
  each of several processes: their CACHE_DIR need not be one.

  Args:
    settings: run_settings.RunSettings.
    run_dir: of the run; made only when something is written into it.

  Raises:
    UserError: for bad input; nothing is left behind then.
  """
  directory = run_settings.cache_dir(settings, run_dir) / 'prepared'
  if settings.preparation.prepared_at:
    _fetch_prepared(settings, run_dir, directory)
  else:
    processes.first(lambda: _make_current(settings, run_dir, directory))
  prepared = PreparedData(directory)
  if settings.preparation.prepared_at:
    # As many copies as hosts, perhaps.
    prepared.verify()
  else:
    processes.first(prepared.verify)
  pieces = prepared.vocabulary().size
  rows = settings.model.encoder.vocab_size
  # JAX reads past the end of a table without a word.
  if pieces > rows:
    raise UserError(
      f'the vocabulary has {pieces} entries, the encoder {rows} vectors: set '
      'vocab_size of its settings, or prepare with the vocabulary of the model'
    )
  _check_vocabulary(settings.encoder_weights, prepared)
  return prepared


def _check_vocabulary(source: str, prepared: PreparedData) -> None:
  """Refuses weights of a run that was trained with another vocabulary."""
  if not source.startswith(_RUN):
    return
  hashes = _trained_upon(pathlib.Path(source.removeprefix(_RUN)))
  vocabulary = prepared.vocabulary().sha256
  # Who reads the weights says when there are none.
  if hashes.get('vocabulary', vocabulary) != vocabulary:
    raise UserError(
      f'{source} was trained with another vocabulary than that of '
      f'{prepared.directory}: set PreparationSettings.vocabulary to the one in '
      'its prepared/vocabulary'
    )


def tell_missing(settings, prepared: PreparedData) -> None:
  """Says which sources are asked for and have no examples.

  Args:
    settings: run_settings.RunSettings.
    prepared: its examples.
  """
  for name, rate in settings.loader.rates.items():
    if rate and not len(prepared.sources.get(name, (None,))):
      processes.say(f'{name}: the collection has no such examples')


def _make_current(settings, run_dir, directory: pathlib.Path) -> None:
  """Prepares examples where they are missing or stale."""
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


def _fetch_prepared(settings, run_dir, directory: pathlib.Path) -> None:
  """Copies prepared examples from a bucket; refuses those of other texts."""
  url = settings.preparation.prepared_at
  with locks.full_disk_named(
    directory.parent, f'the copy of {url}', 'choose another CACHE_DIR'
  ):
    fetch(url, directory, processes.say)
  preparation = _preparation(settings, run_dir)
  there = pathlib.Path(preparation.data_dir).exists()
  if there and not is_current(preparation, directory):
    raise UserError(
      f'{url} was prepared from other texts or settings than those of '
      f'{preparation.data_dir} and this run: prepare and upload again, or '
      "set PreparationSettings.prepared_at = ''"
    )


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
