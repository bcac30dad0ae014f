"""Measures of pseudo-queries, on numbers worked out by hand."""

import json
import math
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_collection import write_collection

from gr_jax import judge_queries
from gr_jax.querygen.quality import bleu, distinct, rouge_l
from gr_jax.types import UserError

WORDS = st.lists(st.sampled_from('abc'), max_size=7)


def test_bleu_of_worked_examples():
  # Papineni et al. 2002, example 2: 'the' counts twice at most.
  seven, cat = ['the'] * 7, ['the', 'cat', 'is', 'on', 'the', 'mat']
  assert (
    bleu([seven], [[cat, ['there', 'is', 'a', 'cat', 'on', 'the', 'mat']]])
    == 0.0
  )
  assert bleu([cat], [[seven, cat]]) == pytest.approx(1.0)
  # 5 of 6, 3 of 5, 2 of 4 and 1 of 3 n-grams; no penalty.
  text = ['the', 'cat', 'sat', 'on', 'the', 'mat']
  other = ['the', 'cat', 'sat', 'on', 'a', 'mat']
  expected = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
  assert bleu([text], [[other]]) == pytest.approx(expected)
  # Four of eight words: the penalty is exp(1 - 8 / 4).
  whole = list('abcdefgh')
  assert bleu([whole[:4]], [[whole]]) == pytest.approx(math.exp(-1))
  # N-grams are pooled over the corpus, not averaged.
  assert bleu([whole[:4], ['x']], [[whole[:4]], [['y']]]) == pytest.approx(
    (4 / 5) ** 0.25
  )


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_rouge_l_by_brute_force(one, other):
  def subsequences(items):
    found = {()}
    for item in items:
      found |= {(*each, item) for each in found}
    return found

  longest = max(map(len, subsequences(one) & subsequences(other)))
  total = len(one) + len(other)
  assert rouge_l(one, other) == pytest.approx(
    2 * longest / total if total else 0.0
  )


def test_distinct_ngrams():
  assert distinct([['a', 'b', 'a'], ['a', 'b']], 1) == 2 / 5
  assert distinct([['a', 'b', 'a'], ['a', 'b']], 2) == 2 / 3
  assert distinct([], 2) == 0


def test_the_door_measures_queries(tmp_path, capsys):
  folder = write_collection(tmp_path / 'tiny')
  rows = [
    # The human query of dev, word for word; finds its document.
    {'_id': 'otter-river', 'queries': ['Otter of the river?']},
    # A piece of the document, which finds all rivers.
    {'_id': 'toad-river', 'queries': ['the river and', 'heron summit']},
  ]
  path = tmp_path / 'q.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  output = tmp_path / 'made' / 'judged.json'
  asked = [f'--data_dir={folder}', f'--queries={path}', f'--output={output}']
  assert judge_queries.main(asked) == 0
  found = json.loads(output.read_text())
  assert json.loads(capsys.readouterr().out) == found
  assert (found['documents'], found['queries'], found['searched']) == (40, 3, 3)
  assert found['documents_with_queries'] == 2
  assert found['queries_with_human_ones'] == 3
  assert found['copies'] == pytest.approx(1 / 3)
  assert found['R@1'] == pytest.approx(1 / 3)
  assert found['R@10'] == pytest.approx(2 / 3)
  assert found['words_per_query'] == pytest.approx(3.0)
  # toad of the river: 'the river' is shared; 'heron summit' shares nothing.
  assert found['rouge_l'] == pytest.approx((1 + 4 / 7 + 0) / 3)
  assert judge_queries.main([*asked, '--sample=1']) == 0
  assert json.loads(output.read_text())['searched'] == 1
  with pytest.raises(UserError, match='at least 0'):
    judge_queries.main([*asked, '--sample=-1'])
  with pytest.raises(UserError, match='is a folder: name a file'):
    judge_queries.main([*asked[:2], f'--output={tmp_path}'])
  with (folder / 'corpus.jsonl').open('a') as corpus:
    corpus.write('{"_id": "two words", "text": "is no id"}\n')
  with pytest.raises(UserError, match='raise max_bad_records'):
    judge_queries.main(asked)
  assert judge_queries.main([*asked, '--max_bad_records=1']) == 0


def test_queries_of_a_corpus_alone_are_measured_without_human_ones(
  tmp_path, capsys
):
  folder = write_collection(tmp_path / 'tiny')
  shutil.rmtree(folder / 'qrels')
  (folder / 'queries.jsonl').unlink()
  path = tmp_path / 'q.jsonl'
  path.write_text(json.dumps({'_id': 'otter-river', 'queries': ['an otter']}))
  asked = [f'--data_dir={folder}', f'--queries={path}']
  assert judge_queries.main(asked) == 0
  found = json.loads(capsys.readouterr().out)
  assert (found['bleu_4'], found['rouge_l'], found['R@10']) == (None, None, 1)
