"""The compiled search: tokens in, ranked documents out, in one call."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gr_jax.decoding.beam import Beams, Rules, beam_search
from gr_jax.decoding.planning import Plan, Planning
from gr_jax.decoding.top_k import FLOOR
from gr_jax.decoding.union import Seen, Tries, parts_of, seen_in
from gr_jax.decoding.visibility import Visible
from gr_jax.retrieval.fusion import Weights, fuse
from gr_jax.types import NO_DOC

# Stands where no trie has what is asked for.
NO_PART = -1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Candidates:
  """Documents of a query, in generative order or ranked.

  Attributes:
    documents_BC: document numbers, NO_DOC where there is none.
    scores_BC: final scores, FLOOR where there is no document.
    generative_BC: scores of the documents' identifiers.
    dense_BC: dot products of query and document vectors.
    ranks_BC: places of the documents' identifiers in generative order, from
      0; NO_DOC where there is no document.
  """

  documents_BC: jax.Array
  scores_BC: jax.Array
  generative_BC: jax.Array
  dense_BC: jax.Array
  ranks_BC: jax.Array


@functools.partial(
  jax.jit,
  static_argnames=(
    'model',
    'fusion',
    'length',
    'width',
    'candidates',
    'k',
    'renormalised',
    'planning',
  ),
)
def search_program(
  model: Any,
  params: Any,
  tables: Tries,
  vectors: tuple[jax.Array, ...],
  tokens_BS: jax.Array,
  budget: jax.Array,
  weights: Weights,
  visible: Seen = None,
  *,
  fusion: str,
  length: int,
  width: int,
  candidates: int,
  k: int,
  renormalised: bool = False,
  planning: Planning | None = None,
) -> tuple[Candidates, jax.Array]:
  """Searches a batch of queries.

  Args:
    model: a Retriever, or anything that answers `apply` for its methods
      'encode', 'start' and 'decode'.
    params: of the model.
    tables: the trie of the index, or one of those that were there and one of
      those that came.
    vectors: [N, D] of the documents of each trie, padded.
    tokens_BS: the queries, 0 pads.
    budget: int32, documents scored for a query at most.
    weights: of the parts of a final score.
    visible: which documents each query may find; all when None.
    fusion: how the parts are joined, of fusion.KINDS.
    length: L, codes of an identifier.
    width: W, beams.
    candidates: C, room for `budget` documents.
    k: documents returned for a query, at most C.
    renormalised: whether codes are scored among the allowed ones alone.
    planning: how beams are kept besides by their scores.

  Returns:
    The k best documents, and [B] the documents that were scored.
  """

  def scores_of(queries_BD):
    first = parts_of(tables)[0].count
    return functools.partial(dense_scores, queries_BD, vectors, first=first)

  def rules_of(queries_BD):
    plan = Plan(planning, scores_of(queries_BD)) if planning else None
    return Rules(renormalised, plan)

  queries_BD, beams = decoded(
    model, params, tokens_BS, tables, visible, rules_of, width, length
  )
  buckets = expand_buckets(beams, tables, candidates, budget, visible)
  dense_BC = scores_of(queries_BD)(buckets[0])
  return ranked(beams, *buckets, dense_BC, weights, fusion=fusion, k=k)


def decoded(
  model: Any,
  params: Any,
  tokens_BS: jax.Array,
  tables: Tries,
  visible: Seen,
  rules_of: Callable[[jax.Array], Rules],
  width: int,
  length: int,
) -> tuple[jax.Array, Beams]:
  """[B, D] vectors of queries, and their beams.

  Args:
    model: as `search_program` has it.
    params: of the model.
    tokens_BS: the queries.
    tables: the trie, or several.
    visible: which documents each query may find; all when None.
    rules_of: vectors of the queries -> how beams are kept.
    width: W, beams.
    length: L, codes of an identifier.
  """

  def apply(method, *args):
    return model.apply({'params': params}, *args, method=method)

  encoding = apply('encode', tokens_BS)
  start = functools.partial(apply, 'start', encoding)
  step = functools.partial(apply, 'decode')
  beams = beam_search(
    start,
    step,
    tables,
    width,
    length,
    visible,
    rules_of(encoding.vectors_BD),
  )
  return encoding.vectors_BD, beams


def ranked(
  beams: Beams,
  documents_BC: jax.Array,
  beams_BC: jax.Array,
  dense_BC: jax.Array,
  weights: Weights,
  *,
  fusion: str,
  k: int,
) -> tuple[Candidates, jax.Array]:
  """The k best of some documents, and how many there are.

  Args:
    beams: finished beams.
    documents_BC: in generative order, NO_DOC where there is none.
    beams_BC: the beam of each.
    dense_BC: dot products with the queries' vectors.
    weights: of the parts of a final score.
    fusion: how the parts are joined.
    k: documents returned for a query.
  """
  generative_BC = jnp.take_along_axis(beams.scores_BW, beams_BC, axis=1)
  scores_BC = fuse(fusion, weights, dense_BC, generative_BC, beams_BC)
  found = _without_empty(
    Candidates(documents_BC, scores_BC, generative_BC, dense_BC, beams_BC)
  )
  return _ranked(found, k)


def _ranked(found: Candidates, k: int) -> tuple[Candidates, jax.Array]:
  """The k best, equal scores in generative order, and how many there were."""
  _, best_BC = jax.lax.top_k(found.scores_BC, k)
  ranked = jax.tree.map(
    lambda rows: jnp.take_along_axis(rows, best_BC, axis=1), found
  )
  scored_B = jnp.sum(found.documents_BC != NO_DOC, axis=1, dtype=jnp.int32)
  return ranked, scored_B


def _without_empty(found: Candidates) -> Candidates:
  """The same with FLOOR and NO_DOC in places that hold no document."""

  def kept(rows, empty):
    return jnp.where(found.documents_BC != NO_DOC, rows, empty)

  return Candidates(
    found.documents_BC,
    kept(found.scores_BC, FLOOR),
    kept(found.generative_BC, FLOOR),
    kept(found.dense_BC, FLOOR),
    kept(found.ranks_BC, NO_DOC),
  )


@functools.partial(jax.jit, static_argnames='model')
def encode_program(model: Any, params: Any, tokens_BS: jax.Array) -> jax.Array:
  """[B, D] unit vectors of tokenised texts."""
  encoding = model.apply({'params': params}, tokens_BS, method='encode')
  return encoding.vectors_BD


def expand_buckets(
  beams: Beams,
  tables: Tries,
  candidates: int,
  budget: jax.Array,
  visible: Seen = None,
) -> tuple[jax.Array, jax.Array]:
  """The documents of the beams' buckets, best beam first.

  Args:
    beams: finished beams.
    tables: the trie, or several.
    candidates: C, room for documents.
    budget: int32, documents taken at most; within a bucket corpus order.
    visible: which documents each query may find; all when None.

  Returns:
    [B, C] document numbers (NO_DOC behind the last) and [B, C] their beams.
  """
  parts, seen = parts_of(tables), seen_in(tables, visible)
  starts_BY, ends_BY = pieces(beams, seen)
  taken_BC, pieces_BC, firsts_BY = places_of_pieces(
    ends_BY - starts_BY, candidates, budget
  )
  beams_BC, parts_BC = jnp.divmod(pieces_BC, len(parts))
  places_C = jnp.arange(candidates, dtype=jnp.int32)
  slots_BC = (
    jnp.take_along_axis(starts_BY - firsts_BY, pieces_BC, axis=1)
    + places_C[None, :]
  )
  parts_BC = jnp.where(taken_BC, parts_BC, NO_PART)
  return documents_at(tables, slots_BC, parts_BC, visible), beams_BC


def places_of_pieces(
  sizes_BY: jax.Array, candidates: int, budget: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Where pieces of buckets come to stand, one behind the other.

  Args:
    sizes_BY: documents of each piece.
    candidates: C, places.
    budget: int32, documents taken at most.

  Returns:
    [B, C] which places are taken, [B, C] the piece of each, and [B, Y] the
    place of each piece's first document.
  """
  # A bucket past the budget adds nothing, so sums stay far from overflow.
  sizes_BY = jnp.minimum(sizes_BY, candidates)
  until_BY = jnp.cumsum(sizes_BY, axis=1)
  places_C = jnp.arange(candidates, dtype=jnp.int32)
  pieces_BC = jax.vmap(
    lambda until_Y: jnp.searchsorted(until_Y, places_C, side='right')
  )(until_BY)
  last = until_BY.shape[1] - 1
  taken_BC = (pieces_BC <= last) & (places_C < budget)[None, :]
  return taken_BC, jnp.minimum(pieces_BC, last), until_BY - sizes_BY


def documents_at(
  tables: Tries, slots_BC: jax.Array, parts_BC: jax.Array, visible: Seen
) -> jax.Array:
  """[B, C] documents, NO_DOC where there is none.

  Args:
    tables: the trie, or several.
    slots_BC: rows of a trie, or their ranks among what is visible.
    parts_BC: the trie, NO_PART where there is no document.
    visible: which documents each query may find; all when None.
  """
  documents_BC = jnp.full_like(slots_BC, NO_DOC)
  parts, seen = parts_of(tables), seen_in(tables, visible)
  for number, (part, part_seen) in enumerate(zip(parts, seen, strict=True)):
    own_BC = parts_BC == number
    own_slots_BC = jnp.where(own_BC, slots_BC, 0)
    if part_seen is not None:
      own_slots_BC = part_seen.at_rank(own_slots_BC)
    documents_BC = jnp.where(own_BC, part.documents[own_slots_BC], documents_BC)
  return documents_BC


def pieces(
  beams: Beams, seen: Sequence[Visible | None]
) -> tuple[jax.Array, jax.Array]:
  """[B, W * tries] bounds of each beam's pieces of a bucket, one a trie.

  Rows, or their ranks among what is visible.
  """
  bounds = [
    (
      (nodes.starts_BW, nodes.ends_BW)
      if part is None
      else (part.before(nodes.starts_BW), part.before(nodes.ends_BW))
    )
    for nodes, part in zip(beams.buckets, seen, strict=True)
  ]
  starts_BY, ends_BY = (
    jnp.stack(bound, axis=2).reshape(bound[0].shape[0], -1)
    for bound in zip(*bounds, strict=True)
  )
  return starts_BY, ends_BY


def dense_scores(
  queries_BD: jax.Array,
  vectors: tuple[jax.Array, ...],
  documents_BC: jax.Array,
  first: jax.Array,
) -> jax.Array:
  """[B, C] dot products, query by query so that the gather stays in cache.

  Measured on 2 cores, 32 queries, 4,096 documents of width 384 in float16:
  20 ms, against 152 ms for one gather of the whole batch.

  Args:
    queries_BD: vectors of the queries.
    vectors: [N, D] of the documents that were there, and of those that came
      where there is a table of these.
    documents_BC: numbers of documents, those that came behind the others.
    first: number of the first of them.
  """

  def products(vector_D, vectors_ND, documents_C):
    last = vectors_ND.shape[0] - 1
    gathered_CD = vectors_ND[jnp.clip(documents_C, 0, last)]
    return jnp.einsum(
      'CD,D->C',
      gathered_CD.astype(jnp.float32),
      vector_D.astype(jnp.float32),
    )

  def one(query):
    vector_D, documents_C = query
    there_C = products(vector_D, vectors[0], documents_C)
    if len(vectors) == 1:
      return there_C
    came_C = documents_C >= first
    return jax.lax.cond(
      jnp.any(came_C),
      lambda: jnp.where(
        came_C, products(vector_D, vectors[1], documents_C - first), there_C
      ),
      lambda: there_C,
    )

  return jax.lax.map(one, (queries_BD, documents_BC))
