"""Each filter keeps what it should, checked against plain definitions."""

import itertools
import math
import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.evaluation.lexical import Lexical
from gr_jax.querygen.candidates import Candidate
from gr_jax.querygen.diversity import Diversity, likelihoods
from gr_jax.querygen.duplicates import Across, Duplicates
from gr_jax.querygen.key_phrases import key_phrases
from gr_jax.querygen.leaks import Leaks
from gr_jax.querygen.query_settings import (
  DiversitySettings,
  LeakSettings,
  RelevanceSettings,
  SanitySettings,
)
from gr_jax.querygen.relevance import Relevance
from gr_jax.querygen.round_trip import RoundTrip
from gr_jax.querygen.sanity import Sanity, is_sane
from gr_jax.querygen.similar_sets import SimilarSets
from gr_jax.querygen.words import Frequencies, contains, overlap, words
from gr_jax.types import Document, UserError


def candidates(*texts):
  return [Candidate(text, 'file') for text in texts]


def texts(kept):
  return [[candidate.text for candidate in own] for own in kept]


@pytest.mark.parametrize(
  ('text', 'found'),
  [
    ("What's  NEW, in the UK?", ['what', 's', 'new', 'in', 'the', 'uk']),
    ('ﬁne Ⅷ straße', ['fine', 'viii', 'strasse']),
    ('東京 tower', ['東', '京', 'tower']),
    ('हिन्दी में शब्द', ['हिन्दी', 'में', 'शब्द']),
    ('e\u0331te\u0331', ['e\u0331te\u0331']),
    ('ที่นี่ 5฿', ['ที่', 'นี่', '5']),
    ('... ! \u0301', []),
  ],
)
def test_words(text, found):
  assert words(text) == found


def test_contains_whole_words_in_order():
  assert contains(['a', 'cat', 'sat'], ['cat', 'sat'])
  assert not contains(['a', 'cats', 'sat'], ['cat', 'sat'])
  assert not contains(['cat', 'a', 'sat'], ['cat', 'sat'])


@pytest.mark.parametrize(
  ('text', 'sane'),
  [
    ('who is the king', True),
    ('who', False),
    (' '.join(map(str, range(40))), False),
    ('12 34 56 7', False),
    ('the cat the cat the cat the cat', False),
    ('кто король франции', True),
    ('हिन्दी में लिखो', True),
  ],
)
def test_sanity(text, sane):
  assert is_sane(text, SanitySettings()) == sane


def test_sanity_of_a_script():
  asked = SanitySettings(script='LATIN')
  assert is_sane('who is the king', asked)
  assert not is_sane('кто король франции', asked)
  assert is_sane('кто король франции', SanitySettings(script='CYRILLIC'))
  # The marks of letters that are written in parts belong to any script.
  for form in ('NFC', 'NFD'):
    assert is_sane(unicodedata.normalize(form, 'ở đâu có phở'), asked)


QUERIES_OF_SCRIPTS = [
  'who is the king', 'кто король франции', 'e\u0301te\u0301 a Paris',
  '東京の塔ﾀﾜｰ', 'カタカナの言葉',
]  # fmt: skip


@pytest.mark.parametrize(
  ('document', 'kept'),
  [
    ('The king Иван of France', ['who is the king', 'e\u0301te\u0301 a Paris']),
    ('Король Франции, king', ['кто король франции']),
    # Written together: ideographs, syllables and wide letters.
    ('東京タワーは高い', ['東京の塔ﾀﾜｰ', 'カタカナの言葉']),
    ('1889, 330', QUERIES_OF_SCRIPTS),
  ],
)  # fmt: skip
def test_sanity_of_the_script_of_the_document(document, kept):
  asked = SanitySettings(script='document')
  own = candidates(*QUERIES_OF_SCRIPTS)
  found = Sanity(asked).keep([Document('d', '', document)], [own], 0)
  assert texts(found) == [[q for q in QUERIES_OF_SCRIPTS if q in kept]]


SETS = st.lists(
  st.frozensets(st.sampled_from('abcdefgh'), max_size=6), max_size=20
)


@settings(max_examples=200, deadline=None)
@given(SETS, SETS, st.sampled_from([0.2, 0.5, 0.6, 0.75, 0.8, 1.0]))
def test_similar_sets_are_those_of_brute_force(known, asked, threshold):
  alike = SimilarSets(threshold, lambda item: 'hgfabcde'.index(item))
  for items in known:
    alike.add(items)
  for items in asked:
    expected = next(
      (
        number
        for number, other in enumerate(known)
        if items and overlap(items, other) >= threshold
      ),
      None,
    )
    assert alike.find(items) == expected


QUERIES = st.lists(
  st.lists(
    st.sampled_from(['a', 'b', 'c', 'd', 'e']), min_size=1, max_size=5
  ).map(' '.join),
  max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(QUERIES)
def test_no_two_queries_of_a_document_are_alike(queries):
  kept = texts(Duplicates(0.6).keep([None], [candidates(*queries)], 0))[0]
  sets = [frozenset(words(query)) for query in kept]
  assert all(overlap(a, b) < 0.6 for a, b in itertools.combinations(sets, 2))
  for query in queries:
    items = frozenset(words(query))
    assert query in kept or any(overlap(items, s) >= 0.6 for s in sets)
  # What was kept once is kept again.
  again = Duplicates(0.6).keep([None], [candidates(*kept)], 0)
  assert texts(again) == [kept]


def test_repetitions_across_documents_leave_the_first():
  across = Across(0.8, Frequencies(['who is the king', 'who is it']))
  assert across.keep(['who is the king', 'a b c']) == [
    'who is the king',
    'a b c',
  ]
  # Within a document nothing is left out here.
  assert across.keep(['The king: who is?', 'x y', 'x y']) == ['x y', 'x y']
  assert across.keep(['y x', 'x y z w']) == ['x y z w']


HELD_OUT = [
  'What is the name of the longest river in Peru?',
  'who wrote the first printed grammar of Basque',
  'When did Zürich become part of the confederation',
]


@pytest.mark.parametrize('unit', [('words', 1), ('characters', 3)])
@pytest.mark.parametrize('query', HELD_OUT)
def test_planted_queries_are_found(query, unit):
  leaks = Leaks(HELD_OUT, LeakSettings(unit=unit[0], size=unit[1]))
  for planted in (
    query,
    query.upper(),
    query.rstrip('?') + ' ?!',
    query.replace(' ', ',  '),
    query.replace('ü', 'u\u0308'),
  ):
    assert leaks.kind(planted) == 'equal', planted
  parts = query.split()
  changed = [
    ' '.join([*parts[:place], 'elk', *parts[place + 1 :]])
    for place in range(len(parts))
  ]
  if unit[0] == 'words':
    assert {leaks.kind(each) for each in changed} == {'near'}
  assert leaks.kind(' '.join(reversed(parts))) in ('near', '')
  assert leaks.kind('how high do larks fly') == ''


@pytest.mark.parametrize('unit', [('words', 2), ('characters', 3)])
def test_near_leaks_are_those_of_brute_force(unit):
  draw = random.Random(0)
  vocabulary = [
    'river',
    'king',
    'of',
    'the',
    'name',
    'book',
    'elk',
    'is',
    'was',
    'in',
  ]

  def query():
    return ' '.join(draw.choices(vocabulary, k=draw.randint(1, 6)))

  def features(text):
    items = text.split() if unit[0] == 'words' else text
    size = min(unit[1], len(items))
    return frozenset(
      tuple(items[at : at + size]) for at in range(len(items) - size + 1)
    )

  held_out = [query() for _ in range(60)]
  leaks = Leaks(held_out, LeakSettings(('dev',), 0.6, *unit))
  kinds = set()
  for text in [query() for _ in range(300)]:
    near = any(overlap(features(text), features(h)) >= 0.6 for h in held_out)
    expected = 'equal' if text in held_out else 'near' if near else ''
    assert leaks.kind(text) == expected
    kinds.add(expected)
  assert kinds == {'equal', 'near', ''}


def test_queries_of_other_vowels_are_no_leaks():
  leaks = Leaks(['किताब की कीमत'], LeakSettings())
  assert leaks.kind('किताब की कीमत?') == 'equal'
  assert leaks.kind('कुतुब का कोमत') == ''


def test_leaks_are_counted_by_kind():
  leaks = Leaks(HELD_OUT, LeakSettings())
  kept = leaks.keep(
    [None] * 2,
    [
      candidates(HELD_OUT[0].lower(), 'unlike them all'),
      candidates(HELD_OUT[1].replace('Basque', 'Breton')),
    ],
    0,
  )
  assert texts(kept) == [['unlike them all'], []]
  assert (leaks.equal, leaks.near) == (1, 1)


DOCUMENTS = [
  Document('a', 'Otters', 'The otter swims in the river.'),
  Document('b', 'Herons', 'The heron stands in the river.'),
]


def test_round_trip_by_bm25():
  lexical = Lexical(DOCUMENTS)
  trip = RoundTrip(lambda asked, k: lexical.search(asked, k).rows_BC, 1, None)
  asked = [candidates('otter swims', 'heron'), candidates('the heron')]
  assert texts(trip.keep(DOCUMENTS, asked, 0)) == [
    ['otter swims'],
    ['the heron'],
  ]
  # As rows 5 and 6 of a corpus they would be others.
  assert texts(trip.keep(DOCUMENTS, asked, 5)) == [[], []]


class Lengths:
  """Prefers long queries."""

  sha256 = 'abc'

  def scores(self, queries, documents):
    assert len(queries) == len(documents)
    return np.array([len(query) for query in queries], np.float32)


def test_relevance_by_threshold_and_by_best():
  asked = [candidates('a', 'bbb', 'ccc', 'dd'), [], candidates('e')]
  documents = [DOCUMENTS[0]] * 3

  def kept(**what):
    each = Relevance(Lengths(), RelevanceSettings('x', **what))
    return texts(each.keep(documents, asked, 0))

  assert kept(threshold=2.0) == [['bbb', 'ccc', 'dd'], [], []]
  assert kept(best=1) == [['bbb'], [], ['e']]
  assert kept(threshold=3.0, best=3) == [['bbb', 'ccc'], [], []]
  with pytest.raises(UserError, match='asked for nothing'):
    RelevanceSettings('x')


def test_diverse_queries_cover_more():
  document = Document('d', '', 'otter river heron meadow toad cellar')
  frequencies = Frequencies([document.text])
  asked = candidates('otter river', 'river otter', 'heron', 'toad cellar')
  diversity = Diversity(DiversitySettings(2, 0.0, 0.0), frequencies)
  assert texts(diversity.keep([document], [asked], 0)) == [
    ['otter river', 'toad cellar']
  ]
  # The first step is the argmax of the formula, here with a likelihood.
  likely = [
    Candidate(each.text, 'g', -float(10 * (3 - place)))
    for place, each in enumerate(asked)
  ]
  diversity = Diversity(DiversitySettings(1, 5.0, 0.0), frequencies)
  assert texts(diversity.keep([document], [likely], 0)) == [['toad cellar']]


def test_likelihoods_are_scaled_within_a_document():
  found = likelihoods(
    [
      Candidate('a b', 'g', -4.0),
      Candidate('a', 'g', -1.0),
      Candidate('c', 'f'),
      Candidate('a b c', 'g', -4.5),
    ]
  )
  assert found == pytest.approx([0.0, 1.0, 0.0, 0.5])


def test_key_phrases_are_rare_runs_without_overlap():
  corpus = ['the cat is in the house of the man'] * 30
  text = 'The quantum tunnel, in the house. A quantum tunnel of the cat'
  frequencies = Frequencies([*corpus, text])
  found = key_phrases(text, frequencies, 3)
  assert found[0] in ('quantum tunnel', 'a quantum tunnel')
  assert all(not {'the', 'in', 'of'} & set(phrase.split()) for phrase in found)
  assert found == key_phrases(text, frequencies, 3)
  assert frequencies.idf('quantum') == math.log(1 + 31 / 2)
