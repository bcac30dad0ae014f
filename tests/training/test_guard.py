"""The collapse guard is silent on what chance gives, and names a collapse."""

import types

import numpy as np
import pytest

from gr_jax.training.guard import make_watch, watch

QUEUE = 2048


def usage(sizes, codes, documents=None):
  """The state after many batches of such codes."""
  share = np.zeros((len(sizes), max(sizes)), np.float32)
  for t in range(len(sizes)):
    np.add.at(share[t], codes[:, t], 1 / len(codes))
  if documents is None:
    documents = np.arange(len(codes))
  return {'share': share, 'codes': codes, 'documents': documents}


def uniform(sizes, rows=QUEUE, seed=0):
  rng = np.random.default_rng(seed)
  return np.stack([rng.integers(0, k, rows) for k in sizes], axis=1)


@pytest.mark.parametrize(
  'sizes', [(2, 2), (8,), (16, 16), (32,) * 4, (128,) * 8, (256, 3, 7), (1, 64)]
)
@pytest.mark.parametrize('seed', range(3))
def test_uniform_random_codes_raise_no_warning(sizes, seed):
  values, warnings = watch(usage(sizes, uniform(sizes, seed=seed)), sizes)
  assert warnings == []
  assert values['dead_codes'] == 0
  assert values['code_entropy_least'] > 0.98
  assert 0 < values['recent_uniqueness'] <= 1
  assert values['recent_largest'] >= 1


def copies(sizes):
  """Full entropy at every position, which say the same."""
  codes = uniform(sizes)
  return np.repeat(codes[:, :1], len(sizes), axis=1)


def crowded(sizes):
  codes = uniform(sizes)
  codes[:60] = codes[0]
  return codes


def one_sided(sizes):
  codes = uniform(sizes)
  codes[:, 1] = codes[:, 1] % 3
  return codes


@pytest.mark.parametrize(
  'sizes, collapse, said, value',
  [
    ((32,) * 4, copies, 'distinct identifiers for 2,048', 'recent_uniqueness'),
    ((128,) * 8, crowded, 'share one identifier', 'recent_largest'),
    ((32,) * 4, one_sided, 'codes of position 1 have', 'dead_codes'),
  ],
)
def test_a_collapse_is_named_with_a_remedy(sizes, collapse, said, value):
  healthy, _ = watch(usage(sizes, uniform(sizes)), sizes)
  values, warnings = watch(usage(sizes, collapse(sizes)), sizes)
  assert any(said in line and 'raise' in line for line in warnings), warnings
  better = np.less if value == 'recent_uniqueness' else np.greater
  assert better(values[value], healthy[value])


def test_repeats_of_a_document_are_no_collapse():
  sizes = (32,) * 4
  codes = np.repeat(uniform(sizes, 64), 32, axis=0)
  documents = np.repeat(np.arange(64), 32)
  values, warnings = watch(usage(sizes, codes, documents), sizes)
  assert values['recent_largest'] <= 2
  assert not [line for line in warnings if 'identifier' in line]


def test_an_empty_queue_says_nothing_of_identifiers():
  codes, documents = np.zeros((4, 2), int), np.full(4, -1)
  state = usage((4, 4), uniform((4, 4)))
  values, warnings = watch(
    {**state, 'codes': codes, 'documents': documents}, (4, 4)
  )
  assert set(values) == {'code_entropy_least', 'dead_codes'}
  assert warnings == []


def test_the_loop_gets_values_and_the_user_the_warnings():
  sizes, said = (32,) * 4, []
  state = types.SimpleNamespace(
    usage={'usage': usage(sizes, copies(sizes)), 'upkeep': {}}
  )
  values = make_watch(sizes, said.append)(state)
  assert values['recent_uniqueness'] < 0.1
  assert said and all(line.startswith('warning: ') for line in said)
