"""A generator and its examples agree, or training is refused in a line."""

import dataclasses

import pytest
from tiny_generator import END, START, begun

from gr_jax.data.prepared import PreparedData
from gr_jax.run_generator import GeneratorRun
from gr_jax.types import UserError


@pytest.fixture(scope='module')
def ready(tmp_path_factory):
  folder = tmp_path_factory.mktemp('ready')
  settings = begun(folder, steps=2, evaluate_every=1)
  return settings, PreparedData(folder / 'cache' / 'prepared')


def changed(settings, **fields):
  """The settings with other fields of the model."""
  model = dataclasses.replace(settings.model, **fields)
  return dataclasses.replace(settings, model=model)


@pytest.mark.parametrize('start, end', [(0, 1), (101, 102), (START, 4)])
def test_marks_are_those_of_the_vocabulary(ready, start, end):
  settings, prepared = ready
  run = GeneratorRun(changed(settings, start=start, end=end))
  with pytest.raises(UserError, match=f'set start = {START} and end = {END},'):
    run.batches(prepared, range(4))
