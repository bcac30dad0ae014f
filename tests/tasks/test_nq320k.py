"""The converter of Natural Questions, on miniatures in its two formats."""

import gzip
import json

import pytest
from gr_jax.tasks.nq320k import write_nq320k

from gr_jax.data.collection import Collection
from gr_jax.types import UserError

LISTS = '<Ul> <Li> See also </Li> </Ul> <Ul> <Li> About </Li> </Ul>'


def page(title, text, tail=LISTS):
  return (
    f'{title} - Wikipedia <H1> {title} </H1> Jump to : navigation '
    f'<Table> <Tr> side </Tr> </Table> <P> {text} </P> <P> Further <B> words '
    f'</B> on it . </P> {tail} Privacy policy'
  )


def train_row(number, question, title, text, **more):
  return {
    'example_id': number,
    'question_text': question,
    'document_text': page(title, text),
    'document_url': f'https://en.wikipedia.org/?title={title}',
    'long_answer_candidates': [],
    'annotations': [],
    **more,
  }


def dev_row(number, question, title, text):
  tokens = page(title, text).split(' ')
  return {
    'example_id': number,
    'question_text': question,
    'document_title': title,
    'document_tokens': [
      {'token': token, 'html_token': token.startswith('<')} for token in tokens
    ],
    'document_html': '<html>',
  }


TRAIN = [
  train_row(11, 'what is an otter', 'Otter', 'An otter swims .'),
  train_row(12, 'what is a café', 'Café', 'A café sells coffee .'),
  # The same page at another time: the first text stays.
  train_row(13, 'do otters swim', 'otter', 'Otters swim well .'),
]
DEV = [
  dev_row(21, 'where do otters live', 'Otter', 'Third text .'),
  dev_row(22, 'what is a heron', 'Heron', 'A heron stands .'),
  # Accents and case do not tell titles apart, as in BERT's pieces.
  dev_row(23, 'who sells coffee', 'Cafe', 'Fourth text .'),
]


def write(path, rows):
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  if path.suffix == '.gz':
    path.write_bytes(gzip.compress(text.encode()))
  else:
    path.write_text(text)
  return path


def convert(tmp_path, train=TRAIN, dev=DEV, **options):
  return write_nq320k(
    write(tmp_path / 'simplified-nq-train.jsonl.gz', train),
    write(tmp_path / 'nq-dev-all.jsonl', dev),
    tmp_path / 'nq320k',
    **options,
  )


def test_pages_of_one_title_are_one_document(tmp_path):
  counts = convert(tmp_path, dev_share=0.0)
  assert counts == {'documents': 3, 'train': 3, 'dev': 0, 'test': 3}
  collection = Collection(tmp_path / 'nq320k')
  documents = {d.id: (d.title, d.text) for d in collection.documents()}
  assert documents == {
    '11': ('Otter', 'An otter swims . Further words on it . See also'),
    '12': ('Café', 'A café sells coffee . Further words on it . See also'),
    '22': ('Heron', 'A heron stands . Further words on it . See also'),
  }
  judged = {
    split: [(j.query_id, j.document_id) for j in collection.judgements(split)]
    for split in ('train', 'dev', 'test')
  }
  assert judged['train'] == [('11', '11'), ('12', '12'), ('13', '11')]
  assert judged['test'] == [('21', '11'), ('22', '22'), ('23', '12')]
  assert judged['dev'] == []
  assert {q.id: q.text for q in collection.queries()}['13'] == 'do otters swim'


def test_a_share_of_the_training_questions_is_held_out(tmp_path):
  rows = [
    train_row(number, f'question {number}', f'Page {number % 50}', 'Text .')
    for number in range(1000, 1400)
  ]
  counts = convert(tmp_path, rows, dev_share=0.25)
  assert counts['documents'] == 53 and counts['test'] == 3
  assert counts['train'] + counts['dev'] == 400 and 70 <= counts['dev'] <= 130
  collection = Collection(tmp_path / 'nq320k')
  held = {j.query_id for j in collection.judgements('dev')}
  assert not held & {j.query_id for j in collection.judgements('train')}
  # Which ones does not depend on the rest of the file.
  convert(tmp_path, rows[:100], dev_share=0.25)
  again = Collection(tmp_path / 'nq320k').judgements('dev')
  assert {j.query_id for j in again} == {n for n in held if int(n) < 1100}


def test_long_pages_are_cut_and_pages_without_marks_kept(tmp_path):
  bare = {**TRAIN[0], 'document_text': 'Newt - Wikipedia newts are small'}
  convert(tmp_path, [bare, TRAIN[1]], max_characters=12, dev_share=0.0)
  documents = list(Collection(tmp_path / 'nq320k').documents())
  assert [(d.title, d.text) for d in documents[:2]] == [
    ('Newt', 'Newt - Wikip'),
    ('Café', 'A café sells'),
  ]


BAD = {
  'example_id': ("expected an 'example_id', got None", {'example_id': None}),
  'question': ("no 'question_text'", {'question_text': None}),
  'document': ("'document_text' must be a string", {'document_text': [1]}),
  'title': ('title of its page is blank', {'document_text': '<H1> </H1>'}),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_records_are_named_by_line(name, tmp_path):
  message, change = BAD[name]
  with pytest.raises(UserError, match=rf'train\.jsonl\.gz:2: .*{message}'):
    convert(tmp_path, [TRAIN[0], {**TRAIN[1], **change}])
  assert not (tmp_path / 'nq320k').exists()


def test_the_other_format_of_the_dev_file_is_refused(tmp_path):
  with pytest.raises(UserError, match=r'nq-dev-all\.jsonl:1: .*document_tok'):
    convert(tmp_path, dev=[train_row(31, 'q', 'T', 'x')])
  with pytest.raises(UserError, match='expected a file of Natural Questions'):
    write_nq320k(tmp_path / 'none', tmp_path / 'none', tmp_path / 'out')
