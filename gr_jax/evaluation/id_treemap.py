"""The largest nodes of the tree of prefixes, few enough for a page."""

from collections.abc import Sequence

import numpy as np

from gr_jax.evaluation.prefixes import PrefixTree

_FIRST_LEVEL = 512
_SAMPLES = 3
_TITLE_LENGTH = 90


def one_line(text: str, length: int = _TITLE_LENGTH) -> str:
  """Printable text on one line: a title must not steer what shows it."""
  text = text[: 4 * length]
  printable = (c if c.isprintable() else ' ' for c in text)
  line = ' '.join(''.join(printable).split())
  return line if len(line) <= length else line[: length - 1].rstrip() + '…'


class _Picker:
  """Walks the tree; a node is a dict that goes to the page as it is."""

  def __init__(self, tree: PrefixTree, names: Sequence[Sequence[str]]):
    self._tree = tree
    self._names = names
    self._children = [
      tree.first_children(length) for length in range(tree.positions)
    ]
    self._bounds = [tree.bounds(n) for n in range(tree.positions + 1)]

  def node(self, length: int, number: int, label: str) -> dict:
    """A node, moved down to where its documents part ways."""
    codes = label
    while length < self._tree.positions:
      first, after = self._children[length][number : number + 2]
      if after - first > 1:
        break
      length, number = length + 1, int(first)
      code = int(self._tree.last_codes[length - 1][number])
      codes = f'{codes}-{code}' if codes else f'{code}'
    start, end = self._bounds[length][number : number + 2]
    leaves = np.searchsorted(self._bounds[-1], [start, end])
    return {
      'place': (length, number),
      'codes': codes,
      'documents': int(end - start),
      'ids': int(leaves[1] - leaves[0]),
      'samples': self._samples(int(start), int(end)),
    }

  def children(self, node: dict, most: int) -> list[dict]:
    """The largest children of a node; the rest is one node of its own."""
    length, number = node['place']
    if length == self._tree.positions:
      return []
    first, after = self._children[length][number : number + 2]
    counts = np.diff(self._bounds[length + 1][first : after + 1])
    # A rest of one is no rest.
    shown = len(counts) if len(counts) <= most else most - 1
    largest = np.argsort(-counts, kind='stable')
    prefix = f'{node["codes"]}-' if node['codes'] else ''
    codes = self._tree.last_codes[length]
    nodes = [
      self.node(length + 1, int(first + at), f'{prefix}{codes[first + at]}')
      for at in largest[:shown]
    ]
    rest = largest[shown:]
    if len(rest):
      nodes.append(
        {
          'codes': f'others ({len(rest):,})',
          'documents': int(counts[rest].sum()),
          'nodes': len(rest),
          'samples': [],
        }
      )
    return nodes

  def _samples(self, start: int, end: int) -> list[str]:
    """Titles of documents that are spread evenly over a node's."""
    places = np.linspace(start, end - 1, min(_SAMPLES, end - start))
    rows = self._tree.order_N[places.round().astype(np.int64)].tolist()
    return [
      next(filter(None, (one_line(names[row]) for names in self._names)), '')
      for row in rows
    ]


def treemap(
  tree: PrefixTree,
  names: Sequence[Sequence[str]],
  most: int = 4000,
) -> dict:
  """Picks nodes level by level, more below nodes of more documents.

  Args:
    tree: of all identifiers.
    names: what a document is called, for instance titles, texts and ids; the
      first that is not empty is shown.
    most: nodes at most, roughly.

  Returns:
    The root: {'codes', 'documents', 'ids', 'samples', 'children'} with
    children of the same form; a node 'others (n)' has 'nodes' = n, no 'ids'.
    'codes' are those from the root; a node whose documents all go on with the
    same code stands for that longer prefix too.
  """
  picker = _Picker(tree, names)
  root = picker.node(0, 0, '')
  level, left = [root], most
  while level and left > 1:
    # A part of what is left stays for deeper levels.
    quota = min(_FIRST_LEVEL, left) if level[0] is root else 3 * left // 4
    inner = [node for node in level if 'place' in node and node['ids'] > 1]
    inner.sort(key=lambda node: -node['documents'])
    documents = sum(node['documents'] for node in inner)
    below: list[dict] = []
    for node in inner:
      if quota < 2:
        break
      share = round(quota * node['documents'] / documents)
      node['children'] = picker.children(node, min(max(share, 4), quota))
      documents -= node['documents']
      quota -= len(node['children'])
      left -= len(node['children'])
      below += node['children']
    level = below
  return _without_places(root)


def _without_places(node: dict) -> dict:
  """A node and those below it as plain data for the page."""
  plain = {name: value for name, value in node.items() if name != 'place'}
  if 'children' in node:
    plain['children'] = [_without_places(child) for child in node['children']]
  return plain
