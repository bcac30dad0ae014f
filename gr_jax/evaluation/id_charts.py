"""Charts of the identifier report as inline SVG; colours come by class."""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 42
# Use of a code over its even share; the first class is for dead codes.
HEAT_BOUNDS = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)
HEAT_NAMES = (
  'no document', 'under 1/4', '1/4 to 1/2', '1/2 to 4/5', 'even', '5/4 to 2',
  '2 to 4', 'over 4 times',
)  # fmt: skip
_CELLS = 512


def _number(value: float) -> str:
  """As few digits as a coordinate needs."""
  return f'{value:.1f}'.rstrip('0').rstrip('.')


def _short(value: float) -> str:
  """An axis label: 10k, 2M, 0.1."""
  for size, suffix in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if value >= size:
      return f'{value / size:g}{suffix}'
  return f'{value:g}'


class _LogAxis:
  """Maps positive values to coordinates, by their logarithm."""

  def __init__(self, low: float, high: float, start: float, end: float):
    self._low, self._span = math.log10(low), math.log10(high / low)
    self._start, self._length = start, end - start
    self.low, self.high = low, high

  def __call__(self, value: float) -> float:
    share = (math.log10(value) - self._low) / self._span
    return self._start + min(max(share, 0), 1) * self._length

  def ticks(self) -> list[float]:
    """Powers of ten, and their doubles and halves where there are few."""
    decades = range(math.floor(self._low), math.ceil(self._low + self._span))
    steps = (1, 2, 5) if self._span < 2.2 else (1,)
    every = max(1, round(self._span / 6))
    ticks = [s * 10.0**d for d in [*decades, decades.stop] for s in steps
             if d % every == 0]  # fmt: skip
    return [t for t in ticks if self.low <= t <= self.high * 1.0001]


def histogram(bins: Sequence[Mapping[str, float]], what: str, key: str) -> str:
  """IDs over documents per ID on log-log axes, beside uniform random IDs.

  A bin of several counts shows the mean over them, so that its height may be
  compared with that of a single count.

  Args:
    bins: of `id_measures.occupancy`.
    what: 'IDs' or 'prefixes'.
    key: prefix of the ids in the SVG, one a chart.
  """
  observed = [_density(b, 'observed') for b in bins]
  expected = [_density(b, 'expected') for b in bins]
  seen = [v for v in observed if v > 0]
  bottom = 10.0 ** math.floor(math.log10(min(*seen, 0.9)))
  top = max(*seen, *expected) * 1.4
  x = _LogAxis(0.8, max(bins[-1]['to'] * 1.2, 5), _LEFT, _WIDTH - _RIGHT)
  y = _LogAxis(bottom, max(top, 10), _HEIGHT - _BOTTOM, _TOP)
  holder = 'ID' if what == 'IDs' else 'prefix'
  parts = [_grid(x, y, f'documents of one {holder}', what)]
  base = y(bottom)
  for b, value in zip(bins, observed, strict=True):
    if value > 0:
      left, right = x(b['from'] - 0.4), x(b['to'] + 0.4)
      parts.append(
        f'<rect class="bar" x="{_number(left)}" y="{_number(y(value))}" '
        f'width="{_number(right - left)}" height="{_number(base - y(value))}">'
        f'<title>{_bin_title(b)}</title></rect>'
      )
  drawn = [
    (x(math.sqrt(b['from'] * b['to'])), y(v))
    for b, v in zip(bins, expected, strict=True)
    if v >= bottom
  ]
  points = ' '.join(f'{_number(px)},{_number(py)}' for px, py in drawn)
  parts.append(f'<polyline class="expected" points="{points}"/>')
  parts += [
    f'<circle class="dot" cx="{_number(px)}" cy="{_number(py)}" r="3"/>'
    for px, py in drawn
  ]
  title = f'Number of {what} by the documents they hold, and of random ones'
  return _svg(_WIDTH, _HEIGHT, title, ''.join(parts), key)


def _density(b: Mapping[str, float], name: str) -> float:
  return b[name] / (b['to'] - b['from'] + 1)


def _bin_title(b: Mapping[str, float]) -> str:
  span = f'{b["from"]:,}'
  if b['to'] > b['from']:
    span += f' to {b["to"]:,}'
  return (
    f'{span} documents: {b["observed"]:,} found, '
    f'{b["expected"]:,.1f} expected of random IDs'
  )


def _grid(x: _LogAxis, y: _LogAxis, x_name: str, y_name: str) -> str:
  parts = []
  base = _HEIGHT - _BOTTOM
  for tick in y.ticks():
    at = _number(y(tick))
    parts.append(
      f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" '
      f'y2="{at}"/><text x="{_LEFT - 7}" y="{at}" class="tick end" '
      f'dominant-baseline="middle">{_short(tick)}</text>'
    )
  for tick in x.ticks():
    at = _number(x(tick))
    parts.append(
      f'<text x="{at}" y="{base + 17}" class="tick mid">{_short(tick)}</text>'
    )
  parts.append(
    f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" '
    f'y2="{base}"/><text class="name mid" x="{(_LEFT + _WIDTH) / 2:.0f}" '
    f'y="{_HEIGHT - 6}">{x_name}</text><text class="name mid" transform="'
    f'translate(13 {(base + _TOP) / 2:.0f}) rotate(-90)">{y_name}</text>'
  )
  return ''.join(parts)


def _svg(width: int, height: int, title: str, body: str, key: str) -> str:
  return (
    f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
    f'aria-labelledby="{key}"><title id="{key}">{html.escape(title)}</title>'
    f'{body}</svg>'
  )


def heat_cells(usage: Sequence[int]) -> tuple[list[float], int]:
  """Mean use of neighbouring codes, few enough cells for a strip.

  Args:
    usage: documents of each code of a position.

  Returns:
    The cells and how many codes one stands for.
  """
  together = -(-len(usage) // _CELLS)
  starts = np.arange(0, len(usage), together)
  sums = np.add.reduceat(np.asarray(usage, np.float64), starts)
  sizes = np.diff(np.append(starts, len(usage)))
  return (sums / sizes).round(2).tolist(), together


def heat_levels(cells: Sequence[float], even: float) -> np.ndarray:
  """Class of each cell: 0 for dead codes, then by its use over the even."""
  ratio = np.asarray(cells) / even
  return np.where(ratio == 0, 0, 1 + np.searchsorted(HEAT_BOUNDS, ratio))


def _heat_paths(levels: np.ndarray) -> str:
  """One path a class: runs of cells of equal class are one rectangle."""
  firsts = np.flatnonzero(np.diff(levels, prepend=-1))
  widths = np.diff(np.append(firsts, len(levels)))
  paths = []
  for level in range(len(HEAT_NAMES)):
    runs = [
      f'M{first} 0h{width}v1h-{width}z'
      for first, width in zip(firsts.tolist(), widths.tolist(), strict=True)
      if levels[first] == level
    ]
    if runs:
      paths.append(f'<path class="h{level}" d="{"".join(runs)}"/>')
  return ''.join(paths)


def heat_strip(
  cells: Sequence[float], even: float, title: str, key: str
) -> str:
  """A position's codes side by side, and the same by use (class 'by-use').

  Args:
    cells: of `heat_cells`.
    even: documents of a code if all had as many.
    title: for readers of the SVG.
    key: id of the title, one a strip.
  """
  levels = heat_levels(cells, even)
  ordered = heat_levels(sorted(cells, reverse=True), even)
  return (
    f'<svg class="strip" viewBox="0 0 {len(cells)} 1" role="img" '
    'preserveAspectRatio="none" shape-rendering="crispEdges" '
    f'aria-labelledby="{key}"><title id="{key}">{html.escape(title)}</title>'
    f'<g class="by-code">{_heat_paths(levels)}</g>'
    f'<g class="by-use">{_heat_paths(ordered)}</g></svg>'
  )


def recall_plot(grouping: Mapping, systems: Sequence[str], key: str) -> str:
  """Recall of each group with its interval, a lane for each system."""
  lane, gap, left = 13, 22, 10
  shown = [
    number
    for number in range(len(grouping['groups']))
    if grouping['rows'][systems[0]][number]
  ]
  width = _WIDTH - left - 20
  height = len(shown) * (len(systems) * lane + gap) + 26

  def at(value: float) -> str:
    return _number(left + min(max(value, 0), 1) * width)

  parts = []
  for tick in range(0, 11, 2):
    parts.append(
      f'<line class="grid" x1="{at(tick / 10)}" x2="{at(tick / 10)}" y1="4" '
      f'y2="{height - 20}"/><text class="tick mid" x="{at(tick / 10)}" '
      f'y="{height - 5}">{tick / 10:g}</text>'
    )
  y = 4
  for number in shown:
    group = grouping['groups'][number]
    pairs = grouping['rows'][systems[0]][number]['pairs']
    parts.append(
      f'<text class="group" x="{left}" y="{y + 13}">{html.escape(group)} '
      f'<tspan class="small">({pairs:,} pairs)</tspan></text>'
    )
    y += gap
    for order, system in enumerate(systems):
      row = grouping['rows'][system][number]
      low, high = (row['recall'] + s * row['margin'] for s in (-1, 1))
      middle = y + lane / 2
      parts.append(
        f'<g class="s{order % 6}"><title>{html.escape(system)}, '
        f'{html.escape(group)}: {row["recall"]:.3f} ± {row["margin"]:.3f}'
        f'</title><line x1="{at(low)}" x2="{at(high)}" y1="{middle}" '
        f'y2="{middle}"/><circle cx="{at(row["recall"])}" cy="{middle}" '
        f'r="{4.5 if order == 0 else 3.5}"/></g>'
      )
      y += lane
  title = f'Recall of ten by: {grouping["name"]}'
  return _svg(_WIDTH, height, title, ''.join(parts), key)
