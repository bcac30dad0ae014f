"""The rivals find what the trie finds, and a small run of the whole."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))

import decoding
import host_tries
import scoring_models
import synthetic_ids
import unconstrained

from gr_jax.decoding import beam, trie
from gr_jax.types import UserError

LENGTH, CODES, WIDTH = 3, 24, 10


def table():
  scores_LWK = np.random.default_rng(0).normal(size=(LENGTH, WIDTH, CODES))
  return scores_LWK.astype(np.float32)


def next_scores(codes_BW, level):
  scores_WK = jnp.asarray(table())[level, : codes_BW.shape[1]]
  return scores_WK[None]


@pytest.mark.parametrize('skew', [0.0, 1.5])
def test_rivals_find_what_the_trie_finds(skew):
  codes_NL = synthetic_ids.make_codes(
    'independent', skew, 2000, LENGTH, CODES, seed=0
  )
  tables = trie.build_trie(codes_NL, (CODES,) * LENGTH).tables()
  found = jax.jit(
    lambda: beam.beam_search(
      lambda width: jnp.zeros((1, width)),
      lambda state, codes_BW, level: (next_scores(codes_BW, level), state),
      tables,
      WIDTH,
      LENGTH,
    )
  )()
  scores_LWK = table()
  for kind in (host_tries.DictionaryTrie, host_tries.PrefixSet):
    codes_WL, scores_W = kind(codes_NL).search(
      lambda codes_WL, level: scores_LWK[level, : len(codes_WL)], WIDTH, LENGTH
    )
    np.testing.assert_array_equal(codes_WL, found.codes_BWL[0])
    np.testing.assert_allclose(scores_W, found.scores_BW[0], rtol=1e-6)


def test_where_all_identifiers_exist_the_constraint_changes_nothing():
  every = np.stack(np.meshgrid(*[np.arange(CODES)] * LENGTH), -1)
  built = trie.build_trie(every.reshape(-1, LENGTH), (CODES,) * LENGTH)
  found = jax.jit(
    lambda: beam.beam_search(
      lambda width: jnp.zeros((1, width)),
      lambda state, codes_BW, level: (next_scores(codes_BW, level), state),
      built.tables(),
      WIDTH,
      LENGTH,
    )
  )()
  scores_BW, codes_BWL = jax.jit(
    lambda: unconstrained.beam_search(next_scores, 1, WIDTH, LENGTH)
  )()
  np.testing.assert_array_equal(codes_BWL, found.codes_BWL)
  np.testing.assert_array_equal(scores_BW, found.scores_BW)


@pytest.mark.soak
def test_a_decoder_takes_its_cache_along_in_both_searches():
  sizes, width = (7,) * LENGTH, 49
  every_XL = np.stack(np.meshgrid(*[np.arange(7)] * LENGTH), -1)
  every_XL = every_XL.reshape(-1, LENGTH)
  tables = trie.build_trie(every_XL, sizes).tables()
  scores = scoring_models.DecoderScores(sizes, 2, layers=1, width=16)

  @jax.jit
  def search(params, tables):
    start, step = scores.functions(params, jax.random.key(1))
    found = beam.beam_search(start, step, tables, width, LENGTH)
    free = unconstrained.search_with_state(start, step, width, LENGTH)
    # Without beams: each identifier by itself.
    state, totals_BX = start(len(every_XL)), 0.0
    codes_LBX = np.repeat(every_XL.T[:, None], 2, axis=1)
    for level, codes_BX in enumerate(codes_LBX):
      before_BX = codes_LBX[max(level - 1, 0)]
      scores_BXK, state = step(state, jnp.asarray(before_BX), level)
      totals_BX += jnp.take_along_axis(scores_BXK, codes_BX[..., None], -1)
    return found, free, totals_BX[..., 0]

  found, (scores_BW, codes_BWL), totals_BX = search(scores.params, tables)
  best_BW = -np.sort(-np.asarray(totals_BX), axis=1)[:, :width]
  np.testing.assert_allclose(scores_BW, best_BW, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(scores_BW, found.scores_BW, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(codes_BWL, found.codes_BWL)
  assert (codes_BWL[0] != codes_BWL[1]).any()


@pytest.mark.soak
def test_a_small_run_of_the_whole(tmp_path, capsys):
  path = tmp_path / 'decoding.json'
  arguments = [
    '--documents=3000', '--codes=64', '--length=3', '--beams=8', '--turns=3',
    f'--output={path}',
  ]  # fmt: skip
  decoding.main(arguments)
  found = json.loads(path.read_text())
  for name in ('model', 'search', 'unconstrained', 'dictionary', 'prefix_set'):
    assert found[f'{name}_milliseconds'] > 0
  assert found['search_above_milliseconds'] == pytest.approx(
    found['search_milliseconds'] - found['model_milliseconds']
  )
  assert 8 < found['bytes_per_id'] < found['bytes_per_id_on_device']
  assert found['build_seconds'] > 0
  assert found['sweep'] == []
  assert 'documents=3000 codes=64' in capsys.readouterr().out
  with pytest.raises(UserError, match='--beams is too small: 0'):
    decoding.main(['--beams=0', f'--output={path}'])


@pytest.mark.soak
def test_a_small_run_with_a_decoder(tmp_path, capsys):
  path = tmp_path / 'decoding.json'
  arguments = [
    '--documents=3000', '--codes=64', '--length=3', '--beams=8', '--turns=3',
    '--decoder_layers=1', '--decoder_width=16', f'--output={path}',
  ]  # fmt: skip
  decoding.main(arguments)
  found = json.loads(path.read_text())
  assert (found['decoder_layers'], found['decoder_width']) == (1, 16)
  for name in ('model', 'search', 'unconstrained'):
    assert 0 < found['least'][name] <= found[f'{name}_milliseconds']
    assert found['processor'][name] > 0
  assert 'dictionary_milliseconds' not in found
  low, high = found['quartiles']['constraint_percent']
  assert low <= found['constraint_percent'] <= high
  assert 'decoder_layers=1' in capsys.readouterr().out
  with pytest.raises(UserError, match='--peer has random scores of its own'):
    decoding.main([*arguments, '--peer=folder'])
