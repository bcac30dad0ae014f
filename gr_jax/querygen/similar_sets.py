"""Finds sets that share most of their items, exactly, among millions.

Two sets of a Jaccard similarity of t or more share one of their first
|s| - ceil(t |s|) + 1 items in any order that is common to all sets (prefix
filtering: Chaudhuri 2006; Bayardo 2007). In an order by rarity few sets share
one of them. Of these only such are compared as can share enough of what comes
after it (positional filtering: Xiao et al. 2008).
"""

import collections
import math
from collections.abc import Callable, Hashable

from gr_jax.querygen.words import overlap


class SimilarSets:
  """Sets of items that can be asked for one like another."""

  def __init__(self, threshold: float, rarity: Callable[[Hashable], float]):
    """Starts without a set.

    Args:
      threshold: Jaccard similarity from which sets are alike, above 0.
      rarity: an item's place among all, the rarest have the least; must not
        change while the sets are used.
    """
    self._threshold = threshold
    self._rarity = rarity
    self._sets: list[frozenset] = []
    # Sets, and where in its order a set has the item.
    self._with_item: dict[Hashable, list[tuple[int, int]]] = (
      collections.defaultdict(list)
    )

  def __len__(self) -> int:
    return len(self._sets)

  def add(self, items: frozenset) -> None:
    """Adds a set; an empty one is like none."""
    for place, item in enumerate(self._prefix(items)):
      self._with_item[item].append((len(self._sets), place))
    self._sets.append(items)

  def find(self, items: frozenset) -> int | None:
    """The number of the first set that is like this one, None for none."""
    size, share = len(items), self._threshold / (1 + self._threshold)
    seen: set[int] = set()
    best = None
    for place, item in enumerate(self._prefix(items)):
      for number, its_place in self._with_item.get(item, ()):
        if number in seen or (best is not None and number > best):
          continue
        seen.add(number)
        other = self._sets[number]
        # Neither has an item in common with the other before this one.
        most = min(size - place, len(other) - its_place)
        if most < share * (size + len(other)) - 1e-9:
          continue
        if overlap(items, other) >= self._threshold:
          best = number
    return best

  def _prefix(self, items: frozenset) -> list[Hashable]:
    # What a product of floats puts a hair above a whole number is that number.
    least = math.ceil(self._threshold * len(items) - 1e-9)
    rare = sorted(items, key=lambda item: (self._rarity(item), item))
    return rare[: len(items) - least + 1]
