"""What is remembered of codes; codebooks kept up without gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.indexers.upkeep import (
  CodebookUpkeep,
  UpkeepConfig,
  fresh_usage,
  keep_up,
)
from gr_jax.indexers.usage import CodeUsage
from gr_jax.types import UserError

SIZES = (4, 2)
QUEUE = 5


def started(queue=QUEUE):
  module = CodeUsage(SIZES, queue)
  return module, module.init({}, method='recent')


def updated(module, state, codes, documents):
  _, state = module.apply(
    state,
    jnp.array(codes),
    jnp.array(documents),
    method='update',
    mutable=['usage'],
  )
  return state


def test_use_starts_uniform_with_an_empty_queue():
  module, state = started()
  share, codes, documents = module.apply(state, method='recent')
  np.testing.assert_allclose(share, [[0.25] * 4, [0.5, 0.5, 0, 0]])
  assert codes.shape == (QUEUE, 2)
  np.testing.assert_array_equal(documents, -1)


def test_a_batch_moves_the_average_and_heads_the_queue():
  module, state = started()
  state = updated(module, state, [[3, 1], [3, 0], [0, 1]], [7, 8, 9])
  state = updated(module, state, [[1, 1], [2, 1], [2, 0]], [1, 2, 3])
  share, codes, documents = module.apply(state, method='recent')
  third = 1 / 3
  expected = np.array([[0.25] * 4, [0.5, 0.5, 0, 0]])
  for used in (
    [[third, 0, 0, 2 * third], [third, 2 * third, 0, 0]],
    [[0, third, 2 * third, 0], [third, 2 * third, 0, 0]],
  ):
    expected = 0.99 * expected + 0.01 * np.array(used)
  np.testing.assert_allclose(share, expected, rtol=1e-5)
  np.testing.assert_allclose(np.sum(share, axis=1), 1, rtol=1e-5)
  # The latest first; the oldest falls out.
  np.testing.assert_array_equal(documents, [1, 2, 3, 7, 8])
  np.testing.assert_array_equal(codes, [[1, 1], [2, 1], [2, 0], [3, 1], [3, 0]])


def test_a_batch_longer_than_the_queue_and_no_queue():
  module, state = started(queue=2)
  state = updated(module, state, [[3, 1], [3, 0], [0, 1]], [7, 8, 9])
  assert module.apply(state, method='recent')[2].tolist() == [7, 8]
  module, state = started(queue=0)
  state = updated(module, state, [[3, 1]], [7])
  share, codes, _ = module.apply(state, method='recent')
  assert codes.shape == (0, 2)
  assert share[0, 3] > 0.25


def test_outside_of_training_nothing_is_taken_in():
  module, state = started()
  module.apply(state, jnp.array([[3, 1]]), jnp.array([7]), method='update')
  np.testing.assert_array_equal(state['usage']['documents'], -1)


WIDTH, ROWS = 3, 6
CODED = np.asarray(jax.random.normal(jax.random.key(0), (ROWS, 2, WIDTH)))
CODES = np.array([[0, 1], [0, 1], [2, 0], [2, 1], [2, 0], [0, 0]])


def kept(config, params=None, step=0, batches=1, share=None):
  """Parameters and usage after `batches` equal batches."""
  module = CodebookUpkeep(config, max(SIZES))
  _, usage = started()
  state = module.init({}, jnp.asarray(CODED), jnp.asarray(CODES))['usage']
  for _ in range(batches):
    _, mutated = module.apply(
      {'usage': state},
      jnp.asarray(CODED),
      jnp.asarray(CODES),
      mutable=['usage'],
    )
    state = mutated['usage']
  usage = {'usage': dict(usage['usage']), 'upkeep': state}
  if share is not None:
    usage['usage']['share'] = jnp.asarray(share)
  books = jnp.full((2, 4, WIDTH), 9.0)
  params = {'indexer': {'codebooks': books, **(params or {})}, 'other': 1}
  return keep_up(params, usage, step, config, SIZES)


def test_codebooks_become_the_moving_average_of_what_they_were_given():
  params, usage = kept(UpkeepConfig(average=0.5), batches=2)
  found = np.asarray(params['indexer']['codebooks'])
  assert params['other'] == 1
  for t in range(2):
    for code in range(4):
      rows = CODED[CODES[:, t] == code, t]
      # The same batch twice: 1.5 times its sums over 1.5 times its counts.
      expected = rows.mean(axis=0) if len(rows) else 9.0
      np.testing.assert_allclose(found[t, code], expected, rtol=1e-5)
  np.testing.assert_allclose(usage['upkeep']['counts'][0], [4.5, 0, 4.5, 0])


DEAD = [[0.4, 0.001, 0.599, 0.0], [1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize('step, due', [(10, True), (11, False), (0, True)])
def test_dead_codes_take_the_place_of_a_recent_vector_when_due(step, due):
  config = UpkeepConfig(reseed_every=10, dead=0.05)
  keys = {'keys': jnp.full((2, 4, WIDTH), 8.0), 'bias': jnp.full((2, 4), 7.0)}
  params, usage = kept(config, keys, step, share=DEAD)
  found = params['indexer']
  # The second position has two codes alone: the others are not dead.
  dead = np.array([[0, 1, 0, 1], [0, 1, 0, 0]], bool) & due
  np.testing.assert_array_equal(
    np.any(np.asarray(found['codebooks']) != 9, axis=-1), dead
  )
  for t, code in np.argwhere(dead):
    fresh = found['codebooks'][t, code]
    np.testing.assert_array_equal(fresh, CODED[code, t])
    # Neural quantization chooses by its keys: they follow.
    np.testing.assert_array_equal(found['keys'][t, code], fresh)
    np.testing.assert_allclose(
      found['bias'][t, code], np.sum(np.square(fresh)), rtol=1e-5
    )
  np.testing.assert_array_equal(np.asarray(found['bias'])[~dead], 7)
  share = np.asarray(usage['usage']['share'])
  uniform = np.array([[0.25] * 4, [0.5] * 4])
  np.testing.assert_allclose(share, np.where(dead, uniform, DEAD), rtol=1e-6)


def test_a_rescued_code_starts_its_average_anew():
  config = UpkeepConfig(average=0.9, reseed_every=1)
  _, usage = kept(config, share=DEAD)
  state = usage['upkeep']
  np.testing.assert_array_equal(state['counts'][0, [1, 3]], 1)
  np.testing.assert_array_equal(state['sums'][0, 1], CODED[1, 0])


def test_without_upkeep_nothing_changes():
  params, usage = {'indexer': {}}, {'usage': {}}
  found = keep_up(params, usage, 0, UpkeepConfig(), SIZES)
  assert found == (params, usage)
  assert not UpkeepConfig().active


def test_codes_that_start_forget_what_came_before():
  config = UpkeepConfig(average=0.9, reseed_every=1)
  _, usage = kept(config, share=DEAD, batches=3)
  module, _ = started()
  usage['usage'] = updated(module, usage, [[3, 1]], [7])['usage']
  books = jnp.asarray(CODED[:4].swapaxes(0, 1))
  fresh = fresh_usage(usage, books, SIZES)
  assert jax.tree.structure(fresh) == jax.tree.structure(usage)
  _, empty = started()
  jax.tree.map(np.testing.assert_array_equal, fresh['usage'], empty['usage'])
  # The averages stand where the codes start.
  upkeep = fresh['upkeep']
  np.testing.assert_array_equal(upkeep['sums'], books)
  np.testing.assert_array_equal(upkeep['counts'], 1)


@pytest.mark.parametrize(
  'changes', [{'average': 1.0}, {'reseed_every': -1}, {'dead': -0.1}]
)
def test_upkeep_out_of_range_is_refused(changes):
  with pytest.raises(UserError, match=next(iter(changes))):
    UpkeepConfig(**changes)
