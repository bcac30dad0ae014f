"""Fields of random documents against a plain reading of their metadata."""

import itertools
import pathlib
import tempfile

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gr_jax.index.fields import Fields
from gr_jax.index.filters import Between

TEXTS = ['', '1', '10', '9', '-2', '2.5', 'a', 'a\nb', 'a\0', 'é', '😀', 'true']
NUMBERS = [1, 1.0, 10, 9, -2, 2.5, -0.0, 0, 2**53, 2**53 + 1, 1e300, -(2**63)]
DOUBLES = [n for n in NUMBERS if n != 2**53 + 1]
NAMES = [
  'texts',
  'integers',
  'numbers',
  'anything',
  'inner.texts',
  'inner.more',
]
SCALARS = {
  'texts': st.sampled_from([*TEXTS, True, False]),
  'integers': st.sampled_from([n for n in NUMBERS if isinstance(n, int)]),
  # An integer that is no double would also be found by the one it becomes.
  'numbers': st.sampled_from(DOUBLES),
  'anything': st.sampled_from([*TEXTS, *DOUBLES, True]),
}


def documents_of(kinds):
  """Lists of documents whose top fields have values of these kinds."""

  def values(kind):
    scalar = SCALARS[kind]
    return st.none() | scalar | st.lists(st.none() | scalar, max_size=3)

  inner = {'texts': values('texts'), 'more': values('anything')}
  document = st.fixed_dictionaries(
    {},
    optional={
      **{kind: values(kind) for kind in kinds},
      'inner': st.none() | st.fixed_dictionaries({}, optional=inner),
    },
  )
  return st.lists(document, max_size=8)


DOCUMENTS = documents_of(SCALARS)


def values_of(document, name):
  first, _, rest = name.partition('.')
  value = document.get(first)
  if rest:
    return values_of(value or {}, rest)
  values = value if isinstance(value, list) else [value]
  words = {True: 'true', False: 'false'}
  return [
    words[value] if isinstance(value, bool) else value
    for value in values
    if value is not None
  ]


def written(value):
  if isinstance(value, float) and value.is_integer() and abs(value) < 1e19:
    return str(int(value))
  return str(value)


def is_text(documents, name):
  values = itertools.chain(*(values_of(d, name) for d in documents))
  return any(isinstance(value, str) for value in values)


def columns_of(documents, seen):
  """Field to each document's values, as texts unless all seen are numbers."""
  columns = {}
  for name in NAMES:
    column = [values_of(document, name) for document in documents]
    if is_text(seen, name):
      column = [[written(value) for value in values] for values in column]
    if any(column):
      columns[name] = column
  return columns


def meets(values, condition):
  if isinstance(condition, Between):
    least, most = condition.least, condition.most
    return any(
      (least is None or value >= least) and (most is None or value <= most)
      for value in values
    )
  asked = condition if isinstance(condition, list) else [condition]
  return any(value in asked for value in values)


def conditions(seen, name):
  pool = TEXTS if is_text(seen, name) else [*DOUBLES, 9.5]
  if name == 'integers':
    pool = [*pool, 2**53 + 1]
  value = st.sampled_from(pool)
  end = st.none() | value
  return value | st.lists(value, max_size=3) | st.builds(Between, end, end)


def check(fields, documents, seen, data):
  """Selects at random; `seen` are the documents that kinds come from."""
  columns = columns_of(documents, seen)
  assert sorted(fields.columns) == sorted(columns)
  asked = [name for name in columns if data.draw(st.booleans())]
  where = {name: data.draw(conditions(seen, name)) for name in asked}
  expected = [
    all(meets(columns[name][d], where[name]) for name in asked)
    for d in range(len(documents))
  ]
  assert fields.select(where).tolist() == expected


@settings(deadline=None)
@given(DOCUMENTS, st.data())
def test_select_is_what_a_plain_reading_finds(documents, data):
  fields = Fields.build(documents)
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory)
    fields.save(path)
    loaded = Fields.load(path, len(documents))
    state = data.draw(st.sampled_from(['memory', 'disk', 'saved again']))
    if state == 'saved again':
      (path / 'copy').mkdir()
      loaded.save(path / 'copy')
      loaded = Fields.load(path / 'copy', len(documents))
    check(fields if state == 'memory' else loaded, documents, documents, data)


def taken(documents, data):
  rows = st.sampled_from(range(len(documents))) if documents else st.nothing()
  return np.array(data.draw(st.lists(rows, unique=True)), int)


@settings(deadline=None)
@given(st.lists(DOCUMENTS, max_size=3), st.data())
def test_joined_is_built_of_the_documents_taken(parts, data):
  """Fields whose last text goes remain of text."""
  rows = [taken(documents, data) for documents in parts]
  chosen = [
    documents[row]
    for documents, taken_rows in zip(parts, rows, strict=True)
    for row in taken_rows
  ]
  joined = Fields.joined(
    [(Fields.build(part), r) for part, r in zip(parts, rows, strict=True)]
  )
  assert len(joined) == len(chosen)
  check(joined, chosen, list(itertools.chain(*parts)), data)


@settings(deadline=None)
@given(st.lists(DOCUMENTS, max_size=3))
def test_joined_whole_is_built_of_all(parts):
  built = Fields.build(list(itertools.chain(*parts)))
  joined = Fields.joined(
    [(Fields.build(part), np.arange(len(part))) for part in parts]
  )
  assert joined.columns == built.columns
  assert joined.inverted.keys() == built.inverted.keys()
  for kind, inverted in built.inverted.items():
    other = joined.inverted[kind]
    assert list(other.values) == list(inverted.values)
    np.testing.assert_array_equal(other.offsets, inverted.offsets)
    np.testing.assert_array_equal(other.documents, inverted.documents)
    assert other.documents.dtype == inverted.documents.dtype == np.int32


def test_kinds_of_joined_parts(tmp_path):
  integers = Fields.build([{'a': 1, 'b': 1}, {'a': 2, 'b': 2}])
  floats = Fields.build([{'a': 2.0}, {'a': 2.5}])
  texts = Fields.build([{'a': 'x'}, {'a': 7}, {'b': None}])
  texts.save(tmp_path)
  texts = Fields.load(tmp_path, 3)

  numbers = Fields.joined([(integers, [1, 0]), (floats, [0, 1])])
  assert numbers.columns['a'].kind == 'float'
  assert numbers.select({'a': 2}).tolist() == [True, False, True, False]
  assert numbers.columns['b'].kind == 'integer'

  mixed = Fields.joined([(floats, [0, 1]), (texts, [1, 2]), (integers, [1])])
  assert mixed.columns['a'].kind == 'text'
  for value, documents in (('2', [0, 4]), ('2.5', [1]), ('7', [2]), ('x', [])):
    assert np.flatnonzero(mixed.select({'a': value})).tolist() == documents
  assert np.flatnonzero(mixed.select({'b': 2})).tolist() == [4]
