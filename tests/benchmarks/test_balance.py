"""Synthetic identifiers, and a small run of the whole benchmark."""

import json
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))

import balance
import synthetic_ids

from gr_jax.types import UserError


def counts_of(codes_NL):
  return np.unique(codes_NL, axis=0, return_counts=True)[1]


@pytest.mark.parametrize('kind', ['even', 'independent', 'hierarchical'])
def test_codes_lie_in_their_space_and_are_the_same_each_time(kind):
  first, again = (
    synthetic_ids.make_codes(kind, 0.7, 999, 4, 16, seed=0) for _ in range(2)
  )
  np.testing.assert_array_equal(first, again)
  assert first.shape == (999, 4)
  assert first.min() >= 0
  assert first.max() <= 15


def test_even_identifiers_fill_each_level_alike():
  codes_NL = synthetic_ids.make_codes('even', 0.0, 512, 4, 8, seed=0)
  assert len(counts_of(codes_NL)) == 512
  for length in (1, 2, 3):
    counts = counts_of(codes_NL[:, :length])
    assert counts.tolist() == [512 // 8**length] * 8**length


def test_skew_is_that_of_zipf():
  codes_NL = synthetic_ids.make_codes('independent', 1.0, 50_000, 2, 8, seed=0)
  weights = 1 / np.arange(1, 9)
  for at in range(2):
    counts = np.sort(np.bincount(codes_NL[:, at], minlength=8))[::-1]
    np.testing.assert_allclose(
      counts / 50_000, weights / weights.sum(), atol=0.01
    )


def test_hierarchical_skew_hides_from_the_entropy_of_a_position():
  entropies = {}
  for kind in ('independent', 'hierarchical'):
    codes_NL = synthetic_ids.make_codes(kind, 1.5, 20_000, 4, 16, seed=0)
    entropies[kind] = (
      synthetic_ids.entropy(np.bincount(codes_NL[:, 3], minlength=16), 16),
      synthetic_ids.entropy(counts_of(codes_NL), 20_000),
    )
  assert entropies['independent'][0] < 0.75
  assert entropies['hierarchical'][0] > 0.97
  assert entropies['hierarchical'][1] == pytest.approx(
    entropies['independent'][1], abs=0.02
  )


@pytest.mark.soak
def test_a_small_run_of_the_whole(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(balance, 'SPACES', ((4, 32),))
  monkeypatch.setattr(balance, 'ROWS', (('even', 0.0), ('independent', 2.0)))
  path = tmp_path / 'balance.json'
  balance.main(['--documents=20000', '--beams=20', f'--output={path}'])
  found = json.loads(path.read_text())
  assert found['documents'] == 20_000
  assert found['command'].startswith('python benchmarks/balance.py --documents')
  even, skewed = found['rows']
  assert (even['identifiers'], even['documents_per_id_max']) == (20_000, 1)
  assert even['entropy'] == pytest.approx(1.0)
  assert even['documents_in_beams'] == [20, 20, 20]
  assert skewed['entropy'] < 0.8
  assert skewed['documents_per_id_max'] > 1000
  assert skewed['documents_in_beams'][0] > 100
  assert skewed['documents_to_target'][1] > even['documents_to_target'][1]
  assert all(row['beam_search_ms'] > 0 and row['scoring_ms'] > 0 for row in (
    even, skewed,
  ))  # fmt: skip
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 5
  assert len({len(line) for line in lines[2:]}) == 1
  with pytest.raises(UserError, match='--documents should be 2 or more'):
    balance.main(['--documents=1', f'--output={path}'])
