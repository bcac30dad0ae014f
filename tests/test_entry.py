"""Doors share their flags, and say what is wrong in one line."""

import argparse
import errno
import os
import pathlib
import signal
import subprocess
import sys

import jax
import pytest

from gr_jax import entry
from gr_jax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent


def run_door(monkeypatch, main, *arguments):
  monkeypatch.setattr(sys, 'argv', ['door', *arguments])
  with pytest.raises(SystemExit) as caught:
    entry.run_main(main)
  return caught.value.code


def test_user_error_is_one_line_and_status_2(monkeypatch, capsys):
  def main(arguments):
    raise UserError(f'no {arguments[0]}:\ntry another')

  assert run_door(monkeypatch, main, 'folder') == 2
  captured = capsys.readouterr()
  assert captured.err == 'error: no folder: try another\n'
  assert captured.out == ''


@pytest.fixture
def compilation_cache():
  """JAX's settings of its cache, put back afterwards."""
  names = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
    'jax_persistent_cache_min_entry_size_bytes',
  )
  before = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_compiled_programs_are_kept(monkeypatch, compilation_cache, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update('jax_compilation_cache_dir', None)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)
  entry.keep_compiled()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'gr_jax/xla')
  assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
  # JAX_COMPILATION_CACHE_DIR comes in as this.
  jax.config.update('jax_compilation_cache_dir', 'of the user')
  entry.keep_compiled()
  assert jax.config.jax_compilation_cache_dir == 'of the user'


FOUR = '--xla_force_host_platform_device_count=4'


@pytest.mark.parametrize(
  ('before', 'threads'),
  [
    ({}, None),
    ({'XLA_FLAGS': FOUR.replace('4', '1')}, None),
    ({'XLA_FLAGS': f'--xla_dump_to=x {FOUR}'}, '32'),
    ({'XLA_FLAGS': f'{FOUR} {FOUR.replace("4", "8")}'}, '64'),
    ({'XLA_FLAGS': FOUR, 'NPROC': '5'}, '5'),
  ],
)
def test_virtual_devices_get_threads(before, threads):
  environment = dict(before)
  entry.give_threads_to_virtual_devices(environment)
  assert environment.get('NPROC') == threads


# Each layer has all-reduces of its own along both axes, none of which waits for
# those of another layer.
INDEPENDENT = """
import os
from gr_jax import entry
os.environ['XLA_FLAGS'] = ' '.join((
  '--xla_force_host_platform_device_count=8',
  '--xla_cpu_collective_call_terminate_timeout_seconds=60',
))
entry.give_threads_to_virtual_devices(os.environ)
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P

mesh = jax.make_mesh(
  (4, 2), ('data', 'model'), axis_types=(jax.sharding.AxisType.Auto,) * 2
)

def placed(shape, *axes):
  values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  return jax.device_put(values / 10, NamedSharding(mesh, P(*axes)))

def loss(layers, x_BE):
  kept = NamedSharding(mesh, P('data', None))
  total = 0.0
  for a_EM, b_ME in layers:
    y_BE = jax.nn.relu(x_BE @ a_EM) @ b_ME
    y_BE = jax.lax.with_sharding_constraint(y_BE, kept)
    total += (y_BE**2).mean() + jax.numpy.exp(-(y_BE**2)).mean()
  return total

@jax.jit
def step(layers, x_BE):
  gradients = jax.grad(loss)(layers, x_BE)
  return jax.tree.map(lambda w, g: w - 1e-3 * g, layers, gradients)

layers = [
  (placed((64, 128), None, 'model'), placed((128, 64), 'model', None))
  for _ in range(24)
]
x_BE = placed((64, 64), 'data', None)
for _ in range(500):
  layers = step(layers, x_BE)
jax.block_until_ready(layers)
print('done')
"""


@pytest.mark.soak
def test_all_reduces_of_virtual_devices_do_not_wait_in_a_circle():
  """Without threads of their own two runs of two hung within 500 steps."""
  environment = {**os.environ, 'XLA_FLAGS': ''}
  del environment['NPROC']
  done = subprocess.run(
    [sys.executable, '-c', INDEPENDENT],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stdout == 'done\n', done.stderr[-2000:]


def test_interrupt_has_the_shells_status(monkeypatch, capsys):
  def main(arguments):
    raise KeyboardInterrupt

  assert run_door(monkeypatch, main) == 130
  assert capsys.readouterr().err == 'interrupted\n'


@pytest.mark.parametrize(('status', 'code'), [(None, 0), (0, 0), (3, 3)])
def test_status_of_main(monkeypatch, status, code):
  assert run_door(monkeypatch, lambda arguments: status) == code


def test_other_errors_keep_their_traceback(monkeypatch):
  def main(arguments):
    raise ValueError('a bug')

  monkeypatch.setattr(sys, 'argv', ['door'])
  with pytest.raises(ValueError, match='a bug'):
    entry.run_main(main)


def test_a_reader_that_leaves_is_no_error():
  code = (
    'from gr_jax import entry\n'
    'entry.run_main(lambda a: [print(i) for i in range(100000)] and 0)'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == '0\n'
  process.stdout.close()
  errors = process.stderr.read()
  process.stderr.close()
  assert process.wait() == 141
  assert errors == ''


@pytest.fixture
def parser():
  made = argparse.ArgumentParser(allow_abbrev=False)
  entry.add_gin_flags(made)
  entry.add_run_dir_flag(made, required=False)
  return made


def test_overrides_are_taken_out_in_order(parser):
  flags, overrides = entry.parse_arguments(
    parser,
    ['--gin.B=1', '--gin_file=a.gin', '--gin.A', 'x', '--gin_file', 'b.gin']
    + ['--gin.DATA_DIR=a=b', '--run_dir=r'],
  )
  assert flags.gin_file == ['a.gin', 'b.gin']
  assert flags.run_dir == 'r'
  assert overrides == ['B=1', 'A=x', 'DATA_DIR=a=b']


def test_unknown_flags_are_refused(parser, capsys):
  with pytest.raises(SystemExit) as caught:
    entry.parse_arguments(parser, ['--gin_file=a.gin', '--gin_fil=b'])
  assert caught.value.code == 2
  assert '--gin_fil' in capsys.readouterr().err


def test_help_shows_how_to_override(parser):
  assert '--gin.NAME VALUE' in parser.format_help()


DOOR = """
import os, signal, sys, tempfile
print('a result')
print('a bar\\ra warning', file=sys.stderr)
what = sys.argv[1]
open(os.path.join(tempfile.gettempdir(), 'left'), 'w').write(what)
open(sys.argv[2], 'w').write(tempfile.gettempdir())
if what == 'killed':
  os.kill(os.getpid(), signal.SIGKILL)
if what == 'bug':
  raise ValueError('a bug')
if what == 'refused':
  print('error: no such folder', file=sys.stderr)
  sys.exit(2)
"""


@pytest.mark.parametrize(
  ('what', 'reason'),
  [
    ('refused', '^no such folder$'),
    ('killed', 'memory'),
    ('bug', 'status 1: see what it says above'),
    ('fine', None),
  ],
)
def test_a_door_run_apart(what, reason, tmp_path, monkeypatch, capfd):
  """Its error is raised once; what else it says is passed on."""
  (tmp_path / 'adoor.py').write_text(DOOR)
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  arguments = [what, str(tmp_path / 'scratch')]
  if reason is None:
    entry.run_apart('adoor', arguments)
  else:
    with pytest.raises(UserError, match=reason):
      entry.run_apart('adoor', arguments)
  captured = capfd.readouterr()
  assert captured.err.startswith('a bar\ra warning\n')
  assert 'error: ' not in captured.err.replace('ValueError: ', '')
  assert ('a bug' in captured.err) == (what == 'bug')
  scratch = (tmp_path / 'scratch').read_text()
  assert not pathlib.Path(scratch).exists()


def test_a_disk_that_refuses_is_one_line(monkeypatch, capsys):
  def main(arguments):
    raise OSError(errno.ENOSPC, 'No space left on device', 'runs/x')

  assert run_door(monkeypatch, main) == 2
  line = capsys.readouterr().err
  assert line == 'error: runs/x: No space left on device\n'


@pytest.mark.parametrize(
  ('kind', 'said', 'status'),
  [(signal.SIGINT, 'interrupted', 130), (signal.SIGTERM, 'terminated', 143)],
)
def test_a_signal_to_the_caller_alone_ends_the_door_tidily(
  kind, said, status, tmp_path
):
  (tmp_path / 'adoor.py').write_text(
    'import pathlib, sys, time\n'
    'from gr_jax import entry\n'
    'def main(arguments):\n'
    '  try:\n'
    '    pathlib.Path(arguments[0]).touch()\n'
    '    time.sleep(60)\n'
    '  finally:\n'
    '    pathlib.Path(arguments[0]).unlink()\n'
    'entry.run_main(main)\n'
  )
  begun = tmp_path / 'begun'
  # A job that a shell starts in the background inherits SIGINT ignored.
  code = (
    'import signal\n'
    'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
    'from gr_jax import entry\n'
    'entry.run_main(lambda a:'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', f'{code} entry.run_apart("adoor", a))', str(begun)],
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{ROOT}'},
  )
  try:
    while not begun.exists():
      assert process.poll() is None
    process.send_signal(kind)
    assert process.communicate(timeout=30)[1] == f'{said}\n'
  finally:
    process.kill()
    process.communicate()
  assert process.returncode == status
  assert not begun.exists()


def test_a_repeated_sigterm_does_not_end_the_tidying(monkeypatch, capsys):
  order = []

  def main(arguments):
    try:
      signal.raise_signal(signal.SIGTERM)
    finally:
      signal.raise_signal(signal.SIGTERM)
      order.append('tidy')

  before = signal.getsignal(signal.SIGTERM)
  assert run_door(monkeypatch, main) == 143
  assert capsys.readouterr().err == 'terminated\n'
  assert order == ['tidy']
  assert signal.getsignal(signal.SIGTERM) is before
