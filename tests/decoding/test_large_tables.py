"""Tables and scores of more than 2^31 elements, in 12 GB of memory."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.decoding import beam, continuations, trie, visibility
from gr_jax.retrieval.program import expand_buckets
from gr_jax.types import NO_DOC

DOCUMENTS, LENGTH, CODES = 70_000_000, 32, 256
# Document d has identifier number d * _STEP % DOCUMENTS.
_STEP = 1_000_003
WIDTH, ROOM = 1200, 1300

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.fixture(scope='module', autouse=True)
def enough_memory():
  memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  if memory < 16 << 30:
    pytest.skip(f'needs 16 GiB of memory, there are {memory >> 30}')


def prefixes_of(numbers_N):
  """The first four codes as one number, which rises; some in threes."""
  threes_N = numbers_N // 3 * 3
  return 61 * np.where(threes_N // 3 % 16 == 0, threes_N, numbers_N)


def identifiers_of(numbers_N):
  """[N, L] codes: the prefix, random codes, and one last; a few are alike."""
  prefixes_N = prefixes_of(numbers_N).astype(np.uint64)
  codes_NL = np.empty((len(numbers_N), LENGTH), np.uint8)
  codes_NL[:, :4] = prefixes_N.astype('>u4').view(np.uint8).reshape(-1, 4)
  state_N = prefixes_N
  for at in range(4, LENGTH):
    state_N = (state_N + np.uint64(at)) * np.uint64(0x9E3779B97F4A7C15)
    state_N ^= state_N >> np.uint64(29)
    codes_NL[:, at] = state_N >> np.uint64(56)
  # Those in threes are alike so far, and some of them to the end.
  codes_NL[:, -1] = np.where(prefixes_N % 5 == 0, 9, numbers_N % 3 * 80)
  return codes_NL


def corpus():
  codes_NL = np.empty((DOCUMENTS, LENGTH), np.uint8)
  for start in range(0, DOCUMENTS, 1 << 20):
    documents = np.arange(start, min(start + (1 << 20), DOCUMENTS))
    codes_NL[documents] = identifiers_of(documents * _STEP % DOCUMENTS)
  return codes_NL


@functools.partial(jax.jit, static_argnames='batch')
def search(table_BLK, tables, visible, batch):
  def step(state, codes_BW, level):
    scores_B1K = jax.lax.dynamic_index_in_dim(table_BLK, level, axis=1)
    shape = (*codes_BW.shape, CODES)
    return jnp.broadcast_to(scores_B1K, shape), state

  found = beam.beam_search(
    lambda width: jnp.zeros((batch, width)),
    step,
    tables,
    WIDTH,
    LENGTH,
    visible,
  )
  return found, *expand_buckets(found, tables, ROOM, jnp.int32(ROOM), visible)


def beneath(number):
  """Documents that share two codes with an identifier, and their codes."""
  near = np.arange(max(number - 3000, 0), min(number + 3000, DOCUMENTS))
  alike = prefixes_of(near) >> 16 == prefixes_of(np.array(number)) >> 16
  documents = near[alike] * pow(_STEP, -1, DOCUMENTS) % DOCUMENTS
  return documents, identifiers_of(near[alike])


def expected_beams(table_LK, codes_NL):
  """{identifier: score} by adding up the scores of all of them."""
  totals_N = np.zeros(len(codes_NL), np.float32)
  for scores_K, codes_N in zip(table_LK, codes_NL.T, strict=True):
    totals_N += scores_K[codes_N]
  names = map(tuple, codes_NL.tolist())
  return dict(zip(names, totals_N.tolist(), strict=True))


def check(result, table_BLK, numbers, chosen_BN):
  """Against brute force over what stands beneath the favoured prefix."""
  found, documents_BC, _ = jax.tree.map(np.asarray, result)
  for query, number in enumerate(numbers):
    documents, codes_NL = beneath(number)
    seen_N = chosen_BN[query][documents]
    documents, codes_NL = documents[seen_N], codes_NL[seen_N]
    expected = expected_beams(table_BLK[query], codes_NL)
    assert 5 < len(expected) < WIDTH
    best = slice(len(expected))
    names = map(tuple, found.codes_BWL[query, best].tolist())
    scores_W = found.scores_BW[query]
    assert dict(zip(names, scores_W[best].tolist(), strict=True)) == expected
    assert (np.diff(scores_W) <= 0).all()
    first_C = documents_BC[query, : len(documents)]
    assert sorted(first_C.tolist()) == sorted(documents.tolist())
    others_C = documents_BC[query][documents_BC[query] != NO_DOC]
    assert chosen_BN[query][others_C].all()
    assert len(set(others_C.tolist())) == len(others_C)


def test_a_table_past_two_to_the_31_is_searched_to_both_ends():
  built = trie.build_trie(corpus(), (CODES,) * LENGTH)
  assert built.columns.size > 2**31
  tables = built.tables()
  # Position 28 of the padded table crosses 2^31 elements.
  crossing = 2**31 - 28 * tables.columns.shape[1]
  numbers = [0, crossing, DOCUMENTS // 2, DOCUMENTS - 1]
  rng = np.random.default_rng(0)
  table_BLK = rng.normal(size=(4, LENGTH, CODES)).astype(np.float32)
  for query, codes_L in enumerate(identifiers_of(np.array(numbers))):
    table_BLK[query, [0, 1], codes_L[:2]] += 1000
  everything_BN = np.broadcast_to(True, (4, DOCUMENTS))
  result = search(jnp.asarray(table_BLK), tables, None, 4)
  check(result, table_BLK, numbers, everything_BN)

  shares = np.array([[0.7], [0.02]], np.float32)
  seen_FN = rng.random((2, DOCUMENTS), np.float32) < shares
  chosen_B = np.array([0, 1, 1, 0])
  visible = visibility.visible(built, tables, seen_FN, chosen_B)
  result = search(jnp.asarray(table_BLK), tables, visible, 4)
  check(result, table_BLK, numbers, [seen_FN[chosen] for chosen in chosen_B])


def test_scores_past_two_to_the_31_are_read_where_they_are():
  codes = 1 << 16
  codes_NL = np.stack([np.zeros(5, int), codes - 1 - np.arange(5)], axis=1)
  tables = trie.build_trie(codes_NL, (codes, codes)).tables()
  beams, favoured_B = 17_000, jnp.array([3, 16_999])

  @jax.jit
  def scores():
    parents = jnp.arange(beams, dtype=jnp.int32)[None, :, None]
    codes_K = jnp.arange(codes, dtype=jnp.int32)[None, None, :]
    best = (parents == favoured_B[:, None, None]) & (codes_K == codes - 2)
    return best.astype(jnp.bfloat16)

  @jax.jit
  def best(tables, scores_BWK):
    zeros_BW = jnp.zeros((2, beams), jnp.int32)
    nodes = continuations.Nodes(zeros_BW, zeros_BW + 5)
    return continuations._Search(
      tables, nodes, jnp.zeros((2, beams)), scores_BWK, 1, 3, None
    ).of_few_rows(zeros_BW == 0)

  scores_BWK = scores()
  assert scores_BWK.size > 2**31
  found = best(tables, scores_BWK)
  assert found.scores_BW[:, :2].tolist() == [[1, 0], [1, 0]]
  assert found.parents_BW[:, 0].tolist() == favoured_B.tolist()
  assert found.codes_BW[:, 0].tolist() == [codes - 2] * 2
