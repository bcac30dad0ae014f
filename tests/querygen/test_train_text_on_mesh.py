"""The doors that train a query generator and ask it, on a mesh of 8 devices."""

import dataclasses
import functools

import jax
import pytest
from tiny_generator import begun, contents, generated

from gr_jax import train_text
from gr_jax.training import mesh as meshes
from gr_jax.training.logs import read_jsonl
from gr_jax.training.mesh import MeshSettings
from gr_jax.types import UserError

pytestmark = pytest.mark.mesh

STEPS = 5


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A folder with the run of a mesh, and the same run on one device."""
  folder = tmp_path_factory.mktemp('generator')
  settings = begun(folder, steps=STEPS, log_every=1, evaluate_every=STEPS)
  mesh = MeshSettings(data=4, model=2)
  train_text.train(dataclasses.replace(settings, mesh=mesh), folder / 'run')
  with pytest.MonkeyPatch.context() as patched:
    make = functools.partial(meshes.make_mesh, devices=jax.devices()[:1])
    patched.setattr(meshes, 'make_mesh', make)
    train_text.train(settings, folder / 'one')
  return folder


def test_losses_are_those_of_one_device(trained):
  """Up to the order of sums, in float32."""
  spread, one = (read_jsonl(trained / run / 'logs') for run in ('run', 'one'))
  assert len(spread) == len(one) == STEPS + 1
  names = set()
  for found, expected in zip(spread, one, strict=True):
    names |= expected.keys()
    for name in expected.keys() - {'time', 'examples_per_second'}:
      assert found[name] == pytest.approx(expected[name], rel=1e-5), name
  assert {'loss', 'gradient_norm', 'dev/token_loss'} < names
  assert one[0]['loss'] > 1.01 * one[STEPS - 1]['loss']


def test_pseudo_queries_are_the_same_bytes(trained, tmp_path, monkeypatch):
  def of(name, *more):
    found = generated(
      trained, tmp_path / name, '--gin.RoundTripSettings.top=0', *more
    )
    return found, contents(tmp_path / name)

  found, eight = of('8')
  assert len(found) > 50
  # What was begun on some devices goes on on others.
  _, both = of('4 x 2', '--gin.MeshSettings.model=2')
  again, _ = of('8', '--gin.MeshSettings.model=2')
  assert again == found
  monkeypatch.setattr(jax, 'local_devices', lambda: jax.devices()[:1])
  _, one = of('1')
  assert eight == both == one
  with pytest.raises(UserError, match='does not cover 1 devices'):
    of('none', '--gin.MeshSettings.data=8')
