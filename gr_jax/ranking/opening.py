"""Opens models that rank: of a run folder, or published ones."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from gr_jax import processes
from gr_jax.data.vocabularies import Vocabulary, load_vocabulary
from gr_jax.models import weight_files
from gr_jax.models.cross_encoder import CrossEncoder, CrossEncoderConfig
from gr_jax.models.import_weights import import_cross_encoder
from gr_jax.ranking.ranker import Ranker
from gr_jax.retrieval.opening import register_with_fields
from gr_jax.settings import CLASS_KEY, from_json
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.training.run_weights import params_sha256
from gr_jax.types import UserError

_SETTINGS = 'settings.json'
# Tokens of a query where published weights say nothing of it.
_QUERY_LENGTH = 64


@dataclasses.dataclass(frozen=True)
class TrainedModel:
  """What a run has trained, with all that it needs to read texts.

  Attributes:
    config: of the model, of the class that was asked for.
    params: of the last checkpoint.
    vocabulary: that made the training's tokens.
    query_length: tokens of a query at most.
    document_length: tokens of a document at most.
    control_field: PreparationSettings.control_field of its queries.
    sha256: of the parameters.
  """

  config: Any
  params: Mapping[str, Any]
  vocabulary: Vocabulary
  query_length: int
  document_length: int
  control_field: str
  sha256: str


def load_ranker(path: str | pathlib.Path) -> Ranker:
  """Opens a cross-encoder.

  Args:
    path: the folder of a run of train_text; or a folder as Hugging Face has
      it, with config.json, safetensors of a BertForSequenceClassification of
      one label, and tokenizer.json.

  Raises:
    UserError: for what is neither, or another model.
  """
  folder = pathlib.Path(path).expanduser()
  if (folder / _SETTINGS).is_file():
    run = open_run(folder, CrossEncoderConfig)
    return Ranker(
      CrossEncoder(run.config),
      run.params,
      run.vocabulary,
      run.sha256,
      run.query_length,
      run.document_length,
    )
  if folder.is_dir() and not (folder / 'config.json').is_file():
    raise UserError(
      f'{folder} should be the folder of a run of train_text (with '
      f'{_SETTINGS}) or of published weights (with config.json), it has neither'
    )
  weights = weight_files.locate(str(path))
  config, params, provenance = import_cross_encoder(str(path))
  vocabulary = load_vocabulary(weights)
  check_vocabulary(vocabulary, config.encoder.vocab_size, str(path))
  return Ranker(
    CrossEncoder(config),
    params,
    vocabulary,
    provenance.sha256,
    _QUERY_LENGTH,
    config.length,
  )


def check_vocabulary(vocabulary: Vocabulary, rows: int, source: str) -> None:
  """Refuses a vocabulary with more entries than the model has vectors."""
  if vocabulary.size > rows:
    raise UserError(
      f'{source} has {rows} token vectors, its vocabulary {vocabulary.size} '
      'entries: it is of another model'
    )


def open_run(run_dir: pathlib.Path, kind: type) -> TrainedModel:
  """Opens the last checkpoint of a run.

  Args:
    run_dir: of the run.
    kind: the class of its settings' `model`.

  Raises:
    UserError: for a run of another kind, one without a checkpoint, or one
      whose prepared examples have gone or changed.
  """
  place = run_dir / _SETTINGS
  try:
    saved = json.loads(place.read_text(encoding='utf-8'))
    model, preparation = saved['model'], saved['preparation']
    cache_dir = pathlib.Path(saved['cache_dir'] or run_dir)
    lengths = preparation['query_length'], preparation['document_length']
    # Runs of earlier versions say nothing of it.
    field = preparation.get('control_field', '')
  except FileNotFoundError as error:
    raise UserError(
      f'{run_dir} should be the folder of a run, it has no {_SETTINGS}'
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f'{place} should be the settings of a run: {error}') from (
      error
    )
  name = model.get(CLASS_KEY) if isinstance(model, dict) else model
  if name != kind.__name__:
    raise UserError(
      f'{run_dir} should be a run that trained a {kind.__name__}, its model '
      f'is {name!r}'
    )
  register_with_fields(kind)
  config = from_json(model, str(place))
  params, hashes = _last_checkpoint(run_dir)
  vocabulary = load_vocabulary(cache_dir / 'prepared' / 'vocabulary')
  if vocabulary.sha256 != hashes.get('vocabulary'):
    raise UserError(
      f'{run_dir} was trained with another vocabulary than that in '
      f'{cache_dir / "prepared"}: bring back the former'
    )
  return TrainedModel(
    config, params, vocabulary, *lengths, field, params_sha256(params)
  )


def _last_checkpoint(run_dir: pathlib.Path) -> tuple[dict, dict]:
  """Parameters, and hashes of what they depend on."""
  checkpoints = Checkpoints(run_dir / 'checkpoints')
  try:
    step = processes.first(checkpoints.latest)
    if step is None:
      raise UserError(
        f'{checkpoints.directory} holds no checkpoint: train the run first'
      )
    manifest = processes.first(lambda: checkpoints.verify(step))
    return checkpoints.restore_params(step), manifest['hashes']
  finally:
    checkpoints.close()
