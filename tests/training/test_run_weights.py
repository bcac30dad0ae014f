"""A run that begins with the text encoder of another one."""

import dataclasses

import jax
import numpy as np
import pytest
from test_step import MODEL, SETTINGS

from gr_jax.models.retriever import Retriever
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.training.initial import import_params, init_params, make_state
from gr_jax.training.optimizer import make_optimizer
from gr_jax.training.run_weights import check_identifiers
from gr_jax.types import UserError


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run with one checkpoint, and the state in it."""
  folder = tmp_path_factory.mktemp('run')
  params, _, usage = init_params(MODEL, 1, documents=8)
  optimizer = make_optimizer(SETTINGS.optimizer, SETTINGS.steps)
  state = make_state(params, usage, optimizer, True)
  checkpoints = Checkpoints(folder / 'checkpoints')
  checkpoints.save(3, state, b'', {})
  checkpoints.wait()
  checkpoints.close()
  return f'run:{folder}', jax.device_get(state.params)


def test_encoder_and_projection_are_those_of_the_run(trained):
  source, saved = trained
  drawn, _, _ = init_params(MODEL, 0, documents=8)
  params, sha256 = import_params(drawn, MODEL.config, source)
  for name in ('encoder', 'projection'):
    jax.tree.map(np.testing.assert_array_equal, params[name], saved[name])
  for name in ('indexer', 'decoder'):
    assert params[name] is drawn[name]
  assert sha256 == import_params(drawn, MODEL.config, source)[1]
  assert len(sha256) == 64


def test_an_encoder_of_other_shapes_is_refused(trained):
  config = dataclasses.replace(MODEL.config, width=4)
  drawn, _, _ = init_params(Retriever(config), 0, documents=8)
  with pytest.raises(UserError, match='has another projection'):
    import_params(drawn, config, trained[0])


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
  drawn, _, _ = init_params(MODEL, 0, documents=8)
  with pytest.raises(UserError, match='folder of a run with a checkpoint'):
    import_params(drawn, MODEL.config, f'run:{tmp_path}')


def test_there_must_be_identifiers_to_keep():
  params, _, _ = init_params(MODEL, 0, documents=8)
  with pytest.raises(UserError, match=r'runs/a has given.*settled_rounds = 1'):
    check_identifiers(params, 'runs/a')
  table = np.array(params['identifiers']['table'])
  table[3] = 0
  check_identifiers({**params, 'identifiers': {'table': table}}, 'runs/a')
