"""Files of rankings: what is written comes back, what is bad is named."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.evaluation.rankings import Rankings
from gr_jax.evaluation.run_files import write_run
from gr_jax.ranking import teacher_files
from gr_jax.ranking.teacher_files import (
  TeacherRanking,
  origin,
  ranking_line,
  read_manifest,
  read_rankings,
  write_manifest,
)
from gr_jax.types import UserError

RANKINGS = [
  TeacherRanking(
    'q1', ('d2', 'd1', 'd3'), np.float32([1 / 3, -2e-38, -7e30]), 'a text é'
  ),
  TeacherRanking('q2', (), np.float32([])),
  TeacherRanking('q3', ('d1', 'd2'), np.float32([0, 0])),
]


def same(left, right):
  assert [
    (r.query_id, r.document_ids, r.query, r.scores.tobytes()) for r in left
  ] == [
    (r.query_id, r.document_ids, r.query, r.scores.tobytes()) for r in right
  ]


def write_folder(folder):
  folder.mkdir()
  paths = []
  for number, part in enumerate((RANKINGS[:1], RANKINGS[1:])):
    paths.append(folder / f'{number:05d}.jsonl')
    paths[-1].write_text(''.join(map(ranking_line, part)), encoding='utf-8')
  write_manifest(folder, {'teachers': {'bm25': ''}, 'split': 'train'}, paths)
  return folder


def test_a_folder_comes_back_bit_for_bit(tmp_path):
  folder = write_folder(tmp_path / 'r')
  same(read_rankings(folder), RANKINGS)
  assert read_manifest(folder)['teachers'] == {'bm25': ''}


@pytest.mark.parametrize('header', ['', '{"teacher": "bm25"}\n'])
def test_a_file_alone_with_a_header_or_without(tmp_path, header):
  text = header + ''.join(map(ranking_line, RANKINGS))
  (tmp_path / 'r.jsonl').write_text(text, encoding='utf-8')
  same(read_rankings(tmp_path / 'r.jsonl'), RANKINGS)
  with gzip.open(tmp_path / 'r.jsonl.gz', 'wt', encoding='utf-8') as file:
    file.write(text)
  same(read_rankings(tmp_path / 'r.jsonl.gz'), RANKINGS)


@pytest.mark.parametrize(
  'header, message',
  [
    ('{"document_ids": ["d1"], "scores": [1]}', "no 'query_id'"),
    ('{"collection": 3}', 'must be a string'),
    ('{"examples": ["a"]}', 'must be a string'),
  ],
)
def test_a_header_is_no_ranking_and_says_what_it_is_of(
  tmp_path, header, message
):
  path = tmp_path / 'r.jsonl'
  path.write_text(f'{header}\n{GOOD}\n')
  with pytest.raises(UserError, match=rf'r\.jsonl:1: .*{message}'):
    list(read_rankings(path))


def test_what_rankings_say_that_they_are_of(tmp_path):
  assert origin(write_folder(tmp_path / 'r'))['split'] == 'train'
  path = tmp_path / 'r.jsonl'
  for first, said in (('{"collection": "a"}\n', {'collection': 'a'}), ('', {})):
    path.write_text(f'{first}{GOOD}\n')
    assert origin(path) == said
  (tmp_path / 'r.trec').write_text('q1 Q0 d1 1 2.0 x\n')
  assert origin(tmp_path / 'r.trec') == {}


def test_a_trec_run_is_read_in_its_order(tmp_path):
  names = ['a', 'b', 'c', 'd']
  rows_BC = np.array([[2, 0, 1, -1], [3, 2, 0, 1]])
  scores_BC = np.float32([[1.5, 0.5, 0.5, 0], [4, 3, 2, 1 / 3]])
  nothing = np.zeros(2, np.int64)
  path = tmp_path / 'run.trec'
  write_run(
    path, ['q1', 'q2'], names, Rankings(rows_BC, scores_BC, nothing, nothing),
    'x',
  )  # fmt: skip
  found = list(read_rankings(path, {'q1', 'q2'}, set(names)))
  # Ties by id, descending.
  assert [r.document_ids for r in found] == [('c', 'b', 'a'), tuple('dcab')]
  np.testing.assert_array_equal(found[1].scores, scores_BC[1])


GOOD = '{"query_id": "q1", "document_ids": ["d1", "d2"], "scores": [2, 1.5]}'
BAD = {
  '{"query_id": "q1", "document_ids": ["d1"]}': "'scores' must be a list",
  '{"query_id": "q1", "scores": [1]}': "'document_ids' must be a list",
  '{"query_id": 3, "document_ids": [], "scores": []}': 'must be a string',
  '{"query_id": "", "document_ids": [], "scores": []}': 'without white space',
  '{"query_id": "a b", "document_ids": [], "scores": []}': 'without white',
  '{"document_ids": [], "scores": []}': "no 'query_id'",
  GOOD.replace('1.5', '2.5'): 'rise after place 1',
  GOOD.replace('"d2"', '"d1"'): "'d1' is ranked twice",
  GOOD.replace('"d2"', 'null'): "no 'document_ids'",
  GOOD.replace('"d2"', '"d 2"'): 'without white space',
  GOOD.replace('1.5', '1, 0'): '2 document_ids have 3 scores',
  GOOD.replace('1.5', 'true'): 'must be a number, got bool',
  GOOD.replace('1.5', '"1"'): 'must be a number, got str',
  GOOD.replace('1.5', 'NaN'): 'NaN is not JSON',
  GOOD.replace('1.5', '-1e300'): 'too large',
  GOOD.replace('2,', '1' + '0' * 400 + ','): 'too large',
  GOOD.replace('"q1"', '"q0"'): "'q0' is ranked for already in r.jsonl:1",
  GOOD.replace('"q1"', '"q9"'): "'q9' is not among the queries",
  GOOD.replace('"d2"', '"d9"'): "'d9' is not in the corpus",
  GOOD.replace('"query_id"', '"query": 3, "query_id"'): 'must be a string',
  '[]': 'expected a JSON object',
  '': 'blank line',
  '{': 'bad JSON',
}


@pytest.mark.parametrize('line', BAD)
def test_a_bad_record_is_named(tmp_path, line):
  path = tmp_path / 'r.jsonl'
  first = GOOD.replace('"q1"', '"q0"')
  path.write_text(f'{first}\n{line}\n')
  with pytest.raises(UserError) as caught:
    list(read_rankings(path, {'q0', 'q1'}, {'d1', 'd2'}))
  assert str(caught.value).startswith(f'{path}:2: ')
  assert BAD[line] in str(caught.value)


@pytest.mark.parametrize(
  'content, message',
  [
    ('q1 Q0 d1 1 2.0\n', ':1: a run file has six columns'),
    ('q1 Q0 d1 1 1e300 x\n', 'too large'),
    ('q1 Q0 d9 1 2.0 x\n', "'d9' is not in the corpus"),
  ],
)
def test_a_bad_run_is_named(tmp_path, content, message):
  (tmp_path / 'r.trec').write_text(content)
  with pytest.raises(UserError, match=message):
    list(read_rankings(tmp_path / 'r.trec', {'q1'}, {'d1'}))


def test_what_is_not_there_or_not_whole_is_refused(tmp_path):
  with pytest.raises(UserError, match='none is there'):
    list(read_rankings(tmp_path / 'none'))
  with pytest.raises(UserError, match='to its end'):
    list(read_rankings(tmp_path))


def test_a_flipped_bit_is_refused(tmp_path):
  folder = write_folder(tmp_path / 'r')
  for path in sorted(folder.iterdir()):
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(UserError, match='damaged'):
      list(read_rankings(folder))
    path.write_bytes(whole[:-2])
    with pytest.raises(UserError, match='rank again'):
      list(read_rankings(folder))
    path.write_bytes(whole)
  same(read_rankings(folder), RANKINGS)


def test_another_format_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(teacher_files, 'FORMAT', 2)
  folder = write_folder(tmp_path / 'r')
  monkeypatch.undo()
  with pytest.raises(UserError, match='is in format 2, this version reads 1'):
    read_manifest(folder)


_PIECES = [
  GOOD.encode(), b'{"query_id": "q2", "document_ids": ', b'[', b']', b'{', b'}',
  b'"scores": ', b'1e999', b'NaN', b'-1', b'"d1"', b',', b'\n', b'\0', b'\xff',
  b'null', b'"\\ud800"', b'9' * 5000, b'\xef\xbb\xbf', b'q1 Q0 d1 1 2 x\n',
]  # fmt: skip


@pytest.mark.parametrize('name', ['r.jsonl', 'r.trec', 'r.jsonl.gz'])
@given(
  junk=st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from(_PIECES)), max_size=12
  ).map(b''.join)
)
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_read_or_refused(name, junk, tmp_path_factory):
  path = tmp_path_factory.mktemp('fuzz') / name
  path.write_bytes(junk)
  try:
    for ranking in read_rankings(path):
      json.loads(ranking_line(ranking))
  except UserError as error:
    assert str(path) in str(error)


@given(junk=st.binary(max_size=200), at=st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_any_manifest_is_read_or_refused(junk, at, tmp_path_factory):
  folder = write_folder(tmp_path_factory.mktemp('fuzz') / 'r')
  path = folder / 'manifest.json'
  whole = path.read_bytes()
  path.write_bytes(whole[:at] + junk + whole[at:])
  try:
    same(read_rankings(folder), RANKINGS)
  except UserError as error:
    assert str(path) in str(error)
