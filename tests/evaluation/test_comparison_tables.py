"""Baselines, rows, tables and what is kept, from made-up results."""

import csv
import dataclasses
import io

import numpy as np
import pytest

from gr_jax.evaluation import (
  comparison_plot,
  comparison_results,
  comparison_rows,
  comparison_table,
)
from gr_jax.evaluation.comparison_results import Result, score_key
from gr_jax.evaluation.comparison_rows import IDENTIFIERS
from gr_jax.evaluation.comparison_settings import ComparisonSettings
from gr_jax.evaluation.metrics import NAMES
from gr_jax.types import UserError

SETTINGS = ComparisonSettings(
  folder='runs',
  data_dirs={'toy': 'toy'},
  variants={'static/a': (), 'static/b': (), 'learned': ()},
  seeds=(0, 1),
  fractions=(0.01, 0.05),
  baseline='best:static/',
  split='test',
  measures=('R@10', 'MRR@10'),
)


def result(dev, test):
  """A result whose fused scores are constant on each split."""
  scores = {}
  for split, level in (('dev', dev), ('test', test)):
    for name in NAMES:
      for fraction in SETTINGS.fractions:
        for system in ('fused', 'generative alone'):
          key = score_key(split, system, fraction, name)
          # One number, or one for each share.
          value = level if np.isscalar(level) else level[fraction]
          scores[key] = np.full(6, value)
      scores[score_key(split, 'exact dense', None, name)] = np.ones(6)
  facts = {
    'weights': {'0.01': [0.0025, 1.0], '0.05': [1.0, 0.0]},
    'identifiers': dict.fromkeys(IDENTIFIERS, 1.0),
    'seconds': {'train': 60.0},
  }
  return Result(facts, scores)


def keyed(variant, *results):
  return {('toy', variant, seed): r for seed, r in enumerate(results)}


def choose(results, fraction=0.05):
  return comparison_rows.choose_baseline(SETTINGS, results, 'toy', fraction)


def test_the_best_baseline_is_that_of_dev_whatever_test_says():
  results = {
    **keyed('static/a', result(0.5, 0.1)),
    **keyed('static/b', result(0.4, 0.9)),
    **keyed('learned', result(0.9, 0.9)),
  }
  assert choose(results) == 'static/a'
  for found in results.values():
    for key in [key for key in found.scores if key.startswith('test')]:
      del found.scores[key]
  assert choose(results) == 'static/a'
  assert choose(keyed('learned', result(0.9, 0.9))) == ''


def test_each_share_has_its_own_best_baseline():
  results = {
    **keyed('static/a', result({0.01: 0.2, 0.05: 0.5}, 0.0)),
    **keyed('static/b', result({0.01: 0.3, 0.05: 0.4}, 0.0)),
  }
  assert choose(results, 0.01) == 'static/b'
  assert choose(results, 0.05) == 'static/a'


def test_rows_say_mean_range_and_paired_difference():
  results = {
    **keyed('static/a', result(0.5, 0.25), result(0.5, 0.5)),
    **keyed('learned', result(0.9, 0.5), result(0.9, 0.75)),
  }
  found = comparison_rows.rows(SETTINGS, results, {})
  row = next(
    row for row in found
    if (row.variant, row.split, row.system, row.fraction, row.measure)
    == ('learned', 'test', 'fused', 0.05, 'MRR@10')
  )  # fmt: skip
  assert (row.seeds, row.mean, row.half_range) == (2, 0.625, 0.125)
  # The same shift for each seed: pairing leaves nothing uncertain.
  assert row.baseline == 'static/a'
  difference = row.difference
  assert (difference.mean, difference.low, difference.high) == (0.25,) * 3
  assert not [r for r in found if r.difference and r.variant == 'static/a']


def test_baseline_and_differences_may_be_of_identifiers_alone():
  settings = dataclasses.replace(SETTINGS, system='generative alone')

  def ranked(fused, alone):
    made = result(fused, fused)
    for key in [key for key in made.scores if '/generative alone/' in key]:
      made.scores[key] = np.full(6, alone)
    return made

  results = {
    **keyed('static/a', ranked(0.9, 0.25)),
    **keyed('static/b', ranked(0.5, 0.5)),
    **keyed('learned', ranked(0.5, 0.75)),
  }
  found = comparison_rows.rows(settings, results, {})
  differences = {
    (row.variant, row.system, row.baseline, row.difference.mean)
    for row in found if row.difference
  }  # fmt: skip
  assert differences == {
    ('static/a', 'generative alone', 'static/b', -0.25),
    ('learned', 'generative alone', 'static/b', 0.25),
  }
  text = comparison_table.markdown(settings, found, results, {})
  assert 'Differences of generative alone.' in text
  assert '+0.2500 [+0.2500, +0.2500]' in text


def test_queries_of_all_data_sets_may_stand_together():
  settings = dataclasses.replace(
    SETTINGS, data_dirs={'a': 'a', 'b': 'b'}, pooled=True, seeds=(0,)
  )
  results = {
    ('a', 'static/a', 0): result(0.5, 0.5),
    ('b', 'static/a', 0): result(0.5, 0.5),
    ('a', 'learned', 0): result(0.5, 0.5),
    ('b', 'learned', 0): result(0.5, 0.875),
    # Half finished: in no row of all.
    ('a', 'static/b', 0): result(0.9, 0.9),
  }
  found = comparison_rows.rows(settings, results, {})
  pooled = [row for row in found if row.data == 'pooled']
  assert {row.variant for row in pooled} == {'static/a', 'learned'}
  # The dev queries of folds are the same ones.
  assert {row.split for row in pooled} == {'test'}
  (row,) = (
    row for row in pooled
    if (row.variant, row.split, row.system, row.fraction, row.measure)
    == ('learned', 'test', 'fused', 0.01, 'R@10')
  )  # fmt: skip
  assert (row.mean, row.baseline, row.difference.mean) == (
    0.6875, 'static/a', 0.1875,
  )  # fmt: skip
  # Half of the queries gain .375, which ones a draw has is chance.
  assert row.difference.low < 0.15 and row.difference.high > 0.22
  text = comparison_table.markdown(settings, found, results, {})
  assert '5 of 6 runs are finished' in text
  assert text.count('## pooled') == 1 and '## pooled, test' in text
  with pytest.raises(UserError, match="'pooled'"):
    dataclasses.replace(SETTINGS, data_dirs={'pooled': 'x'})


def test_differences_are_over_the_seeds_that_both_have():
  results = {
    **keyed('static/a', result(0.5, 0.25), result(0.5, 0.5)),
    ('toy', 'learned', 1): result(0.9, 0.75),
  }
  found = comparison_rows.rows(SETTINGS, results, {})
  differences = [r.difference.mean for r in found if r.difference]
  assert sorted({round(value, 6) for value in differences}) == [0.25, 0.4]


def test_tables_can_be_read_back_and_name_failures():
  results = {
    **keyed('static/a', result(0.5, 0.25)),
    **keyed('learned', result(0.9, 0.5)),
  }
  references = {'toy': {score_key('dev', 'BM25', None, 'R@10'): np.ones(6)}}
  rows = comparison_rows.rows(SETTINGS, results, references)
  read = list(csv.DictReader(io.StringIO(comparison_table.csv_text(rows))))
  assert len(read) == len(rows)
  assert {'BM25', 'learned', 'static/a'} == {row['variant'] for row in read}
  for line, row in zip(read, rows, strict=True):
    assert float(line['mean']) == row.mean
    assert line['split'] == row.split
  text = comparison_table.markdown(
    SETTINGS, rows, results, {('toy', 'static/b', 0): 'no | such\nthing'}
  )
  assert '2 of 6 runs are finished, 1 failed.' in text
  assert '- toy, static/b, seed 0: no | such thing' in text
  assert '+0.2500 [+0.2500, +0.2500]' in text
  # The weight of each share, and where the identifier alone was best.
  assert '| 60 | 0.0025 | generative alone |' in text
  widths = {
    line.count('|') for line in text.split('## toy, test')[1].splitlines()[2:7]
  }
  assert len(widths) == 1


def test_a_result_comes_back_for_its_own_settings_alone(tmp_path):
  comparison_results.write(tmp_path, 'one', result(0.5, 0.25))
  found = comparison_results.read(tmp_path, 'one')
  assert found.facts == result(0.5, 0.25).facts
  assert found.scores.keys() == result(0.5, 0.25).scores.keys()
  assert comparison_results.read(tmp_path, 'two') is None
  (tmp_path / 'scores.npz').unlink()
  assert comparison_results.read(tmp_path, 'one') is None
  assert comparison_results.read(tmp_path / 'none', 'one') is None


def test_the_plot_is_there_or_a_line_says_why(tmp_path, monkeypatch):
  results = keyed('learned', result(0.9, 0.5))
  rows = comparison_rows.rows(SETTINGS, results, {})
  path = tmp_path / 'plot.svg'
  with monkeypatch.context() as patched:
    patched.setattr(
      comparison_plot.importlib.util, 'find_spec', lambda name: None
    )
    comparison_plot.write(path, SETTINGS, rows)
    assert 'pip install' in comparison_plot.missing()
    assert not path.exists()
  pytest.importorskip('matplotlib', reason='the plot needs it')
  assert comparison_plot.missing() == ''
  comparison_plot.write(path, SETTINGS, rows)
  text = path.read_text()
  assert text.startswith('<?xml') and text.rstrip().endswith('</svg>')
