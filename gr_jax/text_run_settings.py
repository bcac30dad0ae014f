"""Settings of a run that trains a model of texts, as a query generator."""

import dataclasses
import math
from typing import Any

from gr_jax.data.loader import LoaderSettings
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.models.cross_encoder import CrossEncoderConfig
from gr_jax.models.query_generator import GeneratorConfig
from gr_jax.run_settings import PYTHON_DOCS
from gr_jax.settings import register
from gr_jax.training.mesh import MeshSettings
from gr_jax.training.text_step import TextTrainingSettings
from gr_jax.types import UserError, check_range


@dataclasses.dataclass(frozen=True)
class TextRunSettings:
  """What such a run is made of; RUN/settings.json holds it.

  The fields that it shares with RunSettings mean the same.

  Attributes:
    run_dir: folder of the run.
    data_dir: collection whose labelled queries are trained on.
    cache_dir: folder of data/ and prepared/; empty for the run's own.
    encoder_weights: pretrained weights, see models.import_weights; empty to
      train from scratch.
    seed: of parameters, order and dropout.
    preparation: from texts to examples.
    loader: from examples to batches; of a query generator, its batch_size
      counts documents, and its rates are not read: it learns from labelled
      queries alone.
    model: GeneratorConfig or CrossEncoderConfig.
    training: how long, and how.
    mesh: how devices are arranged.
  """

  run_dir: str
  data_dir: str = PYTHON_DOCS
  cache_dir: str = ''
  encoder_weights: str = ''
  seed: int = 0
  preparation: PreparationSettings = PreparationSettings(sources=('labelled',))
  loader: LoaderSettings = LoaderSettings(batch_size=32)
  model: Any = GeneratorConfig()
  training: TextTrainingSettings = TextTrainingSettings()
  mesh: MeshSettings = MeshSettings()

  def __post_init__(self):
    if not isinstance(self.model, GeneratorConfig | CrossEncoderConfig):
      raise UserError(
        'TextRunSettings.model is a GeneratorConfig or a CrossEncoderConfig, '
        f'got a {type(self.model).__name__}'
      )
    for settings in (self, self.loader):
      check_range(settings, {'seed': (0, math.inf)})


register(
  CrossEncoderConfig, GeneratorConfig, TextRunSettings, TextTrainingSettings
)
