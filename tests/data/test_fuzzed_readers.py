"""Any bytes are read or refused in one line that names file and line."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.data.collection import Collection
from gr_jax.data.documents import DocumentFile
from gr_jax.data.pseudo_queries import read_pseudo_queries
from gr_jax.evaluation.run_files import read_run
from gr_jax.types import UserError

# What such files are made of, and what breaks them.
_PIECES = [
  b'q1', b'q2', b'd1', b'd2', b'Q0', b'1', b'-1', b'.5', b'nan', b'inf',
  b'1e999', b'\t', b' ', b'  ', b'\r', b'\n', b'\0', b'\xff', b'\xc3',
  b'\xef\xbb\xbf',
  '\u2028'.encode(), '\x85'.encode(), b'"', b'\\', b'\\u0000', b'\\ud800', b'{',
  b'}', b'[', b']', b':', b',', b'null', b'true', b'"_id"', b'"text"',
  b'"queries"', b'"query"', b'"document_id"', b'"metadata"',
  b'{"_id": "q3", "text": "t"}', b'{"_id": "d1", "queries": ["t"]}',
]  # fmt: skip
JUNK = st.lists(
  st.one_of(st.binary(max_size=40), st.sampled_from(_PIECES)), max_size=12
).map(b''.join)
FILES = {
  'queries.jsonl': b'{"_id": "q1", "text": "a"}\n{"_id": "q2", "text": "b"}\n',
  'qrels/train.tsv': b'query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t0\n',
  'qrels/test.trec': b'q1 0 d1 1\nq2 0 d2 -1\n',
}


def write(folder, **changed):
  (folder / 'qrels').mkdir()
  corpus = ''.join(
    json.dumps({'_id': f'd{i}', 'text': 'x'}) + '\n' for i in (1, 2)
  )
  (folder / 'corpus.jsonl').write_text(corpus)
  for name, content in FILES.items():
    (folder / name).write_bytes(changed.get(name, content))
  return folder


def read(folder, allowed):
  """Queries and judgements by kind, and how many records were left out."""
  collection = Collection(folder, max_bad_records=allowed)
  queries = {query.id: query.text for query in collection.queries()}
  judged = {split: collection.judgements(split) for split in ('train', 'test')}
  return queries, judged, len(collection.bad_records)


@pytest.mark.parametrize('name', FILES)
@given(junk=JUNK)
@settings(max_examples=40, deadline=None)
def test_a_collection(name, junk, tmp_path_factory):
  folder = tmp_path_factory.mktemp('fuzz')
  write(folder, **{name: FILES[name] + junk + b'\n'})
  clean = read(write(tmp_path_factory.mktemp('clean')), 0)
  lines = len(junk.split(b'\n'))
  try:
    queries, judged, left_out = read(folder, lines)
  except UserError as error:
    raise AssertionError(f'{junk}: {error}') from error
  # What was there before the junk is read as it was.
  assert clean[0].items() <= queries.items()
  for split, judgements in clean[1].items():
    assert judged[split][: len(judgements)] == judgements
    assert all(j.query_id in queries for j in judged[split])
  more = len(queries) + sum(map(len, judged.values())) - 6
  assert left_out + more == lines
  if left_out:
    with pytest.raises(UserError) as caught:
      read(folder, left_out - 1)
    text = str(caught.value)
    assert re.match(rf'{re.escape(str(folder / name))}:\d+: ', text)
    assert '\n' not in text


@given(junk=JUNK)
@settings(max_examples=40, deadline=None)
def test_pseudo_queries(junk, tmp_path_factory):
  path = tmp_path_factory.mktemp('fuzz') / 'queries.jsonl'
  path.write_bytes(b'{"_id": "d1", "queries": ["a"]}\n' + junk + b'\n')
  refused = []
  found = list(
    read_pseudo_queries(path, {'d1', 'd2'}, lambda *bad: refused.append(bad))
  )
  assert found[0] == ('d1', 'a')
  assert len(found) - 1 + len(refused) >= len(junk.split(b'\n'))
  assert all(document in ('d1', 'd2') and text for document, text in found)


@given(junk=JUNK)
@settings(max_examples=80, deadline=None)
def test_a_file_of_documents(junk, tmp_path_factory):
  path = tmp_path_factory.mktemp('fuzz') / 'new.jsonl'
  path.write_bytes(junk)
  try:
    for document in DocumentFile(path).documents():
      assert document.id and '\0' not in document.text
  except UserError as error:
    assert str(error).startswith(str(path)) and '\n' not in str(error)


@given(junk=JUNK)
@settings(max_examples=80, deadline=None)
def test_a_run_file(junk, tmp_path_factory):
  path = tmp_path_factory.mktemp('fuzz') / 'run.trec'
  path.write_bytes(b'q1 Q0 d1 1 .5 tag\n' + junk)
  try:
    run = read_run(path)
  except UserError as error:
    assert re.match(rf'{re.escape(str(path))}:\d+: ', str(error))
    assert '\n' not in str(error)
  else:
    assert run['q1']['d1'] == 0.5
