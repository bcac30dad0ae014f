import pytest

from gr_jax.evaluation import controls
from gr_jax.types import UserError

INPUTS = {'corpus': 'c', 'encoder_weights': 'w', 'examples': 'e'}


def test_names_of_controls():
  assert controls.parse_names('') == ()
  assert controls.parse_names('dense_only, random_ids,dense_only') == (
    'dense_only',
    'random_ids',
  )
  with pytest.raises(UserError, match="did you mean 'random_ids'"):
    controls.parse_names('random_id')


def test_a_finished_control_is_kept_and_an_interrupted_one_goes_on(tmp_path):
  folder = tmp_path / 'controls' / 'random_ids'
  calls = []

  def make(path):
    calls.append(sorted(entry.name for entry in path.iterdir()))
    (path / 'checkpoints').mkdir(exist_ok=True)
    # A build that is killed leaves the folder of its index behind.
    (path / 'index').mkdir(exist_ok=True)
    if len(calls) == 1:
      raise KeyboardInterrupt

  settings = {'steps': 10, 'seed': 1}
  with pytest.raises(KeyboardInterrupt):
    controls.ensure(folder, settings, INPUTS, make)
  assert controls.ensure(folder, settings, INPUTS, make)
  assert not controls.ensure(folder, {'seed': 1, 'steps': 10}, INPUTS, make)
  assert calls == [['control.json'], ['checkpoints', 'control.json', 'index']]


def test_a_control_without_its_index_is_made_again(tmp_path):
  calls = []

  def make(path):
    calls.append(path)
    (path / 'index').mkdir()

  controls.ensure(tmp_path / 'c', {}, INPUTS, make)
  (tmp_path / 'c' / 'index').rmdir()
  assert controls.ensure(tmp_path / 'c', {}, INPUTS, make)
  assert len(calls) == 2


SETTINGS = {
  'seed': 1, 'run_dir': 'a', 'data_dir': 'b', 'cache_dir': 'c',
  'encoder_weights': 'd', 'preparation': {'data_dir': 'b'},
  'search': {'beams': 1},
}  # fmt: skip


@pytest.mark.parametrize(
  ('settings', 'inputs'),
  [
    ({'seed': 2}, {}),
    ({}, {'corpus': 'x'}),
    ({}, {'examples': 'x'}),
    ({}, {'encoder_weights': 'x'}),
  ],
)
def test_a_control_of_something_else_is_made_anew(tmp_path, settings, inputs):
  folder = tmp_path / 'control'
  seen = []

  def make(path):
    seen.append((path / 'old').exists())
    (path / 'old').mkdir()
    (path / 'index').mkdir()

  controls.ensure(folder, SETTINGS, INPUTS, make)
  settings, inputs = {**SETTINGS, **settings}, {**INPUTS, **inputs}
  assert controls.ensure(folder, settings, inputs, make)
  assert seen == [False, False]


@pytest.mark.parametrize('name', sorted(SETTINGS.keys() - {'seed'}))
def test_a_control_outlives_a_move_and_another_search(tmp_path, name):
  folder = tmp_path / 'control'
  make = (folder / 'index').mkdir
  controls.ensure(folder, SETTINGS, INPUTS, lambda path: make())
  moved = {**SETTINGS, name: 'elsewhere'}
  assert not controls.ensure(folder, moved, INPUTS, lambda path: make())


def test_a_folder_of_someone_else_is_left_alone(tmp_path):
  folder = tmp_path / 'control'
  folder.mkdir()
  (folder / 'thesis.txt').write_text('mine')
  with pytest.raises(UserError, match='move it away'):
    controls.ensure(folder, {}, INPUTS, lambda path: None)
  assert (folder / 'thesis.txt').read_text() == 'mine'
