"""Times of programs that take turns, so that all see the same machine."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Times:
  """Milliseconds of each program in every turn.

  Attributes:
    clock: what passed.
    processor: what this process took of all processors, which others at work
      on the machine disturb less.
  """

  clock: dict[str, list[float]]
  processor: dict[str, list[float]]

  def medians(self) -> dict[str, float]:
    """By the clock."""
    return {name: statistics.median(each) for name, each in self.clock.items()}

  def quartiles(self) -> dict[str, list[float]]:
    """Lower and upper one, by the clock."""
    return {name: outer(each) for name, each in self.clock.items()}

  def least(self) -> dict[str, float]:
    """By the clock."""
    return {name: min(each) for name, each in self.clock.items()}

  def processor_medians(self) -> dict[str, float]:
    """Of processor time."""
    return {
      name: statistics.median(each) for name, each in self.processor.items()
    }

  def longer(self, one: str, other: str) -> dict[str, list[float]]:
    """Percent by which `one` takes longer than `other` in each turn.

    Whatever else the machine does slows both of a turn alike.

    Args:
      one: a program.
      other: what it is compared with.

    Returns:
      '' for the clock, and '_processor'.
    """
    return {
      name: [
        100 * (first / second - 1)
        for first, second in zip(times[one], times[other], strict=True)
      ]
      for name, times in (('', self.clock), ('_processor', self.processor))
    }


def outer(values: Sequence[float]) -> list[float]:
  """Lower and upper quartile."""
  return statistics.quantiles(values, n=4)[::2]


def measure(
  programs: Mapping[str, Callable[[jax.Array], Any]], turns: int
) -> Times:
  """Runs programs of a key, one after the other in every turn.

  Every other turn goes backwards: what a program leaves in the caches is
  nobody's advantage.
  """
  for program in programs.values():
    jax.block_until_ready(program(jax.random.key(0)))
  times = Times(
    {name: [] for name in programs}, {name: [] for name in programs}
  )
  for turn in range(turns):
    key = jax.block_until_ready(jax.random.key(turn))
    for name in list(programs)[:: 1 - turn % 2 * 2]:
      clock, processor = time.perf_counter(), time.process_time()
      jax.block_until_ready(programs[name](key))
      times.clock[name].append(1e3 * (time.perf_counter() - clock))
      times.processor[name].append(1e3 * (time.process_time() - processor))
  return times
