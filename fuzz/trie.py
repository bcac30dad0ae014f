"""Bytes as a corpus and scores: the beam search against a plain reference.

  python fuzz/trie.py -max_total_time=180 [CORPUS_FOLDER]

Needs `pip install gr_jax[fuzz]`. An input is the sizes of the positions, the
identifiers of the documents, which of them are hidden, and the scores of the
codes. The first codes that are found, their scores and their documents must be
those of a beam search over sets of tuples.
"""

import math
from unittest import mock

import campaign
import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.decoding import beam, trie, visibility
from gr_jax.decoding.continuations import LEAST_CODE_SCORE
from gr_jax.retrieval.program import expand_buckets
from gr_jax.types import NO_DOC

# All inputs have tables of one shape: one program serves them all.
_SIZES, _DOCUMENTS, _CODES = (1, 2, 20, 300), 120, 300
_LENGTH, _WIDTH, _ROOM, _CAPACITY = 3, 8, 128, 512
# What a byte says of a score: quarters, ties, and scores that are none.
_SCORES = np.concatenate(
  [(np.arange(250) - 125) / 4, [-0.0, 1e8, -1e8, 1e-30, -np.inf, np.nan]]
).astype(np.float32)


def check(data: bytes) -> None:
  """Raises AssertionError where search and reference differ."""
  source = campaign.Source(data)
  codes_NL, sizes = _corpus(source)
  hidden = source.below(4)
  seen_N = np.resize(
    np.frombuffer(source.bytes(hidden * 8) or b'\xff', np.uint8), len(codes_NL)
  )
  seen_N = seen_N % 4 > 0
  scored = source.bytes(_LENGTH * _CODES) or b'\x00'
  table_LK = _SCORES[np.resize(np.frombuffer(scored, np.uint8), 900)]
  table_LK = table_LK.reshape(_LENGTH, _CODES)
  built = trie.build_trie(codes_NL, sizes)
  with mock.patch.object(trie, 'capacity', lambda size: _CAPACITY):
    tables = built.tables()
  visible = None
  if hidden:
    visible = visibility.visible(built, tables, seen_N[None], np.zeros(1, int))
  found, documents_C = jax.device_get(
    _search(jnp.asarray(table_LK), tables, visible)
  )
  numbers = np.flatnonzero(seen_N if hidden else np.ones_like(seen_N))
  buckets: dict[tuple[int, ...], list[int]] = {}
  for number in numbers.tolist():
    buckets.setdefault(tuple(codes_NL[number].tolist()), []).append(number)
  expected = _reference(table_LK, buckets)
  count = len(expected)
  assert found.valid_BW[0].tolist() == [at < count for at in range(_WIDTH)]
  names = [tuple(codes) for codes in found.codes_BWL[0].tolist()]
  assert names[:count] == [codes for codes, _ in expected]
  assert set(names[count:]) <= {(NO_DOC,) * _LENGTH}
  scores = found.scores_BW[0, :count].tolist()
  assert scores == [score for _, score in expected]
  assert all(map(math.isfinite, found.scores_BW[0].tolist()))
  documents = [number for codes, _ in expected for number in buckets[codes]]
  others = [NO_DOC] * (_ROOM - len(documents))
  assert documents_C.tolist() == documents + others


def _corpus(source):
  """Identifiers [N, L] and the sizes of their positions."""
  sizes = [_SIZES[source.below(len(_SIZES))] for _ in range(_LENGTH)]
  # The widest is always there: it gives the tables their shape.
  sizes[source.below(_LENGTH)] = _CODES
  documents = 1 + source.below(_DOCUMENTS)
  # Codes of documents behind the end of the input repeat those before.
  drawn = source.bytes(documents * _LENGTH) or b'\x00'
  drawn_NL = np.resize(np.frombuffer(drawn, np.uint8), (documents, _LENGTH))
  return drawn_NL.astype(np.int64) * 37 % np.array(sizes), tuple(sizes)


@jax.jit
def _search(table_LK, tables, visible):
  """Beams of one query, and its documents."""

  def step(state, codes_BW, level):
    # What comes next depends on what came last.
    scores_BWK = jnp.take(table_LK, level, axis=0)[None, None, :]
    return scores_BWK * (1 + codes_BW % 3)[..., None], state

  found = beam.beam_search(
    lambda width: jnp.zeros((1, width)), step, tables, _WIDTH, _LENGTH, visible
  )
  room = jnp.int32(_ROOM)
  documents_BC, _ = expand_buckets(found, tables, _ROOM, room, visible)
  return found, documents_BC[0]


def _reference(table_LK, buckets):
  """[(identifier, score)] of a plain beam search, best first."""
  beams = [((), np.float32(0))]
  for level in range(_LENGTH):
    prefixes = {codes[: level + 1] for codes in buckets}
    ranks = {codes: rank for rank, (codes, _) in enumerate(beams)}
    found = []
    for prefix in prefixes:
      if prefix[:-1] in ranks:
        rank = ranks[prefix[:-1]]
        last = prefix[-2] if level else 0
        score = table_LK[level, prefix[-1]] * np.float32(1 + last % 3)
        if not score > LEAST_CODE_SCORE:
          score = np.float32(LEAST_CODE_SCORE)
        total = np.float32(beams[rank][1] + score)
        found.append((-total, rank, prefix[-1], prefix))
    beams = [(prefix, -total) for total, _, _, prefix in sorted(found)[:_WIDTH]]
  return [(codes, float(score)) for codes, score in beams]


if __name__ == '__main__':
  # The reference branches where numpy and XLA do not.
  campaign.run(check, ['gr_jax.decoding', '__main__'])
