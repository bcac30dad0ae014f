"""The reader of BEIR folders: what it yields, and what it refuses and how."""

import gzip
import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.data import records
from gr_jax.data.collection import Collection
from gr_jax.data.documents import DocumentFile, Position
from gr_jax.types import Document, Judgement, UserError, document_text

CORPUS = [
  {'_id': 'd1', 'title': 'One', 'text': 'first text'},
  {'_id': 'd2', 'title': '', 'text': 'second', 'metadata': {'year': 2}},
  {'_id': 'd3', 'text': 'drei ä 😀', 'url': 'x'},
]
QUERIES = [{'_id': 'q1', 'text': 'what'}, {'_id': 'q2', 'text': 'who'}]
HEADER = 'query-id\tcorpus-id\tscore\n'


def lines(items):
  return ''.join(json.dumps(item) + '\n' for item in items).encode()


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'corpus.jsonl').write_bytes(lines(CORPUS))
  (tmp_path / 'queries.jsonl').write_bytes(lines(QUERIES))
  (tmp_path / 'qrels').mkdir()
  (tmp_path / 'qrels/train.tsv').write_text(HEADER + 'q1\td1\t1\nq2\td3\t0\n')
  return tmp_path


def read_all(directory, **kwargs):
  collection = Collection(directory, **kwargs)
  documents = list(collection.documents())
  queries = list(collection.queries())
  judged = {name: collection.judgements(name) for name in collection.splits()}
  return collection, documents, queries, judged


def test_reads_documents_queries_and_judgements(folder):
  _, documents, queries, judged = read_all(folder)
  assert documents[0] == Document('d1', 'One', 'first text', {})
  assert [d.metadata for d in documents[1:]] == [{'year': 2}, {'url': 'x'}]
  assert [q.text for q in queries] == ['what', 'who']
  assert judged == {
    'train': [Judgement('q1', 'd1', 1), Judgement('q2', 'd3', 0)]
  }
  assert document_text(documents[0]) == 'One first text'
  assert document_text(documents[1]) == 'second'


def test_gzip_gives_the_same(folder, tmp_path_factory):
  zipped = tmp_path_factory.mktemp('zipped')
  (zipped / 'qrels').mkdir()
  for name in ('corpus.jsonl', 'queries.jsonl', 'qrels/train.tsv'):
    content = gzip.compress((folder / name).read_bytes())
    (zipped / f'{name}.gz').write_bytes(content)
  assert read_all(folder)[1:] == read_all(zipped)[1:]


def test_trec_qrels(folder):
  (folder / 'qrels/test.qrels').write_text('q1 0 d2 2\nq2 0 d1 -1\n')
  assert Collection(folder).judgements('test') == [
    Judgement('q1', 'd2', 2),
    Judgement('q2', 'd1', -1),
  ]


def test_fingerprint_sees_every_file(folder):
  before = Collection(folder).fingerprint()
  assert before == Collection(folder).fingerprint()
  path = folder / 'qrels/train.tsv'
  path.write_text(path.read_text() + 'q1\td2\t1\n')
  assert Collection(folder).fingerprint() != before


def test_corpus_alone_is_enough(tmp_path):
  (tmp_path / 'corpus.jsonl').write_bytes(lines(CORPUS))
  _, documents, queries, judged = read_all(tmp_path)
  assert (len(documents), queries, judged) == (3, [], {})


def test_part_of_a_corpus(folder):
  collection = Collection(folder)
  starts = collection.positions(2)
  assert starts[0] == Position(0, 1)
  parts = [[d.id for d in collection.documents(start, 2)] for start in starts]
  assert parts == [['d1', 'd2'], ['d3']]


BAD_CORPUS_LINES = [
  (b'{"_id": "x", "text": "open', 'bad JSON'),
  (b'[1]', 'expected a JSON object, got list'),
  (b'{"_id": "x", "text": "t", "metadata": {"a": NaN}}', 'NaN is not JSON'),
  (b'{"_id": "x", "text": "t", "n": -Infinity}', '-Infinity is not JSON'),
  (b'{"_id": "x", "text": "t", "n": 1e999}', 'overflows'),
  (b'{"_id": "x", "text": "t", "text": "u"}', "the key 'text' occurs twice"),
  (b'{"text": "t"}', "no '_id'"),
  (b'{"_id": "", "text": "t"}', 'the id is blank'),
  (b'{"_id": " ", "text": "t"}', 'the id is blank'),
  (b'{"_id": "a b", "text": "t"}', 'white space'),
  (b'{"_id": 7, "text": "t"}', "'_id' must be a string, got int"),
  (b'{"_id": "d1", "text": "t"}', "the id 'd1' is that of line 1 already"),
  (b'{"_id": "x", "text": " \\n", "title": ""}', "document 'x' is empty"),
  (b'{"_id": "x", "title": "t"}', "no 'text'"),
  (b'{"_id": "x", "text": ["t"]}', "'text' must be a string, got list"),
  (b'{"_id": "x", "text": "\xe4"}', 'not UTF-8 at byte 23'),
  (b'{"_id": "x", "text": "a\0b"}', 'NUL character at column 24'),
  (b'{"_id": "x", "text": "a\\u0000b"}', "NUL character in 'text'"),
  (b'{"_id": "x", "text": "a\\ud800b"}', 'half a surrogate pair'),
  (b'{"_id": "x", "text": "t", "metadata": 3}', "'metadata' must be an obj"),
  (b'{"_id": "x", "text": "t", "n": ' + b'9' * 5000 + b'}', 'bad JSON'),
  (b'[' * 100_000, 'bad JSON'),
  (b'', 'blank line'),
]


@pytest.mark.parametrize(('line', 'reason'), BAD_CORPUS_LINES)
def test_refuses_bad_documents(folder, line, reason):
  content = (folder / 'corpus.jsonl').read_bytes()
  (folder / 'corpus.jsonl').write_bytes(content + line + b'\n')
  with pytest.raises(UserError) as error:
    list(Collection(folder).documents())
  assert f'{folder / "corpus.jsonl"}:4: ' in str(error.value)
  assert reason in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('line', 'reason'),
  [
    ('{"_id": "q1", "text": "t"}', "the id 'q1' is that of line 1 already"),
    ('{"_id": "q3", "text": ""}', "the query 'q3' is empty"),
    ('{"_id": "q3"}', "no 'text'"),
  ],
)
def test_refuses_bad_queries(folder, line, reason):
  with (folder / 'queries.jsonl').open('a') as file:
    file.write(line)
  with pytest.raises(UserError, match=r'queries.jsonl:3: ') as error:
    list(Collection(folder).queries())
  assert reason in str(error.value)


@pytest.mark.parametrize(
  ('text', 'line', 'reason'),
  [
    ('q1\td1\t1\n', 1, 'expected the header query-id<tab>corpus-id'),
    (HEADER + 'q1\td1\n', 2, 'expected 3 columns, got 2'),
    (HEADER + 'q1\td1\t1.5\n', 2, "an integer, got '1.5'"),
    (HEADER + 'q1\td1\tnan\n', 2, "an integer, got 'nan'"),
    (HEADER + 'q1\td1\t-1\n', 2, 'must not be negative'),
    (HEADER + 'q1\td1\t99999999999\n', 2, 'must be an integer'),
    (HEADER + 'q9\td1\t1\n', 2, "query id 'q9' is not in the queries"),
    (HEADER + 'q1\td9\t1\n', 2, "document id 'd9' is not in the corpus"),
    (HEADER + 'q1\td1\t1\n' * 2, 3, 'judged already in line 2'),
    (HEADER + 'q1\td1\t1\n\n', 3, 'expected 3 columns, got 0'),
    ('q1 0 d1 1\nq1 0 d2\n', 2, 'expected 4 columns, got 3'),
    (HEADER + 'q1\td1\t1\0\n', 2, 'NUL'),
  ],
)
def test_refuses_bad_judgements(folder, text, line, reason):
  (folder / 'qrels/train.tsv').write_text(text)
  with pytest.raises(UserError) as error:
    Collection(folder).judgements('train')
  assert f'qrels/train.tsv:{line}: ' in str(error.value)
  assert reason in str(error.value)


@pytest.mark.parametrize('mark', [b'\xef\xbb\xbf', b'\xff\xfe', b'\xfe\xff'])
def test_refuses_byte_order_marks(folder, mark):
  content = (folder / 'corpus.jsonl').read_bytes()
  (folder / 'corpus.jsonl').write_bytes(mark + content)
  with pytest.raises(UserError, match=r'corpus.jsonl:1: .*byte order mark'):
    list(Collection(folder, max_bad_records=9).documents())


def test_refuses_truncated_gzip(folder):
  content = gzip.compress(random.Random(0).randbytes(9000).hex().encode())
  (folder / 'corpus.jsonl').unlink()
  (folder / 'corpus.jsonl.gz').write_bytes(content[:-2000])
  with pytest.raises(UserError, match=r'corpus.jsonl.gz:1: broken gzip'):
    list(Collection(folder).documents())


def test_refuses_missing_things(folder):
  with pytest.raises(UserError, match='did you mean'):
    Collection(folder.parent / (folder.name + 'x'))
  with pytest.raises(UserError, match=r"no split 'tran'.*mean 'train'"):
    Collection(folder).judgements('tran')
  (folder / 'corpus.jsonl.gz').write_bytes(b'')
  with pytest.raises(UserError, match='keep one'):
    Collection(folder)
  (folder / 'corpus.jsonl.gz').unlink()
  (folder / 'qrels/train.trec').write_text('q1 0 d1 1\n')
  with pytest.raises(UserError, match="split 'train' is there twice"):
    Collection(folder).judgements('train')
  (folder / 'queries.jsonl').rename(folder / 'query.jsonl')
  with pytest.raises(UserError, match=r"mean 'query.jsonl'"):
    Collection(folder)
  (folder / 'corpus.jsonl').write_bytes(b'')
  (folder / 'query.jsonl').rename(folder / 'queries.jsonl')
  with pytest.raises(UserError, match='holds no document'):
    list(Collection(folder).documents())


def test_max_bad_records_lists_and_then_refuses(folder):
  clean = read_all(folder)[1:]
  content = (folder / 'corpus.jsonl').read_bytes().splitlines(keepends=True)
  bad = [line + b'\n' for line, _ in BAD_CORPUS_LINES]
  (folder / 'corpus.jsonl').write_bytes(
    b''.join([content[0], *bad, *content[1:]])
  )
  with (folder / 'qrels/train.tsv').open('a') as file:
    file.write('q1\tx\t1\n')
  collection, *read = read_all(folder, max_bad_records=len(bad) + 1)
  assert read == list(clean)
  assert len(collection.bad_records) == len(bad) + 1
  # A second pass does not count them again.
  assert len(list(collection.documents())) == 3
  for (_, reason), record in zip(
    BAD_CORPUS_LINES, collection.bad_records, strict=False
  ):
    assert reason in record.reason
    assert record.file == 'corpus.jsonl'
  with pytest.raises(UserError, match=f'after {len(bad)} bad records'):
    read_all(folder, max_bad_records=len(bad))


@given(st.lists(st.binary(max_size=60), max_size=8), st.randoms())
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory, junk, rng):
  directory = tmp_path_factory.mktemp('fuzz')
  clean = [line + b'\n' for line in lines(CORPUS).splitlines()]
  mixed = clean + [piece.replace(b'\n', b'') + b'\n' for piece in junk]
  rng.shuffle(mixed)
  (directory / 'corpus.jsonl').write_bytes(b''.join(mixed))
  collection = Collection(directory, max_bad_records=len(junk))
  try:
    found = {document.id for document in collection.documents()}
  except UserError as error:
    assert 'byte order mark' in str(error)
    return
  assert found == {'d1', 'd2', 'd3'}
  assert len(collection.bad_records) == len(junk)


@given(
  st.lists(
    st.sampled_from(['a', 'ä', '😀', '"', '\\', '\n', 'u12', '\\u', 'é\t']),
    max_size=60,
  ),
  st.booleans(),
  st.integers(min_value=20, max_value=60),
)
@settings(max_examples=300, deadline=None)
def test_long_lines_are_cut_to_the_same_beginning(
  tmp_path_factory, pieces, ascii_only, limit
):
  text = 'x' + ''.join(pieces) * 20
  record = {'_id': 'd', 'text': text, 'title': 'after'}
  path = tmp_path_factory.mktemp('long') / 'corpus.jsonl'
  path.write_text(json.dumps(record, ensure_ascii=ascii_only) + '\n{}\n')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(records, '_LONG_LINE_BYTES', 64)
    patch.setattr(records, '_MAX_STRING_BYTES', 12 * limit)
    first, second = records.read_lines(path)
  assert second.content == b'{}'
  assert second.offset == path.stat().st_size - 3
  parsed = records.parse_object(first)
  assert parsed['title'] == 'after'
  assert text.startswith(parsed['text'][:limit])
  assert len(parsed['text']) >= min(limit, len(text))
  assert first.shortened == (parsed['text'] != text)


@pytest.mark.parametrize('fault', [b'\xff', b'\0'])
def test_faults_far_inside_a_long_line_are_seen(folder, fault):
  with (folder / 'corpus.jsonl').open('ab') as file:
    file.write(b'{"_id": "x", "text": "' + b'a' * 5_000_000 + fault + b'"}\n')
  with pytest.raises(UserError, match=r'corpus.jsonl:4: .* near byte 5000023'):
    list(Collection(folder).documents())


def test_a_line_of_metadata_without_end_is_refused(folder):
  with (folder / 'corpus.jsonl').open('ab') as file:
    file.write(b'{"_id": "x", "text": "t", "n": [' + b'1,' * (9 << 20))
  with pytest.raises(UserError, match=r'corpus.jsonl:4: the line is over 16'):
    list(Collection(folder).documents())


_MEMORY = """
import resource, sys
from gr_jax.data.collection import Collection
def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
collection = Collection(sys.argv[1])
found = [(d.id, len(d.text)) for d in collection.documents()]
assert found == [('d1', 7), ('big', 200000), ('d2', 5)], found
assert list(collection.cut_ids) == ['big']
print(peak() - before)
"""


def test_a_giant_document_takes_little_memory(tmp_path):
  with (tmp_path / 'corpus.jsonl').open('w') as file:
    file.write('{"_id": "d1", "text": "before"}\n'.replace('before', 'before.'))
    file.write('{"_id": "big", "text": "')
    for _ in range(100):
      file.write('wörd \\n' * (1 << 17))
    file.write('"}\n{"_id": "d2", "text": "after"}\n')
  output = subprocess.run(
    [sys.executable, '-c', _MEMORY, str(tmp_path)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert int(output.stdout) < 64 * 1024  # KiB


def test_a_file_of_documents_is_read_as_a_corpus_is(folder):
  found = list(DocumentFile(folder / 'corpus.jsonl').documents())
  assert found == list(Collection(folder).documents())
  zipped = folder / 'more.jsonl.gz'
  zipped.write_bytes(gzip.compress(lines(CORPUS)))
  assert list(DocumentFile(zipped).documents()) == found


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    (lines([{'_id': 'a', 'text': ' '}]), ':1: the document .a. is empty; corr'),
    (lines(CORPUS[:1] * 2), ':2: the id .d1. is that of line 1 already; corre'),
    (
      b'{"_id": 3, "text": "a"}',
      ":1: '_id' must be a string, got int; correct",
    ),
    (b'', 'holds no document'),
  ],
)
def test_a_bad_file_of_documents_is_refused_in_the_same_words(
  tmp_path, content, reason
):
  path = tmp_path / 'new.jsonl'
  path.write_bytes(content)
  with pytest.raises(UserError, match=rf'new\.jsonl.*{reason}'):
    list(DocumentFile(path).documents())
  with pytest.raises(UserError, match=r'there is none \(did you mean .new.js'):
    DocumentFile(tmp_path / 'neww.jsonl')
  with pytest.raises(UserError, match='it is a folder'):
    DocumentFile(tmp_path)
