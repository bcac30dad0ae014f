"""The recipes, built and traced at their real sizes.

tests/tasks/test_offline.py runs them on a miniature.
"""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from gr_jax import configuration, run_settings, settings
from gr_jax.models.retriever import Retriever
from gr_jax.training import initial, stages

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = ('launch/tpu_pod.sh', 'launch/slurm.sh', 'launch/kubernetes.yaml')
# Documents, batch, and the lengths of documents and queries.
RECIPES = {
  'nq320k': (109_739, 1024, 256, 32),
  'msmarco': (8_841_823, 4096, 128, 32),
}


@pytest.mark.soak
@pytest.mark.parametrize('name', RECIPES)
def test_steps_of_the_real_size_are_traced(name):
  assert trace_step(name) > 200e6


@pytest.mark.parametrize('name', RECIPES)
def test_they_build(name):
  built = settings_of(name)
  assert settings.from_json(settings.to_json(built)) == built


def settings_of(name):
  """What a recipe says, which must be what this file expects."""
  _, batch, _, _ = RECIPES[name]
  configuration.parse(
    [f'gin/recipes/{name}.gin'],
    ['RUN_DIR=run', 'DATA_DIR=data', 'PSEUDO_QUERIES=file'],
  )
  built = configuration.build(run_settings.RunSettings)
  assert built.preparation.pseudo_queries == 'file'
  assert built.model.code_sizes == (256,) * 8
  assert built.loader.batch_size == batch
  assert set(built.loader.rates) == set(built.preparation.sources)
  return built


def trace_step(name):
  """Traces a step from the state that it starts with; makes no arrays.

  Returns:
    The number of parameters that train.
  """
  documents, batch, length, query_length = RECIPES[name]
  built = settings_of(name)
  model = Retriever(built.model)
  optimizers = stages.stage_optimizers(built.training)
  made = stages.stages(model, built, None, optimizers)

  def first_state():
    params, _, usage = initial.init_params(model, built.seed, documents)
    return initial.make_state(params, usage, optimizers['codes'], True)

  state = jax.eval_shape(first_state)
  assert state.frozen['identifiers']['table'].shape == (documents, 8)
  assert state.params['encoder']['token_embedder']['embedding'].shape == (
    32128, 768
  )  # fmt: skip
  inputs = {
    'query_tokens': jax.ShapeDtypeStruct((batch, query_length), jnp.int32),
    'document_tokens': jax.ShapeDtypeStruct((batch, length), jnp.int32),
    'document_index': jax.ShapeDtypeStruct((batch,), jnp.int32),
  }
  # The stage that computes most; to trace another takes as long again.
  _, step = made['codes']
  after, metrics = jax.eval_shape(step, state, inputs)
  assert jax.tree.map(_kind, after) == jax.tree.map(_kind, state)
  assert {'bottleneck', 'generation', 'density'} <= metrics.keys()
  return sum(array.size for array in jax.tree.leaves(state.params))


def _kind(array):
  return array.shape, array.dtype


@pytest.mark.parametrize('name', RECIPES)
def test_headers_say_what_the_files_do(name):
  documents, _, _, _ = RECIPES[name]
  text = (ROOT / 'gin' / 'recipes' / f'{name}.gin').read_text()
  header = text.partition('include')[0]
  assert f'{documents:,}' in header
  assert 'The full run is still to be made' in header
  for script in set(re.findall(r'launch/\w+\.\w+', header)):
    assert script in SCRIPTS
