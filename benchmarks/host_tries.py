"""What the field walks on the host: nested dictionaries, a set of prefixes.

Both are exact, and take what a model says of the next codes to the host at
every step. They are here to be measured beside the trie on the device.
"""

from collections.abc import Callable

import numpy as np

# [beams, K] scores of the next codes, from the last codes and their position.
Scores = Callable[[np.ndarray, int], np.ndarray]


class DictionaryTrie:
  """A dictionary a node."""

  def __init__(self, codes_NL: np.ndarray):
    """Puts in one identifier after the other."""
    self._root: dict = {}
    for row in codes_NL.tolist():
      node = self._root
      for code in row:
        node = node.setdefault(code, {})

  def search(self, scores: Scores, width: int, length: int):
    """[W, L] identifiers and [W] scores, best first."""
    nodes, totals_W = [self._root], np.zeros(1, np.float32)
    codes_WL = np.zeros((1, 0), np.int64)
    for level in range(length):
      scores_WK = scores(codes_WL, level)
      children = [np.fromiter(node, np.int64, len(node)) for node in nodes]
      codes, parents = (
        np.concatenate(children),
        np.repeat(np.arange(len(nodes)), [len(part) for part in children]),
      )
      found = totals_W[parents] + scores_WK[parents, codes]
      best = np.argsort(-found, kind='stable')[:width]
      parents, codes, totals_W = parents[best], codes[best], found[best]
      nodes = [
        nodes[parent][code]
        for parent, code in zip(parents.tolist(), codes.tolist(), strict=True)
      ]
      codes_WL = np.column_stack([codes_WL[parents], codes])
    return codes_WL, totals_W


class PrefixSet:
  """The prefixes of all identifiers, hashed."""

  def __init__(self, codes_NL: np.ndarray):
    """Puts in all prefixes."""
    self._prefixes = [
      set(map(tuple, np.unique(codes_NL[:, : level + 1], axis=0).tolist()))
      for level in range(codes_NL.shape[1])
    ]

  def search(self, scores: Scores, width: int, length: int):
    """[W, L] identifiers and [W] scores, best first.

    The codes of each beam are looked up from the best on, until `width` are
    found: more of one beam cannot stay.
    """
    beams, totals_W = [()], np.zeros(1, np.float32)
    for level in range(length):
      scores_WK = scores(np.array(beams).reshape(len(beams), level), level)
      known, found = self._prefixes[level], []
      for beam, total, scores_K in zip(beams, totals_W, scores_WK, strict=True):
        left = width
        for code in np.argsort(-scores_K, kind='stable').tolist():
          if (*beam, code) in known:
            found.append((total + scores_K[code], (*beam, code)))
            left -= 1
            if not left:
              break
      found.sort(key=lambda pair: -pair[0])
      totals_W = np.array([total for total, _ in found[:width]], np.float32)
      beams = [beam for _, beam in found[:width]]
    return np.array(beams), totals_W
