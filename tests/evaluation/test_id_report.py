"""The numbers of the identifier report, against brute force."""

import collections
import itertools
import math

import numpy as np
import pytest

from gr_jax.decoding.trie import build_trie
from gr_jax.evaluation import id_churn, id_measures, id_recall
from gr_jax.evaluation.id_treemap import one_line, treemap
from gr_jax.evaluation.identifiers import identifier_statistics
from gr_jax.evaluation.prefixes import prefix_tree
from gr_jax.evaluation.run_files import read_run
from gr_jax.types import Judgement, UserError

SIZES = (5, 3, 7, 2)


def skewed_codes(documents=300, seed=0):
  rng = np.random.default_rng(seed)
  columns = [np.minimum(rng.geometric(0.4, documents), k) - 1 for k in SIZES]
  return np.stack(columns, axis=1).astype(np.uint8)


def prefixes_of(codes_NL, length):
  return [tuple(row[:length]) for row in codes_NL.tolist()]


def test_prefixes_equal_brute_force():
  codes_NL = skewed_codes()
  tree = prefix_tree(codes_NL)
  for length in range(5):
    prefixes = prefixes_of(codes_NL, length)
    counts = collections.Counter(prefixes)
    assert tree.counts(length).tolist() == [counts[p] for p in sorted(counts)]
    numbers = {prefix: n for n, prefix in enumerate(sorted(counts))}
    assert tree.members(length).tolist() == [numbers[p] for p in prefixes]
    if length < 4:
      longer = set(prefixes_of(codes_NL, length + 1))
      below = collections.Counter(p[:-1] for p in longer)
      assert tree.children(length).tolist() == [below[p] for p in sorted(below)]


def test_prefix_entropy_and_utilisation_equal_brute_force():
  codes_NL = skewed_codes()
  found = identifier_statistics(codes_NL, SIZES)
  for length in range(1, 5):
    counts = collections.Counter(prefixes_of(codes_NL, length))
    entropy = -sum(n / 300 * math.log(n / 300) for n in counts.values())
    space = min(300, math.prod(SIZES[:length]))
    assert found.prefix_entropy[length - 1] == pytest.approx(
      entropy / math.log(space)
    )
  assert found.prefix_entropy[-1] == found.sequence_entropy
  assert found.utilisation == pytest.approx(
    [len(set(codes_NL[:, p])) / k for p, k in enumerate(SIZES)]
  )


@pytest.mark.parametrize(('documents', 'ids'), [(40, 7), (3, 50), (500, 2)])
def test_expected_occupancy_is_binomial(documents, ids):
  counts = np.array([documents])
  bins = id_measures.occupancy(counts, math.log(ids))
  for b in bins:
    expected = sum(
      ids * math.comb(documents, k) * (ids - 1) ** (documents - k)
      / ids**documents
      for k in range(b['from'], b['to'] + 1)
    )  # fmt: skip
    assert b['expected'] == pytest.approx(expected, abs=1e-6)
  assert sum(b['observed'] for b in bins) == 1
  assert id_measures.expected_in_use(documents, math.log(ids)) == pytest.approx(
    sum(b['expected'] for b in bins), abs=0.01
  )


def test_random_ids_look_like_the_expected_ones():
  rng = np.random.default_rng(0)
  codes_NL = rng.integers(0, (40, 30), (3000, 2))
  counts = prefix_tree(codes_NL).counts(2)
  log_ids = math.log(1200)
  assert id_measures.expected_in_use(3000, log_ids) == pytest.approx(
    len(counts), rel=0.02
  )
  bins = id_measures.occupancy(counts, log_ids)
  assert sum(b['observed'] for b in bins) == len(counts)
  for b in bins:
    # Five deviations of a count.
    tolerance = 5 * math.sqrt(b['expected']) + 2
    assert b['observed'] == pytest.approx(b['expected'], abs=tolerance)


def test_spaces_past_the_largest_float_and_of_one_id():
  assert id_measures.expected_in_use(100, 2000.0) == 100
  bins = id_measures.occupancy(np.ones(100, int), 2000.0)
  assert bins[0]['expected'] == pytest.approx(100)
  assert id_measures.expected_in_use(100, 0.0) == 1
  bins = id_measures.occupancy(np.array([100]), 0.0)
  assert bins[-1]['expected'] == bins[-1]['observed'] == 1


def test_bins_cover_every_count_once():
  counts = np.array([1, 2, 16, 17, 18, 500, 100_000])
  bins = id_measures.occupancy(counts, math.log(1e9))
  assert bins[0]['from'] == 1
  for before, after in itertools.pairwise(bins):
    assert after['from'] == before['to'] + 1
  assert sum(b['observed'] for b in bins) == len(counts)
  assert bins[-1]['from'] <= 100_000 <= bins[-1]['to']


def test_decoding_cost_equals_brute_force():
  codes_NL = skewed_codes()
  steps = id_measures.decoding_cost(prefix_tree(codes_NL), SIZES)
  ids = set(prefixes_of(codes_NL, 4))
  for position, step in enumerate(steps):
    below = collections.defaultdict(set)
    for identifier in ids:
      below[identifier[:position]].add(identifier[position])
    assert step['nodes'] == len(below)
    assert step['children']['max'] == max(map(len, below.values()))
    allowed = [len(below[p]) for p in prefixes_of(codes_NL, position)]
    assert step['continuations'] == pytest.approx(np.mean(allowed))
    assert step['allowed'] == pytest.approx(np.mean(allowed) / SIZES[position])
  trie = build_trie(codes_NL, SIZES)
  assert trie.nbytes == (
    trie.columns.itemsize * (trie.columns.size + trie.child_codes.size)
    + 4 * (300 + trie.wide_nodes.size + trie.child_offsets.size)
    + 4 * (trie.child_starts.size + trie.bitmap_rows.size + trie.bitmaps.size)
  )


def judged(codes_NL, sizes):
  found = identifier_statistics(np.asarray(codes_NL), sizes)
  rows = id_measures.verdicts(found, sizes)
  return {row['name']: row['status'] for row in rows}


def test_verdicts():
  rng = np.random.default_rng(0)
  assert judged(rng.integers(0, 32, (1000, 4)), [32] * 4) == {
    'Uniqueness': 'ok', 'Whole-ID entropy': 'ok', 'Documents per ID': 'n/a',
    'Codes in use': 'ok',
  }  # fmt: skip
  # Room for an ID each, and all documents on few.
  collapsed = rng.integers(0, 3, (1000, 4))
  assert judged(collapsed, [32] * 4) == {
    'Uniqueness': 'warn', 'Whole-ID entropy': 'warn', 'Documents per ID': 'ok',
    'Codes in use': 'warn',
  }  # fmt: skip
  # Buckets by design, even and uneven.
  even = rng.integers(0, 8, (1000, 2))
  assert judged(even, [8, 8])['Uniqueness'] == 'n/a'
  assert judged(even, [8, 8])['Documents per ID'] == 'ok'
  even[:500] = 0
  assert judged(even, [8, 8])['Documents per ID'] == 'warn'


def table(codes_NL, names=None):
  names = names or [f'd{row}' for row in range(len(codes_NL))]
  return id_churn.IdTable(np.asarray(codes_NL), names)


def test_churn_of_the_same_index_in_another_order_is_none():
  codes_NL = skewed_codes()
  order = np.random.default_rng(1).permutation(300)
  found = id_churn.churn(
    table(codes_NL), table(codes_NL[order], [f'd{row}' for row in order])
  )
  assert found['changed'] == 0
  assert (found['matched'], found['new'], found['removed']) == (300, 0, 0)
  for row in found['prefixes']:
    assert row['changed'] == 0
    assert row['adjusted_rand'] == pytest.approx(1)
    assert row['kept_pairs'] == 1


def test_codes_with_other_numbers_are_the_same_groups():
  codes_NL = skewed_codes()
  renamed_NL = (codes_NL + 1) % np.array(SIZES)
  found = id_churn.churn(table(renamed_NL), table(codes_NL))
  assert found['changed'] == 1
  assert [row['changed'] for row in found['positions']] == [1] * 4
  assert [row['adjusted_rand'] for row in found['prefixes']] == pytest.approx(
    [1] * 4
  )


def test_agreement_equals_brute_force_over_pairs():
  rng = np.random.default_rng(0)
  new_N, old_N = rng.integers(0, 4, 60), rng.integers(0, 6, 60)
  old_N[:30] = new_N[:30]
  pairs = list(itertools.combinations(range(60), 2))
  together = [new_N[a] == new_N[b] for a, b in pairs]
  before = [old_N[a] == old_N[b] for a, b in pairs]
  both = sum(np.logical_and(together, before))
  chance = sum(together) * sum(before) / len(pairs)
  found = id_churn.grouping_agreement(new_N, old_N)
  assert found['kept_pairs'] == pytest.approx(both / sum(before))
  assert found['adjusted_rand'] == pytest.approx(
    (both - chance) / ((sum(together) + sum(before)) / 2 - chance)
  )
  alone = id_churn.grouping_agreement(np.arange(5), np.arange(5))
  assert alone == {'adjusted_rand': None, 'kept_pairs': None}


def test_churn_counts_what_changed_came_and_went():
  old = table([[0, 0], [0, 1], [1, 0], [1, 1]], ['a', 'b', 'c', 'gone'])
  new = table([[0, 0], [0, 2], [2, 0], [1, 1]], ['a', 'b', 'c', 'new'])
  found = id_churn.churn(new, old)
  assert (found['matched'], found['new'], found['removed']) == (3, 1, 1)
  assert found['changed'] == pytest.approx(2 / 3)
  assert [row['changed'] for row in found['positions']] == pytest.approx(
    [1 / 3, 1 / 3]
  )
  assert [row['changed'] for row in found['prefixes']] == pytest.approx(
    [1 / 3, 2 / 3]
  )
  longer = table([[0, 0, 1], [0, 1, 1]], ['a', 'b'])
  assert id_churn.churn(longer, old)['changed'] == 1
  assert id_churn.churn(longer, old)['prefixes'][1]['changed'] == 0
  with pytest.raises(UserError, match='it holds none of them'):
    id_churn.churn(table([[0, 0]], ['x']), old)


def test_recall_by_group_adds_up_to_recall(tmp_path):
  rng = np.random.default_rng(0)
  codes_NL = skewed_codes()
  names = [f'd{row}' for row in range(300)]
  relevant = [
    Judgement(f'q{query}', f'd{row}', 1)
    for query in range(40)
    for row in rng.choice(300, rng.integers(1, 4), replace=False)
  ]
  lines, recalls = [], []
  for query in range(40):
    # Eleven places: the last one is too low to count.
    found = rng.permutation(
      [f'd{row}' for row in rng.choice(100, 10, replace=False)]
      + [j.document_id for j in relevant if j.query_id == f'q{query}'][:1]
    ).tolist()
    found = list(dict.fromkeys(found))
    lines += [f'q{query} Q0 {d} {n + 1} {1 / (n + 1)} x' for n, d in
              enumerate(found)]  # fmt: skip
    wanted = [j.document_id for j in relevant if j.query_id == f'q{query}']
    recalls.append(np.mean([d in found[:10] for d in wanted]))
  path = tmp_path / 'gr_jax.test.trec'
  path.write_text('\n'.join(lines) + '\n')
  assert len(read_run(path)) == 40
  report = id_recall.recall_report(
    prefix_tree(codes_NL), names, {'gr_jax': path},
    [*relevant, Judgement('q0', 'unknown', 1)], None,
  )  # fmt: skip
  assert (report['queries'], report['unknown_documents']) == (40, 1)
  assert len(report['groupings']) == 2
  query_P = np.array([int(j.query_id[1:]) for j in relevant])
  weight_P = 1 / np.bincount(query_P)[query_P]
  for grouping, length in zip(report['groupings'], (1, 2), strict=True):
    groups_P, _ = id_recall.size_groups(
      prefix_tree(codes_NL), length,
      np.array([int(j.document_id[1:]) for j in relevant]),
    )  # fmt: skip
    rows = grouping['rows']['gr_jax']
    total = sum(
      row['recall'] * weight_P[groups_P == group].sum()
      for group, row in enumerate(rows) if row
    )  # fmt: skip
    assert total / 40 == pytest.approx(np.mean(recalls))
    assert sum(row['pairs'] for row in rows if row) == len(relevant)


def test_groups_are_thirds_and_counts_of_queries():
  codes_NL = np.repeat([[0], [1], [2]], [10, 11, 12], axis=0)
  groups_P, names = id_recall.size_groups(
    prefix_tree(codes_NL), 1, np.array([0, 9, 10, 20, 21, 32])
  )
  # A third of 33 documents lies at size 11, two thirds at size 12.
  assert groups_P.tolist() == [0, 0, 0, 0, 1, 1]
  assert len(names) == 3
  groups_P, names = id_recall.query_groups(np.array([0, 1, 2, 3, 9, 10, 99]))
  assert groups_P.tolist() == [0, 1, 1, 2, 2, 3, 3]
  assert names == ['0', '1 to 2', '3 to 9', '10 and more']


def test_the_runs_of_the_test_split_are_taken(tmp_path):
  for name in ('bm25.test', 'gr_jax.test', 'gr_jax.dev'):
    (tmp_path / f'{name}.trec').write_text('')
  split, runs = id_recall.find_runs(tmp_path)
  assert split == 'test'
  assert list(runs) == ['gr_jax', 'bm25']
  assert id_recall.find_runs(tmp_path / 'none') == ('', {})


def nodes_of(node):
  yield node
  for child in node.get('children', []):
    yield from nodes_of(child)


@pytest.mark.parametrize('most', [5, 20, 10_000])
def test_the_treemap_keeps_every_document(most):
  codes_NL = skewed_codes()
  names = [f'd{row}' for row in range(300)]
  root = treemap(prefix_tree(codes_NL), ([''] * 300, names), most)
  for node in nodes_of(root):
    if 'children' in node:
      below = sum(child['documents'] for child in node['children'])
      assert below == node['documents']
    if node.get('ids') and node['codes']:
      prefix = tuple(map(int, node['codes'].split('-')))
      members = {
        f'd{row}' for row, codes in enumerate(codes_NL.tolist())
        if tuple(codes[: len(prefix)]) == prefix
      }  # fmt: skip
      assert len(members) == node['documents']
      assert set(node['samples']) <= members
  number = len(list(nodes_of(root)))
  assert number <= most + 2
  if most == 10_000:
    leaves = [n for n in nodes_of(root) if 'children' not in n]
    assert len(leaves) == len(set(prefixes_of(codes_NL, 4)))


def test_titles_are_one_printable_line():
  assert one_line('a\x1b[31m\n b') == 'a [31m b'
  assert len(one_line('word ' * 100)) <= 90
