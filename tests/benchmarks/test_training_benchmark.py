"""Operations counted and written out agree, and small runs of the whole."""

import dataclasses
import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))

import program_costs
import text_training
import training

from gr_jax.models.t5 import T5Config
from gr_jax.models.t5_text import T5
from gr_jax.types import UserError

SMALL = T5Config(
  vocab_size=48,
  emb_dim=8,
  num_heads=2,
  head_dim=3,
  num_encoder_layers=1,
  num_decoder_layers=2,
  mlp_dim=12,
  dropout_rate=0.0,
)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  """What is timed is one device's; `make soak` has eight."""
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, 'devices', lambda: first)


@pytest.mark.parametrize(
  'config',
  [
    SMALL,
    dataclasses.replace(
      SMALL, mlp_activations=('relu',), logits_via_embedding=True
    ),
  ],
)
def test_the_formula_is_what_the_program_holds(config):
  shape = batch, length, _ = 2, 7, 4
  model, (texts,) = T5(config), text_training.text_batches(config, *shape, 1)
  tokens_BS = jnp.ones((1, 1), jnp.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), tokens_BS, tokens_BS)
  gradient = jax.grad(
    functools.partial(text_training.loss, model), has_aux=True
  )
  counted = program_costs.product_flops(gradient, params['params'], texts)
  assert counted == program_costs.t5_flops(config, *shape)
  # By hand, for one layer's attention maps of the encoder.
  without = dataclasses.replace(config, num_encoder_layers=0)
  hidden = len(config.mlp_activations) + 1
  layer = (
    4 * 2 * batch * length * 8 * 6
    + 2 * 2 * batch * length * length * 6
    + hidden * 2 * batch * length * 8 * 12
  )
  assert counted - program_costs.t5_flops(without, *shape) == 3 * layer


def test_products_in_loops_count_as_often_as_they_run():
  square = jnp.ones((3, 3))

  def run(x):
    return jax.lax.scan(
      lambda y, _: (jax.jit(jnp.dot)(y, y), None), x, length=5
    )

  assert program_costs.product_flops(run, square) == 5 * 2 * 27


@pytest.mark.soak
def test_a_small_run_of_the_whole(tmp_path, capsys, monkeypatch):
  # One layer is all that must compile.
  config = dataclasses.replace(
    SMALL, num_encoder_layers=0, num_decoder_layers=1
  )
  monkeypatch.setattr(training, '_TOY', config)
  path = tmp_path / 'training.json'
  folder_before = jax.config.jax_compilation_cache_dir
  training.main(
    [
      '--size=toy', '--batch=2', '--length=4', '--targets=4', '--steps=2',
      '--turns=2', '--retriever=', f'--output={path}',
    ]
  )  # fmt: skip
  assert jax.config.jax_compilation_cache_dir == folder_before
  found = json.loads(path.read_text())
  (row,) = found['rows']
  assert row['subject'] == 'text toy'
  assert 0 < row['least']['ours'] <= row['milliseconds']['ours']
  assert row['processor']['ours'] > 0
  assert row['examples_per_second'] == pytest.approx(
    2e3 / row['milliseconds']['ours']
  )
  assert row['tokens_per_second'] == pytest.approx(
    8 * row['examples_per_second']
  )
  assert row['model_flops'] > 0 and row['xla_flops'] > 0
  assert 0 < row['temporary_bytes'] < row['peak_bytes']
  assert row['utilisation']['ours'] == pytest.approx(
    row['model_flops']
    / (1e-3 * row['milliseconds']['ours'] * row['ceiling_flops_per_second'])
  )
  assert row['warm_seconds'] > 0
  assert 'text toy: ms a step' in capsys.readouterr().out


RETRIEVER = [
  '--gin.T5Config.vocab_size=64', '--gin.T5Config.emb_dim=8',
  '--gin.T5Config.num_heads=1', '--gin.T5Config.head_dim=8',
  '--gin.T5Config.num_encoder_layers=1', '--gin.T5Config.num_decoder_layers=1',
  '--gin.T5Config.mlp_dim=8', '--gin.RetrieverConfig.width=8',
  '--gin.POSITIONS=2', '--gin.CODES=4',
  '--gin.PreparationSettings.document_length=8',
  '--gin.PreparationSettings.query_length=4',
  '--gin.LoaderSettings.batch_size=4',
]  # fmt: skip


@pytest.mark.soak
def test_the_retriever_trains_with_its_loader(tmp_path, capsys):
  path = tmp_path / 'training.json'
  training.main(
    [
      '--size=', '--retriever=trained', '--steps=2', '--turns=2',
      f'--output={path}', *RETRIEVER,
    ]
  )  # fmt: skip
  (row,) = json.loads(path.read_text())['rows']
  assert row['subject'] == 'retriever trained'
  for name in ('step', 'loop', 'loader'):
    assert row['milliseconds'][name] > 0
  assert row['input_hidden'] <= 1
  assert np.isfinite(row['input_hidden'])
  assert row['tokens_per_second'] == pytest.approx(
    12 * row['examples_per_second']
  )
  assert 'of the input hidden' in capsys.readouterr().out


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--steps=0', '--steps is too small: 0'),
    ('--turns=1', '--turns is too small: 1'),
    ('--size=smal', "did you mean 'small'"),
    ('--retriever=all', 'is one of'),
  ],
)
def test_flags_that_are_refused(tmp_path, flag, message):
  with pytest.raises(UserError, match=message):
    training.main([flag, f'--output={tmp_path / "training.json"}'])
