import json

import numpy as np
import pytest

from gr_jax.evaluation import report
from gr_jax.evaluation.identifiers import identifier_statistics
from gr_jax.evaluation.metrics import NAMES, Scores
from gr_jax.evaluation.protocol import Measured
from gr_jax.evaluation.rankings import Rankings

SETTING = report.Setting(
  dataset='toy',
  split='test',
  documents=1000,
  command='python -m gr_jax.evaluate --run_dir=runs/toy',
  seed=3,
  corpus_sha256='0' * 64,
  search={'beams': 5},
)
GOLDEN = """\
toy, test: 1,000 documents, 2 queries (1 without a relevant document)

system                        R@1   R@10  R@100  MRR@10  nDCG@10  \
docs scored/query  code scores/query  queries/s
BM25                        0.250  0.250  0.250   0.250    0.250  \
            220.0                  0      1,500
exact dense                 0.600  0.600  0.600   0.600    0.600  \
          1,000.0                  0      1,500
exact dense (InfoNCE alone) 0.800  0.800  0.800   0.800    0.800  \
          1,000.0                  0      1,500
gr_jax                      0.700  0.700  0.700   0.700    0.700  \
             50.0             51,200      1,500

gr_jax reaches 87.5% of the R@10 of exact dense (InfoNCE alone) and scores \
5.0% of the documents.

ID space
identifiers       3 in use
uniqueness        0.750
position entropy  1.000 0.406
sequence entropy  0.750
documents per ID  mean 1.33, p99 2, max 2
dead codes        2
Gini              0.167"""


def measured(name, value, scored, codes=0):
  rankings = Rankings(
    np.zeros((3, 1), int),
    np.zeros((3, 1)),
    np.full(3, scored),
    np.full(3, codes),
  )
  values = {name: np.array([value - 0.1, value + 0.1]) for name in NAMES}
  return Measured(name, ['d'], rankings, Scores(('a', 'b'), values, 1), 1500.0)


SYSTEMS = [
  measured(report.BM25, 0.25, 220),
  measured(report.DENSE, 0.6, 1000),
  measured(report.DENSE_ONLY, 0.8, 1000),
  measured(report.GR_JAX, 0.7, 50, 51_200),
]
ID_SPACE = identifier_statistics(
  np.array([[0, 0], [0, 0], [1, 0], [1, 3]]), [2, 4]
)


def test_table_golden():
  text = report.table(SETTING, SYSTEMS, ID_SPACE, {})
  squeezed = [' '.join(line.split()) for line in text.splitlines()]
  assert squeezed == [' '.join(line.split()) for line in GOLDEN.splitlines()]
  # Columns end at one place: every line of the table is equally long.
  assert len({len(line) for line in text.splitlines()[2:7]}) == 1


def test_results_have_the_agreed_keys(tmp_path):
  path = tmp_path / 'results.json'
  report.write_results(path, report.results(SETTING, SYSTEMS, ID_SPACE, {}))
  found = json.loads(path.read_text())
  assert {
    'dataset', 'split', 'documents', 'systems', 'id_space', 'command', 'seed',
    'versions', 'corpus_sha256', 'search',
  } <= set(found)  # fmt: skip
  for system in found['systems']:
    assert set(system) == {
      'name', 'R@1', 'R@10', 'R@100', 'RR@10', 'nDCG@10',
      'documents_scored_per_query', 'code_scores_per_query',
      'queries_per_second',
    }  # fmt: skip
  ours = found['systems'][3]
  assert ours['name'] == 'gr_jax'
  assert ours['R@10'] == pytest.approx(0.7)
  assert ours['documents_scored_per_query'] == 50
  assert ours['code_scores_per_query'] == 51_200
  assert {
    'uniqueness', 'position_entropy', 'sequence_entropy', 'documents_per_id',
    'dead_codes',
  } <= set(found['id_space'])  # fmt: skip
  assert set(found['id_space']['documents_per_id']) == {'mean', 'p99', 'max'}
  assert found['versions']['jax'] != 'not installed'
  assert found['seed'] == 3
  assert [entry.name for entry in tmp_path.iterdir()] == ['results.json']


def test_comparisons_are_paired():
  found = report.results(SETTING, SYSTEMS, ID_SPACE, {})['comparisons']
  assert [row['less'] for row in found] == [
    'BM25', 'exact dense', 'exact dense (InfoNCE alone)',
  ]  # fmt: skip
  # Both systems move together from query to query: no spread is left.
  assert found[1]['low'] == pytest.approx(0.1)
  assert found[1]['high'] == pytest.approx(0.1)


GROUPS = {'seen': np.array([True, False]), 'new': np.array([False, True])}
GROUP_GOLDEN = """\
Queries by whether training saw their relevant documents (mixed: some of them)

relevant documents queries system R@1 R@10 R@100 MRR@10 nDCG@10
seen 1 BM25 0.150 0.150 0.150 0.150 0.150
seen 1 exact dense 0.500 0.500 0.500 0.500 0.500
seen 1 exact dense (InfoNCE alone) 0.700 0.700 0.700 0.700 0.700
seen 1 gr_jax 0.600 0.600 0.600 0.600 0.600
new 1 BM25 0.350 0.350 0.350 0.350 0.350
new 1 exact dense 0.700 0.700 0.700 0.700 0.700
new 1 exact dense (InfoNCE alone) 0.900 0.900 0.900 0.900 0.900
new 1 gr_jax 0.800 0.800 0.800 0.800 0.800

seen: gr_jax reaches 85.7% of the R@10 of exact dense (InfoNCE alone).
new: gr_jax reaches 88.9% of the R@10 of exact dense (InfoNCE alone).
"""


def test_groups_of_queries_have_rows_of_their_own():
  lines = report.table(SETTING, SYSTEMS, ID_SPACE, GROUPS).splitlines()
  squeezed = [' '.join(line.split()) for line in lines]
  start = squeezed.index(GROUP_GOLDEN.splitlines()[0])
  wanted = GROUP_GOLDEN.splitlines()
  assert squeezed[start : start + len(wanted)] == wanted
  # What stands around them is the table without groups.
  rest = squeezed[:start] + squeezed[start + len(wanted) + 1 :]
  plain = report.table(SETTING, SYSTEMS, ID_SPACE, {}).splitlines()
  assert rest == [' '.join(line.split()) for line in plain]


def test_near_and_far_queries_have_a_table_of_their_own():
  halves = {'near': GROUPS['seen'], 'far': GROUPS['new']}
  alone = report.table(SETTING, SYSTEMS, ID_SPACE, halves)
  assert 'training saw' not in alone
  assert 'far: gr_jax reaches 88.9%' in alone
  both = report.table(SETTING, SYSTEMS, ID_SPACE, {**GROUPS, **halves})
  assert both.index('training saw') < both.index('trained on: the nearer half')


def test_results_hold_the_groups():
  found = report.results(SETTING, SYSTEMS, ID_SPACE, GROUPS)['groups']
  assert list(found) == ['seen', 'new']
  assert found['new']['queries'] == 1
  ours = found['new']['systems'][3]
  assert ours == {'name': 'gr_jax', **dict.fromkeys(NAMES, pytest.approx(0.8))}
  assert report.results(SETTING, SYSTEMS, ID_SPACE, {})['groups'] == {}


def test_nan_is_refused_and_leaves_the_old_file(tmp_path):
  path = tmp_path / 'results.json'
  report.write_results(path, {'seed': 1})
  with pytest.raises(ValueError, match='not JSON compliant'):
    report.write_results(path, {'seed': float('nan')})
  assert json.loads(path.read_text()) == {'seed': 1}
  assert [entry.name for entry in tmp_path.iterdir()] == ['results.json']
