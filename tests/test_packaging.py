"""What is installed: gr_jax with its tasks and gin files, nothing beside."""

import email
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from packaging import requirements, utils

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  folder = tmp_path_factory.mktemp('wheel')
  source = folder / 'source'
  source.mkdir()
  # A copy: building leaves folders behind.
  for name in ('setup.py', 'pyproject.toml', 'LICENSE', 'README.md'):
    if (ROOT / name).exists():
      shutil.copy(ROOT / name, source)
  ignore = shutil.ignore_patterns('__pycache__')
  for name in ('gr_jax', 'tasks', 'gin'):
    shutil.copytree(ROOT / name, source / name, ignore=ignore)
  subprocess.run(
    [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps']
    + ['--no-build-isolation', '--wheel-dir', folder, source],
    check=True,
    capture_output=True,
  )
  (built,) = folder.glob('*.whl')
  return built


def test_wheel_holds_all_of_it_and_nothing_beside(wheel):
  names = zipfile.ZipFile(wheel).namelist()
  expected = {
    f'gr_jax/{p.relative_to(ROOT / "gr_jax").as_posix()}'
    for p in (ROOT / 'gr_jax').rglob('*')
    if p.suffix in ('.py', '.css', '.js')
  }
  for folder, pattern in (('tasks', '*.py'), ('gin', '*.gin')):
    expected |= {
      f'gr_jax/{p.relative_to(ROOT).as_posix()}'
      for p in (ROOT / folder).rglob(pattern)
    }
  assert expected <= set(names)
  top = {name.split('/')[0] for name in names}
  assert top == {'gr_jax', 'gr_jax-0.1.0.dist-info'}
  assert any(name.endswith('licenses/LICENSE') for name in names)


def test_gin_files_and_tasks_are_found_in_an_installed_wheel(wheel, tmp_path):
  """As after `pip install .`, away from any checkout."""
  site = tmp_path / 'site'
  zipfile.ZipFile(wheel).extractall(site)
  code = (
    f'import sys; sys.path.insert(0, {str(site)!r})\n'
    'import gin, importlib.util, gr_jax.configuration as c\n'
    'print(gin.__file__)\n'
    'print(importlib.util.find_spec("gr_jax.tasks").origin)\n'
    'print(c.resolve("gin/runs/quickstart.gin"))'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    cwd=tmp_path,
  )
  gin_file, tasks_file, run_file = result.stdout.splitlines()
  assert not gin_file.startswith(str(site))
  assert tasks_file == str(site / 'gr_jax/tasks/__init__.py')
  assert run_file == str(site / 'gr_jax/gin/runs/quickstart.gin')


def test_locked_versions_satisfy_the_pins(wheel):
  """The lock is cut by hand: it may not fall behind setup.py."""
  with zipfile.ZipFile(wheel) as archive:
    metadata = email.message_from_bytes(
      archive.read('gr_jax-0.1.0.dist-info/METADATA')
    )
  (lock,) = (ROOT / 'requirements').glob('*.txt')
  pins = dict(re.findall(r'^([\w.-]+)==(.+)$', lock.read_text(), re.MULTILINE))
  locked = {'', 'prepare', 'baselines', 'minilm', 'datasets', 'dev'}
  checked = 0
  for line in metadata.get_all('Requires-Dist'):
    wanted = requirements.Requirement(line)
    extra = re.search(r'extra == "(\w+)"', line)
    if (extra[1] if extra else '') in locked:
      name = utils.canonicalize_name(wanted.name)
      assert pins[name] in wanted.specifier, f'{lock.name}: {name}'
      checked += 1
  assert checked > 30
  # One download of tensorflow: the lock has the small wheel alone.
  assert 'tensorflow' not in pins
  assert 'tensorflow-cpu' in pins
