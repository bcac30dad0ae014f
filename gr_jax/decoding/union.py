"""Several tries searched as one trie of all their documents.

An index that changes keeps what came last in a small trie beside the large one.
At every position each trie gives the best W continuations of its own; a code
that continues a beam in several of them is one continuation. What is among the
best W of all is among the best W of every trie that has it, so nothing is lost.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gr_jax.decoding.continuations import (
  Continuations,
  Nodes,
  best_continuations,
  first_codes,
)
from gr_jax.decoding.top_k import FLOOR, rows
from gr_jax.decoding.trie import TrieTables
from gr_jax.decoding.visibility import Visible

# One trie, or several that are searched as one.
Tries = TrieTables | tuple[TrieTables, ...]
# Of the one, or of each of several; None where all documents count.
Seen = Visible | None | tuple[Visible | None, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Extended:
  """Beams that are one code longer, best first.

  Attributes:
    scores_BW: of the prefix with the code, FLOOR where there is none.
    parents_BW: beam that is continued.
    codes_BW: the code.
    nodes: reached, one a trie; of no rows where a trie has none.
  """

  scores_BW: jax.Array
  parents_BW: jax.Array
  codes_BW: jax.Array
  nodes: tuple[Nodes, ...]


def parts_of(tables: Tries) -> tuple[TrieTables, ...]:
  """The tries, one or several."""
  return tables if isinstance(tables, tuple) else (tables,)


def seen_in(tables: Tries, visible: Seen) -> tuple[Visible | None, ...]:
  """Which documents count, for each trie."""
  if isinstance(visible, tuple):
    return visible
  assert visible is None or not isinstance(tables, tuple)
  return (visible,) * len(parts_of(tables))


def first_of_all(
  tables: Tries, scores_B1K: jax.Array, width: int, visible: Seen = None
) -> Extended:
  """The best first codes of all tries.

  Args:
    tables: the tries.
    scores_B1K: score of each first code; NaN or -inf count as the least.
    width: codes that are kept.
    visible: which documents count.
  """
  both = zip(parts_of(tables), seen_in(tables, visible), strict=True)
  found = [first_codes(part, scores_B1K, width, seen) for part, seen in both]
  return joined(width, found)


def best_of_all(
  tables: Tries,
  nodes: tuple[Nodes, ...],
  beams_BW: jax.Array,
  scores_BWK: jax.Array,
  level: jax.Array | int,
  width: int,
  visible: Seen = None,
) -> Extended:
  """The `width` best of all allowed continuations of all beams in all tries.

  Ties go to the better-placed beam, then to the lower code. Tries behind the
  first are looked at where a beam has come to one of their nodes.

  Args:
    tables: the tries.
    nodes: reached by the beams in each, with `level` codes.
    beams_BW: scores of the beams.
    scores_BWK: score of each next code; NaN or -inf count as the least.
    level: position of the next code.
    width: continuations that are kept.
    visible: which documents count.
  """
  parts, seen = parts_of(tables), seen_in(tables, visible)

  def best(part):
    return best_continuations(
      parts[part], nodes[part], beams_BW, scores_BWK, level, width, seen[part]
    )

  first = best(0)
  if len(parts) == 1:
    return joined(width, [first])
  others = range(1, len(parts))
  reached = [jnp.any(nodes[part].sizes_BW > 0) for part in others]
  return jax.lax.cond(
    jnp.any(jnp.stack(reached)),
    lambda: joined(width, [first, *map(best, others)]),
    lambda: _alone(first, len(parts)),
  )


def joined(width: int, found: Sequence[Continuations]) -> Extended:
  """The best of several tries' continuations of the same beams.

  Args:
    width: continuations that are kept.
    found: of each trie, its own best `width`.
  """
  if len(found) == 1:
    return _alone(found[0], 1)
  both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *found)
  parts_X = jnp.repeat(jnp.arange(len(found), dtype=jnp.int32), width)
  parts_BX = jnp.broadcast_to(parts_X[None], both.codes_BW.shape)
  # Stable: where several tries have a continuation they stand in their order.
  least_BX, parents_BX, codes_BX, parts_BX, starts_BX, ends_BX = jax.lax.sort(
    (
      -both.scores_BW,
      both.parents_BW,
      both.codes_BW,
      parts_BX,
      both.nodes.starts_BW,
      both.nodes.ends_BW,
    ),
    dimension=1,
    num_keys=3,
  )
  there_BX = least_BX < -FLOOR
  again_BX = there_BX & as_before(parents_BX) & as_before(codes_BX)
  # The place of each kept one's first entry.
  kept_BX = jnp.cumsum(~again_BX, axis=1, dtype=jnp.int32)
  places_W = jnp.arange(1, width + 1, dtype=jnp.int32)
  places_BW = jax.vmap(lambda kept_X: jnp.searchsorted(kept_X, places_W))(
    kept_BX
  )
  nodes = []
  for part in range(len(found)):
    own_BX = parts_BX == part
    bounds = []
    for bound_BX in (starts_BX, ends_BX):
      bound_BX = jnp.where(own_BX, bound_BX, 0)
      # That of a trie may stand in any of the entries of the same.
      summed_BX = bound_BX
      for ahead in range(1, len(found)):
        same_BX = _ahead(kept_BX, ahead) == kept_BX
        summed_BX += jnp.where(same_BX, _ahead(bound_BX, ahead), 0)
      bounds.append(rows(summed_BX, places_BW))
    nodes.append(Nodes(*bounds))
  return Extended(
    -rows(least_BX, places_BW),
    rows(parents_BX, places_BW),
    rows(codes_BX, places_BW),
    tuple(nodes),
  )


def _alone(found: Continuations, parts: int) -> Extended:
  """Those of the first trie, where the others have none."""
  zeros_BW = jnp.zeros_like(found.codes_BW)
  nodes = found.nodes, *(Nodes(zeros_BW, zeros_BW),) * (parts - 1)
  return Extended(found.scores_BW, found.parents_BW, found.codes_BW, nodes)


def as_before(array_BX: jax.Array) -> jax.Array:
  """[B, X] bool, which stand behind their equals."""
  same_BX = array_BX[:, 1:] == array_BX[:, :-1]
  return jnp.pad(same_BX, ((0, 0), (1, 0)))


def _ahead(array_BX, places):
  """What stands so many places ahead, 0 past the end."""
  return jnp.pad(array_BX[:, places:], ((0, 0), (0, places)))
