"""What a step takes of memory: told once, donated, less with chunks."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import pytest
from test_step import MODEL, SETTINGS, batch, start, stepper

from gr_jax.models.cached_gradients import caching
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import Retriever
from gr_jax.models.t5 import T5Config
from gr_jax.objectives.weighted_sum import ObjectiveSettings, only
from gr_jax.training import memory
from gr_jax.training.initial import init_params, make_state
from gr_jax.training.optimizer import make_optimizer
from gr_jax.training.step import make_step

T5 = T5Config(
  vocab_size=64,
  emb_dim=32,
  num_heads=2,
  head_dim=16,
  num_encoder_layers=2,
  num_decoder_layers=1,
  mlp_dim=64,
)


def model_of(encoder):
  stack = dataclasses.replace(T5, dtype=encoder.dtype)
  decoder = CodeDecoderConfig(stack=stack)
  config = dataclasses.replace(
    MODEL.config, encoder=encoder, decoder=decoder, width=32
  )
  return Retriever(config)


def shapes(model, rows=64):
  """A step that trains the encoder by its vectors, and its arguments."""
  optimizer = make_optimizer(SETTINGS.optimizer, SETTINGS.steps)
  settings = dataclasses.replace(SETTINGS, train_encoder=True)
  step = make_step(
    model,
    optimizer=optimizer,
    settings=settings,
    objective_settings=only(ObjectiveSettings(), 'bottleneck'),
    upkeep=None,
    seed=0,
  )
  plain = Retriever(model.config)
  params, usage = jax.eval_shape(lambda: init_params(plain, 0, rows)[::2])
  state = jax.eval_shape(
    lambda params, usage: make_state(params, usage, optimizer, True),
    params,
    usage,
  )
  tokens_BS = jax.ShapeDtypeStruct((rows, 32), jnp.int32)
  return (
    step,
    state,
    {
      'query_tokens': tokens_BS,
      'document_tokens': tokens_BS,
      'document_index': jax.ShapeDtypeStruct((rows,), jnp.int32),
    },
  )


@pytest.mark.soak
def test_chunks_take_less():
  model = model_of(T5)
  whole, chunked = (
    step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    for step, *arguments in map(shapes, (model, caching(model, 8)))
  )
  assert chunked < 0.6 * whole


def test_a_step_tells_its_memory_once_and_is_compiled_once(caplog):
  settings = dataclasses.replace(SETTINGS, steps=51)
  step = stepper(MODEL, settings, only(ObjectiveSettings(), 'bottleneck'))
  lines = []
  told = memory.ReportingStep(step, 'dense', lines.append)
  state, _ = start(settings=settings)
  with caplog.at_level(logging.WARNING), jax.log_compiles():
    first, _ = told(state, batch())
    state, _ = told(first, batch())
  assert int(state.step) == 2
  compiled = [
    record
    for record in caplog.records
    if 'Finished XLA compilation of jit(step_fn)' in record.getMessage()
  ]
  assert len(compiled) == 1
  assert len(lines) == 1
  assert lines[0].startswith("memory of a 'dense' step in MiB a device: ")
  # Steps donate: what went in is there no more.
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
  analysis = step.lower(state, batch()).compile().memory_analysis()
  assert analysis.alias_size_in_bytes == memory.device_bytes(state)
  measured = memory.step_memory(step.lower(state, batch()).compile(), state)
  assert measured.parameters == memory.device_bytes(state.all_params())
  # Two moments of what trains, and counters.
  assert measured.peak > measured.parameters + measured.temporary
  assert measured.optimizer > 2 * memory.device_bytes(state.params)


def test_a_backend_that_tells_nothing_is_not_asked_again():
  class Compiled:
    def memory_analysis(self):
      return None

  assert memory.step_memory(Compiled(), None) is None


@pytest.mark.soak
def test_bfloat16_keeps_parameters_losses_and_moments_in_float32():
  encoder = dataclasses.replace(T5, dtype='bfloat16')
  step, state, rows = shapes(model_of(encoder))
  after, metrics = jax.eval_shape(step, state, rows)
  assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(
    lambda x: x.dtype, state
  )
  for leaf in jax.tree.leaves(after.params):
    assert leaf.dtype == jnp.float32
  for name, (total, _) in metrics.items():
    assert total.dtype in (jnp.float32, jnp.int32), name
  # The products are bfloat16, and not only said to be.
  text = step.lower(state, rows).as_text()
  products = [line for line in text.splitlines() if 'dot_general' in line]
  assert sum('bf16' in line for line in products) > len(products) / 2
