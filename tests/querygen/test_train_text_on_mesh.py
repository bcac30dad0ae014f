"""The doors that train a query generator and ask it, on a mesh of 8 devices."""

import dataclasses

import jax
import pytest
from tiny_generator import begun, contents, generated

from gr_jax import train_text
from gr_jax.training.mesh import MeshSettings
from gr_jax.types import UserError

pytestmark = pytest.mark.mesh

STEPS = 5


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A folder with the run of a mesh; its settings."""
  folder = tmp_path_factory.mktemp('generator')
  settings = begun(folder, steps=STEPS, log_every=1)
  mesh = MeshSettings(data=4, model=2)
  settings = dataclasses.replace(settings, mesh=mesh)
  train_text.train(settings, folder / 'run')
  return folder, settings


def test_pseudo_queries_are_the_same_bytes(trained, tmp_path, monkeypatch):
  folder, _ = trained

  def of(name, *more):
    found = generated(
      folder, tmp_path / name, '--gin.RoundTripSettings.top=0', *more
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
