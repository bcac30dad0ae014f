"""Eight devices write what one writes, to the byte."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tiny_generator import begun

from gr_jax.data.collection import Collection
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.models.query_generator import QueryGenerator, example_batch
from gr_jax.querygen.generator import Generator, document_keys
from gr_jax.querygen.sampling import SamplingSettings, draw
from gr_jax.training.mesh import MeshSettings, active, make_mesh
from gr_jax.types import Document

pytestmark = pytest.mark.mesh

LENGTH = 20
MESHES = {
  'data 8': MeshSettings(data=8),
  'data 4 x model 2': MeshSettings(data=4, model=2),
  'data 2 x fsdp 2 x model 2': MeshSettings(data=2, fsdp=2, model=2),
}
DRAWN = SamplingSettings(queries=4, max_tokens=8)
TOP = dataclasses.replace(DRAWN, top_k=5, no_repeat_ngram=2)
BEAM = dataclasses.replace(DRAWN, method='beam', no_repeat_ngram=2)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """The collection, and (mesh) -> a generator of random parameters."""
  folder = tmp_path_factory.mktemp('generator')
  settings = begun(folder)
  model = QueryGenerator(settings.model)
  shapes = jax.eval_shape(
    lambda key: model.init(key, example_batch(), True, method='loss'),
    jax.random.key(0),
  )['params']
  random = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: 0.5 * random.standard_normal(leaf.shape, np.float32), shapes
  )
  vocabulary = load_vocabulary(settings.preparation.vocabulary)

  def make(mesh=None):
    return Generator(model, params, vocabulary, LENGTH, 'sha256', mesh)

  return settings, make


@pytest.fixture(scope='module')
def documents(made):
  """80, more than a batch of four parts, of several lengths."""
  found = []
  for number, document in enumerate(Collection(made[0].data_dir).documents()):
    words = document.text.split()
    for copy in range(2):
      text = ' '.join(words[: 3 + (number + 5 * copy) % 8])
      found.append(Document(f'{document.id}-{copy}', document.title, text))
  return found


@pytest.fixture(scope='module')
def of_one_device(made, documents):
  """{settings: what one device writes}."""
  one = made[1]()
  return {
    settings: one.generate(documents, settings, seed=3)
    for settings in (DRAWN, BEAM)
  }


@pytest.mark.parametrize(
  'name, settings', [*((name, DRAWN) for name in MESHES), ('data 8', BEAM)]
)
def test_the_same_queries(made, documents, of_one_device, name, settings):
  mesh = make_mesh(MESHES[name])
  several = made[1](mesh)
  assert several.batch_size == 16 * mesh.shape['data'] * mesh.shape['fsdp']
  found = several.generate(documents, settings, seed=3)
  expected = of_one_device[settings]
  texts = [[query.text for query in own] for own in found]
  assert texts == [[query.text for query in own] for own in expected]
  assert len({text for own in texts for text in own}) > 100
  for own, others in zip(found, expected, strict=True):
    np.testing.assert_allclose(
      [query.log_probability for query in own],
      [query.log_probability for query in others],
      rtol=1e-5,
    )


@pytest.mark.parametrize('settings', [DRAWN, TOP, BEAM])
def test_no_device_sees_the_rows_of_another(made, settings):
  """Beside whether all have ended nothing is sent."""
  mesh = make_mesh(MESHES['data 8'])
  several = made[1](mesh)
  batch = several.batch_size
  rows = NamedSharding(mesh, PartitionSpec('data'))
  arrays = np.ones((batch, LENGTH), np.int32), document_keys('x' * batch, 0)
  with active(mesh):
    program = draw.lower(
      several._model,
      several._params,
      *jax.device_put(arrays, rows),
      settings,
    ).compile()
  sent = re.findall(
    r'= (\S+) (?:all-|collective-|reduce-scatter)\S*\(', program.as_text()
  )
  assert sent == ([] if settings == BEAM else ['pred[]'])
  assert {each.spec[0] for each in program.output_shardings} == {'data'}


def test_parameters_lie_where_training_has_them(made):
  several = made[1](make_mesh(MESHES['data 2 x fsdp 2 x model 2']))
  params = several._params
  for path, parts in {
    ('token_embedder', 'embedding'): (2, 2),
    ('decoder', 'layers_0', 'mlp', 'wo', 'kernel'): (2, 2),
    ('pointer_gate', 'bias'): (1,),
  }.items():
    leaf = params
    for name in path:
      leaf = leaf[name]
    own = leaf.sharding.shard_shape(leaf.shape)
    assert tuple(np.array(leaf.shape) // own) == parts, path
