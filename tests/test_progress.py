"""A bar for a person, a line at times for a log, silence for what is short."""

import io

import pytest

from gr_jax import progress


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  return now


def test_pace_says_what_remains_at_most_every_ten_seconds(clock):
  stream = io.StringIO()
  with progress.Pace(1000, 'text', stream) as pace:
    for done in range(10, 410, 10):
      clock[0] += 1.0
      # The texts still to come are longer.
      pace.show(done, done / 2000)
  assert stream.getvalue().splitlines() == [
    'text 100/1000 10 texts/s, 03:10 left',
    'text 200/1000 10 texts/s, 03:00 left',
    'text 300/1000 10 texts/s, 02:50 left',
    'text 400/1000 10 texts/s, 02:40 left',
  ]


def test_pace_is_silent_about_what_is_short(clock):
  stream = io.StringIO()
  with progress.Pace(10, 'text', stream) as pace:
    clock[0] += 3.0
    pace.show(10, 1.0)
  assert stream.getvalue() == ''


def test_pace_is_a_bar_on_a_terminal_and_goes_when_done(monkeypatch):
  made = []

  class Bar(progress.tqdm):
    def __init__(self, *args, **kwargs):
      made.append(kwargs['delay'])
      super().__init__(*args, **{**kwargs, 'delay': 0.0, 'mininterval': 0.0})

  monkeypatch.setattr(progress, 'tqdm', Bar)
  stream = Terminal()
  with progress.Pace(20, 'text', stream) as pace:
    pace.show(20, 1.0)
  shown = stream.getvalue()
  assert '20/20' in shown and 'texts/s, 00:00 left' in shown
  assert shown.rstrip(' ').endswith('\r')
  assert made == [1.0]
