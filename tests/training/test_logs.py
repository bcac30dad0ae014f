"""Numbers arrive on disk, in TensorBoard's format, without TensorFlow."""

import io
import math
import pathlib
import subprocess
import sys

import pytest

from gr_jax.training.logs import MetricWriter, read_jsonl


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def open_writer(tmp_path):
  opened = []

  def run(**options):
    options.setdefault('stream', io.StringIO())
    writer = MetricWriter(tmp_path, steps=10, **options)
    opened.append(writer)
    return writer

  yield run
  for writer in opened:
    writer.close()


def test_jsonl_is_on_disk_at_once(open_writer, tmp_path):
  writer = open_writer()
  writer.write(1, {'loss': 2.5, 'broken': math.nan})
  writer.write(2, {'loss': 1.5})
  logs = read_jsonl(tmp_path)
  assert [log['step'] for log in logs] == [1, 2]
  assert logs[0]['loss'] == 2.5
  assert logs[0]['broken'] is None


def test_resume_drops_what_it_repeats(open_writer, tmp_path):
  writer = open_writer()
  for step in (1, 2, 3):
    writer.write(step, {'loss': step})
  writer.close()
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 4, "lo')
  resumed = open_writer(first_step=2)
  resumed.write(3, {'loss': 30.0})
  assert [log['loss'] for log in read_jsonl(tmp_path)] == [1, 2, 30]


def test_lines_without_a_terminal(open_writer):
  stream = io.StringIO()
  writer = open_writer(stream=stream, line_every=1000.0)
  for step in (1, 2, 3):
    writer.write(step, {'loss': 0.5, 'examples_per_second': 1234.5})
  writer.close()
  assert stream.getvalue() == (
    'step 1/10 loss=0.5 1,234 examples/s\nstep 3/10 loss=0.5 1,234 examples/s\n'
  )


def test_bar_on_a_terminal(open_writer):
  stream = Terminal()
  writer = open_writer(stream=stream, first_step=4)
  writer.write(10, {'loss': 0.25, 'examples_per_second': 99.0})
  writer.close()
  assert '10/10' in stream.getvalue()
  assert 'loss=0.25 99 examples/s' in stream.getvalue()


READER = """
import glob, sys, types
# What TensorBoard's builds without TensorFlow define.
sys.modules['tensorboard.compat.notf'] = types.ModuleType('notf')
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.compat.proto import event_pb2
path, = glob.glob(sys.argv[1] + '/events*')
for event in event_file_loader.RawEventFileLoader(path).Load():
  event = event_pb2.Event.FromString(event)
  for value in event.summary.value:
    print(event.step, value.tag, round(value.simple_value, 3))
"""

WRITER = """
import sys
from gr_jax.training.logs import MetricWriter
writer = MetricWriter(sys.argv[1], steps=2)
writer.write(1, {'loss': 2.5, 'accuracy': 0.25})
writer.write(2, {'loss': 1.5})
writer.close()
print('tensorflow' in sys.modules)
"""


def run_python(code, *args):
  return subprocess.run(
    [sys.executable, '-c', code, *map(str, args)],
    capture_output=True,
    text=True,
    check=True,
  ).stdout


def test_tensorboard_reads_what_no_tensorflow_wrote(tmp_path: pathlib.Path):
  assert run_python(WRITER, tmp_path) == 'False\n'
  assert run_python(READER, tmp_path).splitlines() == [
    '1 loss 2.5',
    '1 accuracy 0.25',
    '2 loss 1.5',
  ]
