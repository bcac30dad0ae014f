"""The training step of T5X on its own T5, with its trainer and partitioner.

Needs checkouts of google-research/t5x, google/airio and
google-research/jestimator on the path, and the packages cached-property and
fiddle; it is run, not changed.
"""

import itertools
import time
from collections.abc import Iterable
from typing import Any

import flax
import jax
import numpy as np
import seqio
import text_training
from t5x import models, optimizers, partitioning, trainer, utils
from t5x.examples.t5 import network

from gr_jax.models.t5 import T5Config

# The names of our activations in flax.
_ACTIVATIONS = {'gelu_new': 'gelu'}


class T5xTraining:
  """A T5 of T5X that trains on texts.

  Attributes:
    compile_seconds: of its step, traced and compiled.
    compiled: the step.
  """

  def __init__(self, config: T5Config, optimizer, batches: list[dict]):
    """Draws the parameters and compiles the step, as its launcher does.

    Args:
      config: sizes, without dropout.
      optimizer: optax transformation.
      batches: what it will be given; they are put on the device here, so that
        no turn pays for that.
    """
    definition = optimizers.OptaxWrapper(optimizer)
    vocabulary = seqio.PassThroughVocabulary(config.vocab_size, eos_id=1)
    self.model = models.EncoderDecoderModel(
      network.Transformer(_network(config)),
      vocabulary,
      vocabulary,
      definition,
      z_loss=text_training.Z_WEIGHT,
      # As ours: the mean over tokens. Its default is the sum.
      loss_normalizing_factor='NUM_REAL_TARGET_TOKENS',
    )
    partitioner = partitioning.PjitPartitioner(
      model_parallel_submesh=(1, 1, 1, 1)
    )
    initializer = utils.TrainStateInitializer(
      optimizer_def=definition,
      init_fn=self.model.get_initial_variables,
      input_shapes={name: x.shape for name, x in batches[0].items()},
      input_types={name: x.dtype for name, x in batches[0].items()},
      partitioner=partitioner,
    )
    self._trainer = trainer.Trainer(
      model=self.model,
      train_state=initializer.from_scratch(jax.random.PRNGKey(0)),
      partitioner=partitioner,
      eval_names=[],
      summary_dir=None,
      train_state_axes=initializer.train_state_axes,
      rng=jax.random.PRNGKey(1),
      # Not read: the optimizer brings its own.
      learning_rate_fn=utils.create_learning_rate_scheduler(),
      num_microbatches=None,
    )
    placed = jax.sharding.NamedSharding(
      partitioner.mesh, partitioner.data_partition_spec
    )
    self._batches = [jax.device_put(batch, placed) for batch in batches]
    start = time.perf_counter()
    self._trainer.compile_train(self._batches[0])
    self.compile_seconds = time.perf_counter() - start
    self.compiled = self._trainer._compiled_train_step

  def loss(self, params: Any, batch: dict[str, np.ndarray]) -> float:
    """Its loss of a batch with parameters of ours, whose names are its own."""
    evaluate = jax.jit(self.model.loss_fn)
    params = flax.core.freeze(params)
    return float(evaluate(params, batch, jax.random.PRNGKey(2))[0])

  def run(self, steps: int) -> Iterable[Any]:
    """Trains as its launcher does between two summaries."""
    summary = self._trainer.train(itertools.cycle(self._batches), steps)
    jax.block_until_ready(self._trainer.train_state)
    return summary.result()

  def close(self) -> None:
    """Ends its threads."""
    self._trainer.close()


def _network(config: T5Config) -> network.T5Config:
  """The same sizes for its own model."""
  return network.T5Config(
    vocab_size=config.vocab_size,
    dtype=config.dtype,
    emb_dim=config.emb_dim,
    num_heads=config.num_heads,
    num_encoder_layers=config.num_encoder_layers,
    num_decoder_layers=config.num_decoder_layers,
    head_dim=config.head_dim,
    mlp_dim=config.mlp_dim,
    mlp_activations=[
      _ACTIVATIONS.get(name, name) for name in config.mlp_activations
    ],
    dropout_rate=config.dropout_rate,
    logits_via_embedding=config.logits_via_embedding,
  )
