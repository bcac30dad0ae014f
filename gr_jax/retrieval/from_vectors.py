"""Searches by identifiers for queries whose encoder has run already."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.decoding.beam import Rules
from gr_jax.decoding.trie import build_trie
from gr_jax.retrieval.program import decoded, expand_buckets
from gr_jax.types import NO_DOC

_BATCH = 256


def found_by_identifiers(
  model: Any,
  params: Any,
  pooled_QE: np.ndarray,
  count: int,
  beams: int,
  renormalised: bool,
) -> np.ndarray:
  """The documents whose identifiers score best, those of a bucket in order.

  Args:
    model: Retriever whose decoder attends to no tokens.
    params: of the model, with the identifiers of all documents.
    pooled_QE: what the encoder pooled of each query.
    count: places of a ranking.
    beams: identifiers kept while decoding; `count` where that is more.
    renormalised: whether codes are scored among the allowed ones alone.

  Returns:
    int32 [Q, count] documents, NO_DOC past the last; one without an identifier
    is not found.
  """
  codes_NL = np.asarray(params['identifiers']['table'])
  known_N = np.flatnonzero((codes_NL >= 0).all(axis=1)).astype(np.int32)
  trie = build_trie(codes_NL[known_N], model.config.code_sizes)
  tables, parts = trie.tables(), []
  for start in range(0, len(pooled_QE), _BATCH):
    rows_BE = np.asarray(pooled_QE[start : start + _BATCH])
    # One shape, one program.
    padded_BE = np.resize(rows_BE, (_BATCH, *rows_BE.shape[1:]))
    found_BC = _program(
      model,
      params,
      tables,
      padded_BE,
      width=min(max(count, beams), len(known_N)),
      count=count,
      renormalised=renormalised,
    )
    parts.append(np.asarray(found_BC)[: len(rows_BE)])
  found_QC = np.concatenate(parts)
  return np.where(found_QC == NO_DOC, NO_DOC, known_N[found_QC])


class _Pooled:
  """A Retriever whose queries are what the encoder pooled."""

  def __init__(self, model):
    self._model = model

  def apply(self, variables, *args, method):
    method = 'encode_pooled' if method == 'encode' else method
    return self._model.apply(variables, *args, method=method)


@functools.partial(
  jax.jit, static_argnames=('model', 'width', 'count', 'renormalised')
)
def _program(model, params, tables, pooled_BE, *, width, count, renormalised):
  """[B, count] numbers of documents in a trie."""
  _, beams = decoded(
    _Pooled(model),
    params,
    pooled_BE,
    tables,
    None,
    lambda _: Rules(renormalised),
    width,
    model.config.positions,
  )
  return expand_buckets(beams, tables, count, jnp.int32(count))[0]
