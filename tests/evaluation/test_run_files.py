import ir_measures
import numpy as np
import pytest

from gr_jax.evaluation.metrics import score
from gr_jax.evaluation.rankings import Rankings
from gr_jax.evaluation.run_files import read_run, write_run
from gr_jax.types import NO_DOC, Judgement, UserError

GOLDEN = """\
q1 Q0 b 1 0.75 exact_dense
q1 Q0 a 2 0.333333343 exact_dense
q2 Q0 c 1 2 exact_dense
q2 Q0 a 2 2 exact_dense
"""


def test_golden_file_with_ties_in_the_order_of_trec_eval(tmp_path):
  rankings = Rankings(
    np.array([[1, 0, NO_DOC], [0, 2, NO_DOC]]),
    np.array([[0.75, 1 / 3, 0], [2.0, 2.0, 0]], np.float32),
    np.zeros(2),
    np.zeros(2),
  )
  path = tmp_path / 'runs' / 'dense.trec'
  write_run(path, ['q1', 'q2'], ['a', 'b', 'c'], rankings, 'exact dense')
  assert path.read_text() == GOLDEN
  assert [entry.name for entry in path.parent.iterdir()] == ['dense.trec']
  run = read_run(path)
  assert np.float32(run['q1']['a']) == np.float32(1 / 3)


def test_trec_eval_reads_the_same_metrics_from_the_file(tmp_path):
  rng = np.random.default_rng(0)
  ids, queries = [f'd{n}' for n in range(60)], [f'q{n}' for n in range(30)]
  rows_BC = np.stack([rng.permutation(60)[:40] for _ in queries])
  # Few distinct scores, so that ties decide.
  scores_BC = -np.sort(rng.integers(0, 5, rows_BC.shape) / 7, axis=1)
  rankings = Rankings(rows_BC, scores_BC, np.zeros(30), np.zeros(30))
  judgements = [
    Judgement(query, ids[document], 1)
    for query in queries
    for document in rng.choice(60, 3, replace=False)
  ]
  path = tmp_path / 'x.trec'
  write_run(path, queries, ids, rankings, 'x')
  means = score(rankings, queries, ids, judgements).means()
  measures = [ir_measures.R @ 10, ir_measures.nDCG @ 10]
  qrels = [
    ir_measures.Qrel(j.query_id, j.document_id, j.relevance) for j in judgements
  ]
  found = ir_measures.pytrec_eval.calc_aggregate(
    measures, qrels, ir_measures.read_trec_run(str(path))
  )
  for measure, value in found.items():
    assert value == pytest.approx(means[str(measure)], abs=1e-9)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('q Q0 d 1 2.5\n', ':1: a run file has six columns, got 5'),
    ('q Q0 d 1 2 s\nq Q0 e 2 nan s\n', ":2: .* finite number, got 'nan'"),
    ('q Q0 d 1 high s\n', "finite number, got 'high'"),
    ('q Q0 d 1 2 s\nq Q0 d 2 1 s\n', ":2: document 'd' stands twice"),
  ],
)
def test_bad_run_files_are_refused_with_file_and_line(tmp_path, text, message):
  path = tmp_path / 'x.trec'
  path.write_text(text)
  with pytest.raises(UserError, match=message):
    read_run(path)
