"""All settings of a run, and how a run differs from its controls."""

import dataclasses
import pathlib

from gr_jax.data.loader import LoaderSettings
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.data.ranked_lists import ListSettings
from gr_jax.indexers.neural import NeuralConfig
from gr_jax.indexers.product import ProductConfig
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.indexers.sampling import SamplingConfig
from gr_jax.indexers.static import StaticConfig
from gr_jax.indexers.upkeep import UpkeepConfig
from gr_jax.models.bert import BertConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.objectives.distillation import DistillationSettings
from gr_jax.objectives.weighted_sum import (
  ObjectiveSettings,
  only,
)
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.schedule import Schedule
from gr_jax.settings import register
from gr_jax.training.mesh import MeshSettings
from gr_jax.training.optimizer import OptimizerSettings
from gr_jax.training.state import TrainingSettings
from gr_jax.types import UserError

# As data_dir: the documentation of Python itself, written into the run.
PYTHON_DOCS = 'python_docs'
# The same with an id of the ir_datasets package behind it.
IR_DATASETS = 'ir_datasets:'


@dataclasses.dataclass(frozen=True)
class RunSettings:
  """What a run is made of; RUN/settings.json holds it.

  Attributes:
    run_dir: folder of the run.
    data_dir: folder in the BEIR layout; or 'python_docs' or 'ir_datasets:ID'
      (as 'ir_datasets:beir/scifact'), which are written into cache_dir.
    cache_dir: folder of data/, prepared/ and vectors/, to share them between
      runs; empty for the run's own. The documentation of Python in it stays
      as it was written, whatever is installed later: what was trained on it
      would not fit another.
    encoder_weights: pretrained weights of the encoder (and of the decoder's
      stack where they have one): a folder, 'package:NAME', or
      'hub:ORG/NAME@REVISION'; 'run:FOLDER' for encoder and projection of
      another run with the same vocabulary, from its last checkpoint; empty to
      train from scratch.
    trained_run: folder of a run of the same collection and model, whose last
      checkpoint training begins with, identifiers included (but not the
      encoder, which is `encoder_weights`'); empty for none.
    seed: of parameters, order, noise and dropout.
    preparation: from texts to examples; its data_dir is set from this one's.
    loader: from examples to batches.
    lists: rankings that are trained on besides, a teacher's or of what the run
      finds.
    model: sizes and kinds.
    objective: weights of the criteria.
    teaching: how rankings are followed.
    training: how long, and how.
    mesh: how devices are arranged.
    search: how the index is searched.
  """

  run_dir: str
  data_dir: str = PYTHON_DOCS
  cache_dir: str = ''
  encoder_weights: str = ''
  trained_run: str = ''
  seed: int = 0
  preparation: PreparationSettings = PreparationSettings()
  loader: LoaderSettings = LoaderSettings()
  lists: ListSettings = ListSettings()
  model: RetrieverConfig = RetrieverConfig()
  objective: ObjectiveSettings = ObjectiveSettings()
  teaching: DistillationSettings = DistillationSettings()
  training: TrainingSettings = TrainingSettings()
  mesh: MeshSettings = MeshSettings()
  search: SearchSettings = SearchSettings()

  def __post_init__(self):
    self._check_criteria()
    self._check_beginning()
    dense_steps = self.training.first_steps['codes']
    if dense_steps and not self.objective.bottleneck:
      raise UserError(
        f'the first {dense_steps} steps train the bottleneck '
        'alone, and ObjectiveSettings.bottleneck is 0: set '
        'TrainingSettings.dense_fraction = 0, or a weight'
      )

  def _check_beginning(self):
    """Refuses stages that begin with what there is not."""
    first = self.training.first_steps
    if self.trained_run:
      if first['settled']:
        raise UserError(
          'RunSettings.trained_run has codes that have learned: set '
          'TrainingSettings.dense_fraction = 0.0 and settled_fraction = 1.0'
        )
    elif first['codes'] == first['settled']:
      raise UserError(
        'TrainingSettings.dense_fraction and settled_fraction must leave steps '
        f'for the codes, got {self.training.dense_fraction} and '
        f'{self.training.settled_fraction}; or name a RunSettings.trained_run'
      )
    elif not self.training.settled_rounds:
      raise UserError(
        'TrainingSettings.settled_rounds = 0 keeps the identifiers of a '
        'RunSettings.trained_run; name one, or set 1 or more'
      )
    if bool(self.objective.distillation) != self.lists.given:
      raise UserError(
        'ObjectiveSettings.distillation and ListSettings.path or '
        'refresh_every, the rankings that it is of, go together; got '
        f'{self.objective.distillation}, {self.lists.path!r} and '
        f'{self.lists.refresh_every}'
      )
    if self.lists.given and first['settled']:
      raise UserError(
        'documents of ListSettings are scored by the identifiers that they '
        'have: distil from a RunSettings.trained_run'
      )
    if self.lists.refresh_every and self.training.train_encoder:
      raise UserError(
        'ListSettings.refresh_every ranks by vectors of a frozen encoder: set '
        'it to 0, or TrainingSettings.train_encoder = False'
      )
    if self.teaching.dense_weight and self.training.train_encoder:
      raise UserError(
        'DistillationSettings.dense_weight reads vectors of a frozen encoder: '
        'set it to 0, or TrainingSettings.train_encoder = False'
      )

  def _check_criteria(self):
    """Refuses a weight on what the model does not put out."""
    model, objective = self.model, self.objective
    if model.reads_queries and isinstance(model.indexer, StaticConfig):
      raise UserError(
        'RetrieverConfig.reads_queries needs an indexer that learns: '
        f"'{model.indexer.kind}' identifiers say nothing of a query"
      )
    for name, needed in (
      ('agreement', 'reads_queries'),
      ('code_contrast', 'reads_queries'),
      ('reconstruction', 'reconstructs'),
    ):
      if getattr(objective, name) and not getattr(model, needed):
        raise UserError(
          f'ObjectiveSettings.{name} needs RetrieverConfig.{needed} = True, '
          'or a weight of 0'
        )


register(
  BertConfig,
  CodeDecoderConfig,
  DistillationSettings,
  ListSettings,
  LoaderSettings,
  MeshSettings,
  NeuralConfig,
  ObjectiveSettings,
  OptimizerSettings,
  PreparationSettings,
  ProductConfig,
  ResidualConfig,
  RetrieverConfig,
  RunSettings,
  SamplingConfig,
  Schedule,
  SearchSettings,
  StaticConfig,
  T5Config,
  TrainingSettings,
  UpkeepConfig,
)


def cache_dir(settings: RunSettings, run_dir: pathlib.Path) -> pathlib.Path:
  """The folder of data/, prepared/ and vectors/ of a run."""
  return pathlib.Path(settings.cache_dir) if settings.cache_dir else run_dir


def collection_arguments(
  settings: RunSettings, run_dir: pathlib.Path
) -> tuple[pathlib.Path, int]:
  """Folder and bad records allowed, as data.collection.Collection takes them.

  Args:
    settings: of the run.
    run_dir: where the run lies.
  """
  if settings.data_dir == PYTHON_DOCS:
    folder = cache_dir(settings, run_dir) / 'data' / PYTHON_DOCS
  elif settings.data_dir.startswith(IR_DATASETS):
    # One folder an id: ids nest ('vaswani', 'vaswani/train'), folders must not.
    name = settings.data_dir.removeprefix(IR_DATASETS).replace('/', '+')
    folder = cache_dir(settings, run_dir) / 'data' / name
  else:
    folder = pathlib.Path(settings.data_dir)
  return folder, settings.preparation.max_bad_records


def control(
  settings: RunSettings, name: str, run_dir: pathlib.Path
) -> RunSettings:
  """The same run with one thing changed, on the same prepared examples.

  Args:
    settings: of the run.
    name: 'random_ids' (codes drawn at random, their codewords learned from
      generation, vectors from the bottleneck; same model and budget, decoded
      by all that the decoder learned) or 'dense_only' (the encoder trained on
      InfoNCE alone, to the last step; documents stay where their texts are).
    run_dir: of the run, whose caches the control shares.

  Returns:
    The settings of the control.
  """
  # Nothing of a control stands still for a decoder to follow.
  training = dataclasses.replace(settings.training, settled_fraction=0.0)
  shared = dataclasses.replace(
    settings,
    cache_dir=str(cache_dir(settings, run_dir).absolute()),
    training=training,
  )
  if name == 'random_ids':
    indexer = StaticConfig(
      kind='random',
      positions=settings.model.positions,
      codes=settings.model.code_sizes,
    )
    # Codewords without meaning learn from generation alone, also where those
    # of the run do not; the criteria that tie vectors to their codewords would
    # only harm the vectors.
    decoder = dataclasses.replace(
      settings.model.decoder, normalised=True, correction=1.0
    )
    return dataclasses.replace(
      shared,
      model=dataclasses.replace(
        settings.model, indexer=indexer, decoder=decoder, indexer_gradient=1.0
      ),
      training=_with_rates(training, decoder_rate=1.0),
      objective=dataclasses.replace(
        only(settings.objective, 'bottleneck'),
        generation=settings.objective.generation or 1.0,
      ),
    )
  return dataclasses.replace(
    shared,
    model=dataclasses.replace(settings.model, ranks_moved=False),
    training=_with_rates(training, vector_rate=1.0),
    objective=only(settings.objective, 'bottleneck'),
  )


def _with_rates(training: TrainingSettings, **rates: float):
  """The same training with other factors of its optimizer."""
  return dataclasses.replace(
    training, optimizer=dataclasses.replace(training.optimizer, **rates)
  )
