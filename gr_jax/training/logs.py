"""Where training's numbers go: JSONL, TensorBoard, and whoever watches.

TensorBoard's own writer imports TensorFlow where that is installed (seconds
and .8 GB): an event file is a few bytes of framing, written here.
"""

import contextlib
import json
import math
import pathlib
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import TextIO

import google_crc32c
import jax
from tensorboard.compat.proto import event_pb2, summary_pb2

from gr_jax.progress import Watcher

_RATE = 'examples_per_second'


def open_log(
  stack: contextlib.ExitStack,
  directory: pathlib.Path,
  steps: int,
  first_step: int | jax.Array,
) -> Callable[[int, Mapping[str, float]], None]:
  """What writes the logs of a run, which process 0 does for all.

  Args:
    stack: shuts the files, whatever ends it.
    directory: of the logs.
    steps: of the whole training.
    first_step: where this process starts.
  """
  if jax.process_index():
    return lambda step, values: None
  writer = MetricWriter(directory, steps, int(first_step))
  stack.callback(writer.close)
  return writer.write


class MetricWriter:
  """Writes each log to LOGS/metrics.jsonl, to TensorBoard and to stderr."""

  def __init__(
    self,
    directory: str | pathlib.Path,
    steps: int,
    first_step: int = 0,
    stream: TextIO | None = None,
    line_every: float = 10.0,
  ):
    """Opens the files; a resumed run appends and drops what it will repeat.

    Args:
      directory: made if need be.
      steps: of the whole training, for the bar.
      first_step: where this process starts; later lines in the JSONL are of
        an interrupted run and are dropped.
      stream: standard error unless given; a bar on a terminal, else lines.
      line_every: seconds between lines where there is no bar.
    """
    self._directory = pathlib.Path(directory)
    self._directory.mkdir(parents=True, exist_ok=True)
    path = self._directory / 'metrics.jsonl'
    _drop_after(path, first_step)
    self._jsonl = path.open('a', encoding='utf-8')
    self._events = _EventFile(self._directory)
    self._watcher = Watcher(steps, 'step', first_step, stream, line_every)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Logs scalars; they are on disk when this returns.

    Args:
      step: updates done.
      values: name to number; NaN and Inf are written as null.
    """
    plain = {name: float(value) for name, value in values.items()}
    finite = {k: v if math.isfinite(v) else None for k, v in plain.items()}
    line = json.dumps({'step': step, 'time': time.time(), **finite})
    self._jsonl.write(line + '\n')
    self._jsonl.flush()
    self._events.write(step, plain)
    self._watcher.show(step, _text(plain))

  def close(self) -> None:
    """Closes the files and the bar."""
    self._watcher.close()
    self._jsonl.close()
    self._events.close()


def read_jsonl(directory: str | pathlib.Path) -> list[dict]:
  """The logs of a run in order, as `write` wrote them."""
  path = pathlib.Path(directory) / 'metrics.jsonl'
  return [json.loads(line) for line in path.read_text().splitlines()]


def _drop_after(path: pathlib.Path, step: int) -> None:
  """Drops logs after a step, and a line that a crash cut short."""
  if not path.exists():
    return
  text = path.read_text(encoding='utf-8')
  whole = [line for line in text.splitlines(keepends=True) if line[-1] == '\n']
  kept = [line for line in whole if json.loads(line)['step'] <= step]
  if ''.join(kept) != text:
    partial = path.with_suffix('.partial')
    partial.write_text(''.join(kept), encoding='utf-8')
    partial.replace(path)


class _EventFile:
  """A TensorBoard event file: TFRecord frames of Event messages."""

  def __init__(self, directory: pathlib.Path):
    now = time.time()
    # TensorBoard reads the files of a folder in the order of their names.
    name = f'events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}'
    self._file = (directory / name).open('wb')
    self._frame(event_pb2.Event(wall_time=now, file_version='brain.Event:2'))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    summary = summary_pb2.Summary(
      value=[
        summary_pb2.Summary.Value(tag=tag, simple_value=value)
        for tag, value in values.items()
      ]
    )
    self._frame(
      event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
    )

  def close(self) -> None:
    self._file.close()

  def _frame(self, event: event_pb2.Event) -> None:
    data = event.SerializeToString()
    length = struct.pack('<Q', len(data))
    for part in (length, _masked_crc(length), data, _masked_crc(data)):
      self._file.write(part)
    self._file.flush()


def _masked_crc(data: bytes) -> bytes:
  """TFRecord's checksum: crc32c, rotated right by 15 bits, plus a constant."""
  crc = google_crc32c.value(data)
  rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
  return struct.pack('<I', (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def _text(values: Mapping[str, float]) -> str:
  """'loss=1.234 ... 5678 examples/s'."""
  shown = [f'{k}={v:.4g}' for k, v in values.items() if k != _RATE]
  if _RATE in values:
    shown.append(f'{values[_RATE]:,.0f} examples/s')
  return ' '.join(shown)
