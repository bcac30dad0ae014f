"""Fields of documents: what is kept, selected, saved, joined and refused."""

import json

import numpy as np
import pytest

from gr_jax.index.fields import Fields, usable
from gr_jax.index.filters import Between
from gr_jax.types import UserError

DOCUMENTS = [
  {'tenant': 'acme', 'year': 2019, 'languages': ['en', 'de'], 'open': True},
  {'tenant': 'zeta', 'year': 2021.5, 'languages': [], 'open': False},
  {'tenant': 'acme', 'year': None, 'source': {'site': {'name': 'a\nb'}}},
  {},
  {'tenant': '', 'year': 2024, 'languages': 'en', 'version': 7},
  {'tenant': 'Ümlaut', 'year': -1, 'version': ['7b', 7.0, 2.5]},
]


def found(fields, **where):
  return np.flatnonzero(fields.select(where)).tolist()


@pytest.fixture(params=['in memory', 'loaded'])
def fields(request, tmp_path):
  built = Fields.build(DOCUMENTS)
  if request.param == 'in memory':
    return built
  built.save(tmp_path)
  return Fields.load(tmp_path, len(DOCUMENTS))


@pytest.mark.parametrize(
  ('name', 'condition', 'documents'),
  [
    ('tenant', 'acme', [0, 2]),
    ('tenant', 'Acme', []),
    ('tenant', '', [4]),
    ('tenant', ['zeta', 'Ümlaut', 'nobody'], [1, 5]),
    ('tenant', [], []),
    ('tenant', Between(least='acme'), [0, 1, 2, 5]),
    ('tenant', Between(most='acme'), [0, 2, 4]),
    ('tenant', Between('b', 'z'), []),
    ('tenant', Between('z', 'b'), []),
    ('year', 2019, [0]),
    ('year', '2019', [0]),
    ('year', '2019.0', [0]),
    ('year', 2021.5, [1]),
    ('year', 2020, []),
    ('year', 10**400, []),
    ('year', {2019, '2024'}, [0, 4]),
    ('year', Between(2019, 2021.5), [0, 1]),
    ('year', Between(most='2019'), [0, 5]),
    ('year', Between(most=float('inf')), [0, 1, 4, 5]),
    ('year', Between(), [0, 1, 4, 5]),
    ('languages', 'en', [0, 4]),
    ('languages', ('en', 'de'), [0, 4]),
    ('open', True, [0]),
    ('open', 'false', [1]),
    ('source.site.name', 'a\nb', [2]),
    ('version', '7', [4, 5]),
    ('version', '7b', [5]),
    ('version', '2.5', [5]),
  ],
)
def test_select(fields, name, condition, documents):
  assert found(fields, **{name: condition}) == documents


def test_all_conditions_hold(fields):
  assert len(fields) == len(DOCUMENTS)
  assert found(fields) == [0, 1, 2, 3, 4, 5]
  assert found(fields, tenant='acme', year=Between(2000)) == [0]
  assert found(fields, tenant='acme', year=2024) == []
  assert fields.select({}).dtype == bool


@pytest.mark.parametrize(
  ('name', 'condition', 'message'),
  [
    (
      'tennant',
      'acme',
      "no document has a field 'tennant' (did you mean 'tenant'?); the fields",
    ),
    (
      'tennant',
      'acme',
      "'languages', 'open', 'source.site.name', 'tenant', 'version', 'year'",
    ),
    ('year', 'soon', "field 'year' is of numbers, got 'soon'"),
    ('year', True, "field 'year' is of numbers, got 'true'"),
    ('year', 'nan', "field 'year' is of numbers, got 'nan'"),
    ('year', None, "field 'year' is of numbers, got None"),
    ('year', [2019, None], "field 'year' is of numbers, got None"),
    ('year', Between('now'), "field 'year' is of numbers, got 'now'"),
    ('tenant', 7, "field 'tenant' is of text, got 7: give it as text"),
    ('tenant', b'a', "field 'tenant' is of text, got b'a': give it as text"),
    (
      'tenant',
      {'acme': 1},
      "field 'tenant' is of text, got {'acme': 1}: give it as text",
    ),
    ('version', Between(2), "field 'version' is of text, got 2: give it as"),
  ],
)
def test_conditions_that_are_refused(fields, name, condition, message):
  with pytest.raises(UserError) as error:
    fields.select({name: condition})
  assert message in str(error.value)


def test_many_fields_are_not_all_listed():
  fields = Fields.build([{f'f{number:02}': 1 for number in range(30)}])
  with pytest.raises(UserError, match=r"'f19' and 10 more$"):
    fields.select({'other': 1})


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    (float('nan'), 'nan is no finite number: give null'),
    (float('inf'), 'inf is no finite number: give null'),
    (1 << 63, 'an integer has more than 64 bits: give it as text'),
    ('\ud800', "'\\ud800' has half a character: correct the text"),
    (b'bytes', 'a list or an object of these, got bytes'),
    ([{'name': 'a'}], 'a list or an object of these, got dict'),
    ([['a']], 'a list or an object of these, got list'),
  ],
)
@pytest.mark.parametrize('name', ['plain', 'of.object'])
def test_values_that_are_refused(name, value, message):
  document = {'plain': value} if name == 'plain' else {'of': {'object': value}}
  with pytest.raises(UserError) as error:
    Fields.build([{'plain': 'a'}, {}, document])
  place = f'field {name!r} of document 2 (the first is 0): '
  assert str(error.value).startswith(place)
  assert str(error.value).endswith(message)


def test_integers_are_exact():
  values = [2**53, 2**53 + 1, -(2**63), 2**63 - 1]
  fields = Fields.build([{'id': value} for value in values])
  for document, value in enumerate(values):
    assert found(fields, id=value) == found(fields, id=str(value)) == [document]
  assert found(fields, id=Between(2**53 + 1)) == [1, 3]
  assert found(fields, id=Between(float(2**53), float(2**53))) == [0]
  assert found(fields, id=Between(0.5, 2.0**53)) == [0]


def test_large_integers_beside_fractions_are_found_by_what_they_were():
  fields = Fields.build([{'id': 2**53 + 1}, {'id': 0.5}])
  assert found(fields, id=2**53 + 1) == found(fields, id=str(2**53 + 1)) == [0]


def test_repetitions_within_a_document_are_kept_once():
  fields = Fields.build([{'a': ['x', 'x']}, {'a': ['y', 'x', 'y']}])
  inverted = fields.inverted['text']
  assert inverted.values == ['x', 'y']
  assert inverted.offsets.tolist() == [0, 2, 3]
  assert inverted.documents.tolist() == [0, 1, 1]


def test_both_ways_to_write_a_name_are_one_field():
  fields = Fields.build([{'a': {'b': 'x'}, 'a.b': 'y'}])
  assert found(fields, **{'a.b': 'x'}) == found(fields, **{'a.b': 'y'}) == [0]


def test_an_object_may_be_as_deep_as_json():
  value, name = 'x', 'a'
  for _ in range(2000):
    value, name = {'a': value}, f'{name}.a'
  assert found(Fields.build([{'a': value}]), **{name: 'x'}) == [0]


@pytest.mark.parametrize('metadata', [[], [{}, {'a': None, 'b': [], 'c': {}}]])
def test_without_fields(tmp_path, metadata):
  Fields.build(metadata).save(tmp_path)
  fields = Fields.load(tmp_path, len(metadata))
  assert fields.select({}).tolist() == [True] * len(metadata)
  with pytest.raises(UserError, match=r"field 'a'; the fields there are: none"):
    fields.select({'a': 'x'})


def test_versions_of_older_formats_have_no_fields(tmp_path):
  fields = Fields.load(tmp_path, 3)
  assert len(fields) == 3
  assert not fields.columns


def test_files_have_one_prefix_and_are_few(tmp_path):
  Fields.build([{f'f{i}': [f'{i}', i][i % 2] for i in range(100)}]).save(
    tmp_path
  )
  names = sorted(path.name for path in tmp_path.iterdir())
  assert all(name.startswith('field') for name in names)
  assert len(names) == 8


def damage_list(directory):
  (directory / 'fields.json').write_text('[]')


def damage_columns(directory):
  facts = json.loads((directory / 'fields.json').read_text())
  facts['columns']['a']['end'] = 3
  (directory / 'fields.json').write_text(json.dumps(facts))


def remove_texts(directory):
  (directory / 'field_text.txt').unlink()


def shorten_documents(directory):
  path = directory / 'field_text_documents.npy'
  path.write_bytes(path.read_bytes()[:-4])


def change_documents(directory):
  np.save(directory / 'field_integer_documents.npy', np.zeros(7, np.int32))


def pickle_numbers(directory):
  np.save(directory / 'field_integer.npy', np.array([{}]))


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (damage_list, r'fields\.json cannot be read \(.*\): build the index again'),
    (damage_columns, r'fields\.json cannot be read \(.*end'),
    (remove_texts, r'field_text\.txt cannot be read \(.*No such file'),
    (shorten_documents, r'field_text_documents\.npy cannot be read'),
    (change_documents, r'field_integer files that do not go together: build'),
    (pickle_numbers, r'field_integer\.npy cannot be read'),
  ],
)
def test_damaged_files(tmp_path, damage, message):
  Fields.build([{'a': 'x', 'b': 1}, {'a': 'y'}]).save(tmp_path)
  damage(tmp_path)
  with pytest.raises(UserError, match=message):
    Fields.load(tmp_path, 2)


def test_fields_of_other_documents(tmp_path):
  Fields.build([{'a': 'x'}]).save(tmp_path)
  with pytest.raises(UserError, match='is of 1 documents, the index has 2'):
    Fields.load(tmp_path, 2)


def test_what_cannot_be_a_field_is_named_and_the_rest_is_kept():
  metadata = {
    'tenant': 'acme',
    'year': 2020,
    'none': None,
    'source': {'language': 'en', 'tags': ['a', 'b']},
    'authors': [{'name': 'A'}],
    'ratio': float('nan'),
    'deep': {'list': [[1]], 'fine': 1},
  }
  (kept, _), lines = usable([metadata, {'authors': [{}]}])
  left = ['authors', 'ratio', 'deep']
  assert [line.partition(':')[0] for line in lines] == [
    "'authors' of 2 documents is nothing to filter by",
    "'ratio' of 1 documents is nothing to filter by",
    "'deep' of 1 documents is nothing to filter by",
  ]
  assert kept == {k: v for k, v in metadata.items() if k not in left}
  fields = Fields.build([kept])
  assert set(fields.columns) == {
    'tenant', 'year', 'source.language', 'source.tags'
  }  # fmt: skip
  for name in left:
    with pytest.raises(UserError, match=name):
      Fields.build([{name: metadata[name]}])
