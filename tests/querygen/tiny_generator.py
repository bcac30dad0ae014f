"""A query generator that is small enough to train in a test, and its data."""

import pathlib

import pytest
import tiny_collection
from tiny_texts import write_prepared, write_vocabulary

from gr_jax import generate_queries
from gr_jax.data.collection import Collection
from gr_jax.data.loader import LoaderSettings
from gr_jax.data.preparation_settings import (
  PreparationSettings,
)
from gr_jax.data.pseudo_queries import read_pseudo_queries
from gr_jax.models.bert import BertConfig
from gr_jax.models.query_generator import GeneratorConfig
from gr_jax.models.t5 import T5Config
from gr_jax.text_run_settings import TextRunSettings
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.training.optimizer import OptimizerSettings
from gr_jax.training.text_step import TextTrainingSettings
from gr_jax.types import document_text

GIN = pathlib.Path(__file__).parents[2] / 'gin' / 'querygen' / 'default.gin'
QUERY, DOCUMENT = 10, 20
START, END = 2, 3


def map_texts(documents):
  return [document_text(document) for document in documents]


def settings_of(folder, size, training):
  """Of a run in FOLDER/run with `size` tokens, trained as it is said."""
  encoder = BertConfig(
    vocab_size=size, emb_dim=24, num_heads=2, num_layers=1, mlp_dim=48,
    max_length=DOCUMENT, dropout_rate=0.0, initializer_stddev=0.3,
  )  # fmt: skip
  decoder = T5Config(
    vocab_size=size, emb_dim=24, num_heads=2, head_dim=12, num_encoder_layers=0,
    num_decoder_layers=1, mlp_dim=48, logits_via_embedding=True,
    # Draws of a resumed run are those of an uninterrupted one.
    dropout_rate=0.02,
  )  # fmt: skip
  return TextRunSettings(
    run_dir=str(folder / 'run'),
    data_dir=str(folder / 'data'),
    cache_dir=str(folder / 'cache'),
    preparation=PreparationSettings(
      vocabulary=str(folder / 'vocabulary' / 'tokenizer.json'),
      sources=('labelled',),
      query_length=QUERY,
      document_length=DOCUMENT,
    ),
    loader=LoaderSettings(batch_size=20, rates={'labelled': 1.0}),
    model=GeneratorConfig(
      encoder, decoder, pointer=True, train_encoder=True,
      queries_per_document=2, start=START, end=END,
    ),
    training=TextTrainingSettings(
      keep_checkpoints=9,
      optimizer=OptimizerSettings(learning_rate=0.01, vector_rate=1.0),
      **training,
    ),
  )  # fmt: skip


def restored(run_dir):
  """Parameters of the last checkpoint of a run."""
  checkpoints = Checkpoints(run_dir / 'checkpoints')
  try:
    return checkpoints.restore_params(checkpoints.latest())
  finally:
    checkpoints.close()


def begun(folder, **training):
  """Writes the data of a run that was not trained yet.

  Args:
    folder: of data, vocabulary and prepared examples.
    **training: fields of TextTrainingSettings.

  Returns:
    Its settings.
  """
  tiny_collection.write_collection(folder / 'data')
  size = write_vocabulary(folder / 'vocabulary')
  settings = settings_of(folder, size, training)
  write_prepared(folder / 'cache' / 'prepared', settings)
  return settings


def generated(folder, output, *more, held_out='()'):
  """What the door of pseudo-queries writes of a run.

  Args:
    folder: of `begun`, with a run.
    output: folder of the queries.
    *more: arguments.
    held_out: splits whose queries may not come up.

  Returns:
    [(document, query)].
  """
  door = [
    f'--gin_file={GIN}',
    f'--gin.DATA_DIR={folder / "data"}',
    f'--gin.OUTPUT={output}',
    f'--gin.GENERATOR={folder / "run"}',
    '--gin.QueryGenerationSettings.sources=(@GeneratorSource(),)',
    '--gin.QueryGenerationSettings.documents_per_shard=16',
    '--gin.SamplingSettings.queries=4',
    '--gin.SamplingSettings.max_tokens=10',
    # What was learned is what test asks.
    f'--gin.LeakSettings.splits={held_out}',
    *more,
  ]
  assert generate_queries.main(door) == 0
  ids = Collection(folder / 'data').document_index()
  return list(read_pseudo_queries(output, ids, pytest.fail))


def contents(output):
  """Every byte of a folder of pseudo-queries, by file."""
  return {path.name: path.read_bytes() for path in output.iterdir()}
