"""Encodes a whole corpus: texts to vectors, vectors to identifiers."""

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gr_jax.progress import Pace
from gr_jax.retrieval.program import encode_program

# Tokens of a batch. On CPU what fits the caches: MiniLM on two cores encodes
# 13,400 tokens a second in batches of 8 x 192, 9,200 in batches of 32 x 192.
_BATCH_TOKENS = {'cpu': 2048}
_BATCH_TOKENS_ACCELERATOR = 65536
# Documents read, sorted by length and encoded together.
_CHUNK = 32768
# Vectors that a device has at once.
_VECTOR_BATCH = 1024


def sharing_devices() -> int:
  """How many devices of the active mesh have rows of a batch of their own."""
  spec = nn.logical_to_mesh_axes(('batch',)) or (None,)
  axes = spec[0] if isinstance(spec[0], tuple) else spec
  shape = jax.sharding.get_abstract_mesh().shape
  return math.prod(shape.get(axis, 1) for axis in axes)


def padded_lengths(longest: int) -> list[int]:
  """The few lengths that texts are padded to, so that few programs compile."""
  step = -(-longest // 32) * 8
  return [min(step * part, longest) for part in range(1, 5)]


def encode_texts(
  encode: Callable[[jax.Array], jax.Array],
  read_tokens: Callable[[Sequence[int]], Sequence[np.ndarray]],
  count: int,
  longest: int,
) -> np.ndarray:
  """Encodes many texts, short ones in short batches; shows its pace.

  Args:
    encode: [B, S] token ids (0 pads) -> [B, D] vectors; jitted.
    read_tokens: row numbers -> token ids of each.
    count: N, texts.
    longest: tokens of the longest text.

  Returns:
    [N, D] vectors in the order of the rows.
  """
  parts = []
  with Pace(count, 'text') as pace:
    for start in range(0, count, _CHUNK):
      rows = np.arange(start, min(start + _CHUNK, count))

      show = functools.partial(show_part, pace, start, len(rows), count)
      parts.append(encode_rows(encode, read_tokens(rows), longest, show))
  if not parts:
    raise ValueError('expected one text or more, got none')
  return parts[0] if len(parts) == 1 else np.concatenate(parts)


def show_part(
  pace: Pace, before: int, size: int, total: int, done: int, share: float
) -> None:
  """Shows how far a part of the texts is, for `encode_rows`.

  Args:
    pace: of all texts.
    before: how many were done before the part.
    size: texts of the part.
    total: all texts.
    done: texts of the part.
    share: of the part's work.
  """
  pace.show(before + done, (before + share * size) / total)


def encode_rows(
  encode: Callable[[jax.Array], jax.Array],
  tokens: Sequence[np.ndarray],
  longest: int,
  show: Callable[[int, float], None],
) -> np.ndarray:
  """[N, D] vectors of texts, which are sorted by length meanwhile.

  Args:
    encode: [B, S] token ids (0 pads) -> [B, D] vectors; jitted.
    tokens: token ids of each text.
    longest: tokens of the longest text there may be.
    show: told how many texts are done, and their share of the work.
  """
  out, done = None, 0
  for chosen, tokens_BS, share in padded_batches(tokens, longest):
    vectors_BD = np.asarray(encode(jnp.asarray(tokens_BS)))
    if out is None:
      # Only now is the width known.
      out = np.zeros((len(tokens), vectors_BD.shape[1]), vectors_BD.dtype)
    out[chosen] = vectors_BD[: len(chosen)]
    done += len(chosen)
    show(done, share)
  return out


def padded_batches(
  tokens: Sequence[np.ndarray], longest: int
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
  """Texts in batches of few shapes, short ones together.

  Args:
    tokens: token ids of each text.
    longest: tokens of the longest text there may be.

  Yields:
    The places of texts, their tokens_BS (0 pads; rows past the texts repeat
    them from the first), and the share of the work done by then.
  """
  lengths = padded_lengths(longest)
  # Of a device, with as many rows on each.
  batch_tokens = _BATCH_TOKENS.get(
    jax.default_backend(), _BATCH_TOKENS_ACCELERATOR
  )
  devices = sharing_devices()
  sizes = np.array([len(ids) for ids in tokens])
  if sizes.max() > longest:
    raise ValueError(f'a text has {sizes.max()} tokens, more than {longest}')
  buckets = np.searchsorted(lengths, sizes)
  padded, total = 0, int(np.take(lengths, buckets).sum())
  for bucket in np.unique(buckets):
    members = np.flatnonzero(buckets == bucket)
    length = lengths[bucket]
    batch = max(batch_tokens // length, 1) * devices
    for first in range(0, len(members), batch):
      chosen = members[first : first + batch]
      # Rows of the padding repeat a real text, as all-padding has no mean.
      tokens_BS = np.zeros((batch, length), np.int32)
      for place, member in enumerate(np.resize(chosen, batch)):
        tokens_BS[place, : sizes[member]] = tokens[member]
      padded += len(chosen) * length
      yield chosen, tokens_BS, padded / total


def document_vectors(
  model: Any,
  params: Any,
  read_tokens: Callable[[Sequence[int]], Sequence[np.ndarray]],
  count: int,
  longest: int,
) -> np.ndarray:
  """[N, D] unit vectors of tokenised documents, see `encode_texts`."""
  return encode_texts(
    functools.partial(encode_program, model, params),
    read_tokens,
    count,
    longest,
  )


def project_vectors(model: Any, params: Any, pooled_NE: np.ndarray):
  """[N, D] unit vectors from what the encoder pooled."""
  return _in_batches(
    functools.partial(_apply, model, 'project', params), pooled_NE
  )


def assign_codes(
  model: Any,
  params: Any,
  vectors_ND: np.ndarray,
  documents_N: np.ndarray | None = None,
) -> np.ndarray:
  """[N, L] identifiers of documents.

  Args:
    model: Retriever.
    params: of the model.
    vectors_ND: unit vectors of the documents.
    documents_N: int32 numbers in the corpus trained on, -1 for a document that
      is new to the model; 0 to N - 1 when None.
  """
  if documents_N is None:
    documents_N = np.arange(len(vectors_ND), dtype=np.int32)
  return _in_batches(
    functools.partial(_apply, model, 'assign', params), vectors_ND, documents_N
  )


def assign_new_codes(
  model: Any, params: Any, vectors_ND: np.ndarray, codes_XL: np.ndarray
) -> np.ndarray:
  """[N, L] identifiers of documents that come after training.

  Args:
    model: Retriever.
    params: of the model.
    vectors_ND: unit vectors of the documents.
    codes_XL: identifiers of documents trained with, or of a sample of them.
  """
  square = _apply(model, 'mean_square', params, codes_XL)
  return _in_batches(
    lambda vectors_BD: _apply(model, 'assign_new', params, vectors_BD, square),
    vectors_ND,
  )


def moved_vectors(
  model: Any, params: Any, vectors_ND: np.ndarray
) -> np.ndarray:
  """[N, D] what the documents of the corpus trained on are ranked by.

  Args:
    model: Retriever.
    params: of the model.
    vectors_ND: unit vectors of the documents.
  """
  numbers_N = np.arange(len(vectors_ND), dtype=np.int32)
  return _in_batches(
    functools.partial(_apply, model, 'moved', params), vectors_ND, numbers_N
  )


def candidate_codes(
  model: Any,
  params: Any,
  vectors_ND: np.ndarray,
  documents_N: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Identifiers that the documents of the corpus trained on could have.

  Args:
    model: Retriever.
    params: of the model.
    vectors_ND: unit vectors of the documents.
    documents_N: as `assign_codes` takes them.

  Returns:
    [N, W, L] identifiers, the nearest first, and [N, W] their costs.
  """
  if documents_N is None:
    documents_N = np.arange(len(vectors_ND), dtype=np.int32)
  return _in_batches(
    functools.partial(_apply, model, 'candidates', params),
    vectors_ND,
    documents_N,
  )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(model, method, params, *arrays):
  """What a method of the model answers, each device for some of the rows."""
  arrays = [
    nn.with_logical_constraint(x, ('batch', *(None,) * (x.ndim - 1)))
    if x.ndim
    else x
    for x in arrays
  ]
  return model.apply({'params': params}, *arrays, method=method)


def _in_batches(function: Callable[..., Any], *columns: np.ndarray) -> Any:
  """Applies a jitted function to rows, batch by batch of one shape.

  Args:
    function: of arrays [B, ...], to one or a tuple of such.
    columns: arrays [N, ...].

  Returns:
    The same of all N rows.
  """
  count = len(columns[0])
  devices = sharing_devices()
  # As many of a device as one alone would have: its program is the same.
  batch = min(_VECTOR_BATCH, -(-count // devices)) * devices
  parts = []
  for start in range(0, count, batch):
    taken = [np.asarray(column[start : start + batch]) for column in columns]
    rows = len(taken[0])
    filled = [np.resize(part, (batch, *part.shape[1:])) for part in taken]
    found = jax.device_get(function(*filled))
    parts.append(jax.tree.map(operator.itemgetter(slice(rows)), found))
  return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
