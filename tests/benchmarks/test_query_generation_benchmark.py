"""A small run of the whole, without those that it is measured beside."""

import importlib.util
import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))

import query_generation

from gr_jax.types import UserError

SMALL = [
  '--documents=2', '--queries=2', '--document_tokens=8', '--tokens=4',
  '--vocabulary=50', '--width=64', '--layers=1', '--turns=2',
]  # fmt: skip


@pytest.mark.soak
def test_a_small_run_of_the_whole(tmp_path, capsys):
  path = tmp_path / 'query_generation.json'
  query_generation.main([*SMALL, f'--output={path}'])
  found = json.loads(path.read_text())
  for method in ('top_k', 'nucleus'):
    rates = found[method]['queries_per_second']
    assert rates['gr_jax'] > 0
    milliseconds = found[method]['milliseconds']['gr_jax']
    assert rates['gr_jax'] == pytest.approx(4e3 / milliseconds)
  assert 'nucleus: queries a second: ' in capsys.readouterr().out
  if importlib.util.find_spec('torch'):
    assert found['log_probability_difference'] < 1e-4
    assert found['top_k']['ratio'] > 0


def test_too_small_is_refused(tmp_path):
  with pytest.raises(UserError, match='--tokens is too small: 1'):
    query_generation.main(['--tokens=1', f'--output={tmp_path / "x"}'])
