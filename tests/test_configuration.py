"""Each slip in a configuration is refused in one line that names it."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Literal

import pytest

from gr_jax import configuration, settings
from gr_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class ScheduleForTest:
  peak: float = 0.1
  kind: Literal['linear', 'cosine'] = 'linear'


@dataclasses.dataclass(frozen=True)
class ModelForTest:
  width: int
  rates: dict[str, float] = dataclasses.field(default_factory=dict)
  levels: tuple[int, ...] = (8, 8)
  schedule: ScheduleForTest = ScheduleForTest()
  others: tuple[ScheduleForTest, ...] = ()
  note: str | None = None

  def __post_init__(self):
    if self.width < 1:
      raise UserError(f'ModelForTest.width must be positive: {self.width}')


@dataclasses.dataclass(frozen=True)
class RunForTest:
  model: ModelForTest
  data_dir: str
  train: bool = True


@dataclasses.dataclass(frozen=True)
class UnusedForTest:
  size: int = 1


configuration.register(RunForTest, ModelForTest, ScheduleForTest, UnusedForTest)

GOOD = """
DATA_DIR = %gin.REQUIRED
WIDTH = 4
RunForTest.data_dir = %DATA_DIR
RunForTest.model = @ModelForTest()
ModelForTest:
  width = %WIDTH
  schedule = @warm/ScheduleForTest()
  others = (@ScheduleForTest(), @warm/ScheduleForTest())
warm/ScheduleForTest.peak = 0.5
ScheduleForTest.kind = 'cosine'
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
  """Writes gin files, parses the first and builds RunForTest."""
  monkeypatch.chdir(tmp_path)

  def run(text=GOOD, *overrides, files=('main.gin',), **more):
    (tmp_path / 'main.gin').write_text(text)
    for name, content in more.items():
      (tmp_path / f'{name}.gin').write_text(content)
    configuration.parse(files, overrides)
    return configuration.build(RunForTest)

  return run


def refused(load, *args, **more):
  with pytest.raises(UserError) as caught:
    load(*args, **more)
  message = str(caught.value)
  assert '\n' not in message
  return message


def test_builds_plain_instances(load):
  run = load(GOOD, 'DATA_DIR=../scifact')
  warm = ScheduleForTest(0.5, 'cosine')
  assert run == RunForTest(
    ModelForTest(
      4, schedule=warm, others=(ScheduleForTest(0.1, 'cosine'), warm)
    ),
    '../scifact',
  )
  assert type(run) is RunForTest
  assert type(run.model.schedule) is ScheduleForTest
  # gin is given a handle; calling the class itself stays free of gin.
  assert ScheduleForTest() == ScheduleForTest(0.1, 'linear')


@pytest.mark.parametrize(
  ('override', 'field', 'value'),
  [
    ('DATA_DIR=a/b=c', 'data_dir', 'a/b=c'),
    ("DATA_DIR='../x'", 'data_dir', '../x'),
    ('DATA_DIR="../x"', 'data_dir', '../x'),
    ('DATA_DIR=python_docs', 'data_dir', 'python_docs'),
    ('DATA_DIR="100"', 'data_dir', '100'),
    ('RunForTest.train=False', 'train', False),
  ],
)
def test_override_values(load, override, field, value):
  overrides = ['DATA_DIR=x'] if 'DATA_DIR' not in override else []
  assert getattr(load(GOOD, override, *overrides), field) == value


def test_override_of_container_and_macro(load):
  run = load(
    GOOD,
    'DATA_DIR=x',
    'ModelForTest.levels=(4, 4, 4)',
    "ModelForTest.rates={'a': 1, 'b': .5}",
    'ModelForTest.others=(@warm/ScheduleForTest(),)',
    'ModelForTest.schedule=@ScheduleForTest()',
  )
  assert run.model.levels == (4, 4, 4)
  assert run.model.rates == {'a': 1, 'b': 0.5}
  assert run.model.schedule.peak == 0.1


def test_includes_layer_and_later_files_win(load):
  base = GOOD.replace('%gin.REQUIRED', "'base'")
  run = load("include 'base.gin'\nWIDTH = 7\n", base=base)
  assert (run.model.width, run.data_dir) == (7, 'base')
  run = load(base, files=('main.gin', 'late.gin'), late='WIDTH = 9\n')
  assert run.model.width == 9


def test_operative_text_gives_the_same_settings(load):
  run = load(GOOD, 'DATA_DIR=x', 'ModelForTest.levels=(3,)')
  assert load(configuration.config_text()) == run


@pytest.mark.parametrize(
  ('text', 'overrides', 'expected'),
  [
    (GOOD, [], 'DATA_DIR is required: set it with --gin.DATA_DIR='),
    (GOOD, ['DATA_DR=x'], 'nothing uses the macro DATA_DR (did you'),
    (GOOD, ['WIDTH=8', 'DATA_DIR=x', 'WIDHT=8'], "did you mean 'WIDTH'?"),
    (GOOD + 'SPARE = 1\n', ['DATA_DIR=x'], 'main.gin:12: nothing uses'),
    (GOOD + 'WIDTH = 5\n', ['DATA_DIR=x'], 'main.gin:12: WIDTH is bound a'),
    (GOOD, ['DATA_DIR=x', 'DATA_DIR=y'], 'DATA_DIR is bound a second time'),
    (GOOD + 'ModelForTest.width = 5', ['DATA_DIR=x'], 'ModelForTest.width is'),
    (GOOD + 'ModelForTst.width = 5', [], "(did you mean 'ModelForTest'?)"),
    (GOOD + 'ModelForTst:\n  width = 5', [], "(did you mean 'ModelForTest'?)"),
    (GOOD, ['ModelForTest.widht=5'], "no 'widht' (did you mean 'width'?)"),
    (GOOD, ['ModelForTest.width=%WIDHT'], '%WIDHT has no value (did you mean'),
    (
      GOOD,
      ['DATA_DIR=x', 'WIDTH=wide'],
      "--gin.WIDTH: ModelForTest.width expects int, got str 'wide'",
    ),
    (GOOD, ['DATA_DIR=x', 'WIDTH=2.5'], 'expects int, got float 2.5'),
    (GOOD, ['DATA_DIR=x', 'WIDTH=True'], 'expects int, got bool True'),
    (GOOD, ['DATA_DIR=7'], 'expects str, got int 7 (quote it: "\'7\'")'),
    (GOOD, ['DATA_DIR=x', 'RunForTest.train=false'], '(write False)'),
    (GOOD, ['DATA_DIR=x', 'ModelForTest.levels=[1]'], '(write a tuple'),
    (GOOD, ['DATA_DIR=x', "ScheduleForTest.kind='step'"], "'step'"),
    (GOOD, ['DATA_DIR=x', "ModelForTest.rates={'a': 'b'}"], 'expects dict'),
    (GOOD, ['DATA_DIR=x', 'RunForTest.model=3'], 'expects ModelForTest'),
    (
      GOOD,
      ['DATA_DIR=x', 'RunForTest.model=@ScheduleForTest()'],
      'expects ModelForTest, got @ScheduleForTest()',
    ),
    (
      GOOD,
      ['DATA_DIR=x', 'ModelForTest.others=(@ModelForTest(),)'],
      'got (@ModelForTest(),)',
    ),
    (GOOD, ['DATA_DIR=x', 'UnusedForTest.size=2'], 'nothing in this config'),
    (GOOD, ['DATA_DIR=x', 'WIDTH=0'], 'ModelForTest.width must be positive'),
    (GOOD, ['DATA_DIR=%DATA_DIR'], '%DATA_DIR refers to itself'),
    (GOOD, ['DATA_DIR'], 'expected --gin.NAME=value'),
    (GOOD, ['DATA DIR=x'], 'expected --gin.NAME=value'),
    (GOOD, ['DATA_DIR=@Nothing()'], "no settings called 'Nothing'"),
    (GOOD, ['DATA_DIR=@'], 'this is no gin'),
    (GOOD, ['RunForTest.model=@ModelForTest'], 'write @ModelForTest()'),
    ('import os\n', [], 'importing os is not allowed'),
    ('from os import path\n', [], 'importing os.path is not allowed'),
    ('from __gin__ import dynamic_registration\n', [], 'is not allowed'),
    ('import gr_jax.no_such_module\n', [], 'there is no module'),
    ('RunForTest.data_dir = = 3\n', [], 'main.gin:1: this is no gin'),
    ('RunForTest.data_dir = (3\n', [], 'this is no gin'),
    ('RunForTest.model = @ModelForTest()\n', [], 'RunForTest.data_dir has no'),
    ("include 'bse.gin'\n", [], 'main.gin:1: there is no gin file bse.gin'),
  ],
)
def test_refusals(load, text, overrides, expected):
  message = refused(load, text, *overrides)
  assert expected in message


def test_sibling_includes_may_not_disagree(load):
  message = refused(
    load,
    "include 'base.gin'\ninclude 'other.gin'\n",
    base=GOOD,
    other='WIDTH = 9\n',
  )
  assert 'other.gin:1: WIDTH is bound a second time' in message


def test_a_binding_before_its_include_would_lose(load):
  message = refused(load, "WIDTH = 9\ninclude 'base.gin'\n", base=GOOD)
  assert 'WIDTH is bound a second time' in message
  assert 'main.gin:1' in message


def test_forbidden_import_runs_nothing(load, tmp_path, monkeypatch):
  (tmp_path / 'evil.py').write_text("open('ran', 'w').close()\n")
  monkeypatch.syspath_prepend(tmp_path)
  refused(load, 'import evil\n')
  assert not (tmp_path / 'ran').exists()


def test_missing_file_names_a_near_miss(monkeypatch, tmp_path):
  (tmp_path / 'gin').mkdir()
  (tmp_path / 'gin' / 'wide.gin').write_text('')
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=r"did you mean 'gin/wide\.gin'"):
    configuration.resolve('gin/wid.gin')


def test_working_directory_comes_before_the_package(tmp_path, monkeypatch):
  """The same command works in a checkout and away from it."""
  package = pathlib.Path(configuration.__file__).parent.parent
  shipped = sorted((package / 'gin').rglob('*.gin'))[0]
  name = str(shipped.relative_to(package))
  monkeypatch.chdir(tmp_path)
  assert configuration.resolve(name) == shipped
  (tmp_path / name).parent.mkdir(parents=True)
  (tmp_path / name).write_text('')
  assert configuration.resolve(name) == tmp_path / name


def test_json_round_trip(load):
  run = load(GOOD, 'DATA_DIR=x', "ModelForTest.rates={'a': 1}")
  data = json.loads(json.dumps(settings.to_json(run)))
  assert data['__class__'] == 'RunForTest'
  assert settings.from_json(data) == run


@pytest.mark.parametrize(
  ('change', 'expected'),
  [
    ({'__class__': 'RunForTst'}, "(did you mean 'RunForTest'?)"),
    ({'__class__': 'Path'}, "no settings called 'Path'"),
    ({'__class__': 3}, 'expected a string'),
    ({'data_dirs': 'x'}, 'RunForTest.data_dirs is unknown (did you mean'),
    ({'data_dir': 3}, 'RunForTest.data_dir expects str, got int 3'),
    ({'model': {'__class__': 'ModelForTest'}}, 'width is missing'),
    ({'model': {'__class__': 'os.system', 'width': 1}}, 'no settings called'),
    ({'model': {'width': 1}}, 'expects ModelForTest, got dict'),
  ],
)
def test_json_is_data(change, expected):
  good = settings.to_json(RunForTest(ModelForTest(2), 'x'))
  with pytest.raises(UserError) as caught:
    settings.from_json({**good, **change}, 'settings.json')
  assert str(caught.value).startswith('settings.json: ')
  assert expected in str(caught.value)


def test_settings_do_not_need_gin():
  code = 'import sys, gr_jax.settings; print("gin" in sys.modules)'
  out = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert out.stdout == 'False\n'


def test_two_classes_of_one_name_are_refused():
  twin = dataclasses.make_dataclass('RunForTest', ['a'])
  with pytest.raises(TypeError, match='two settings classes'):
    settings.register(twin)
