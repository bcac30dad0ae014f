"""Filters of a command line: what they become, and what is refused."""

import pytest

from gr_jax.index.fields import Fields
from gr_jax.index.filters import Between, parse_filters
from gr_jax.types import UserError


@pytest.mark.parametrize(
  ('texts', 'where'),
  [
    ([], {}),
    (['tenant=acme'], {'tenant': ('acme',)}),
    (['language=en,de'], {'language': ('en', 'de')}),
    ([' language = en , de '], {'language': ('en', 'de')}),
    (['year>=2020'], {'year': Between('2020')}),
    (['year<=2024'], {'year': Between(most='2024')}),
    (['year>=2020', 'year<=2024'], {'year': Between('2020', '2024')}),
    (['year <= 2024', 'year >= 2020'], {'year': Between('2020', '2024')}),
    (['a=1', 'b=2', 'c>=3'], {'a': ('1',), 'b': ('2',), 'c': Between('3')}),
    ([r'place=Ulm\, Germany,Bonn'], {'place': ('Ulm, Germany', 'Bonn')}),
    ([r'path=C:\\a\\,b'], {'path': ('C:\\a\\', 'b')}),
    ([r'name>=a\,b'], {'name': Between('a,b')}),
    ([r'sign=\=,\<'], {'sign': ('=', '<')}),
    (['url=http://a/?b=c&d<e'], {'url': ('http://a/?b=c&d<e',)}),
    (['a.b c=two\nlines'], {'a.b c': ('two\nlines',)}),
  ],
)
def test_filters(texts, where):
  assert parse_filters(texts) == where


@pytest.mark.parametrize(
  'text',
  [
    '',
    'tenant',
    '=acme',
    ' =acme',
    'tenant=',
    'tenant= ',
    'tenant=a,,b',
    'tenant=a,',
    'year>=',
    'year>2020',
    'year<2020',
    'year=>2020',
    'year==2020',
    'year>==2020',
    'year!=',
    '>=2020',
  ],
)
def test_what_is_no_filter(text):
  with pytest.raises(UserError) as error:
    parse_filters(['a=b', text])
  assert str(error.value) == (
    'a filter is FIELD=VALUE, FIELD=VALUE,VALUE, FIELD>=VALUE or FIELD<=VALUE,'
    f' got {text!r}'
  )


@pytest.mark.parametrize(
  ('texts', 'message'),
  [
    (['a=1', 'a=2'], "the filter 'a=2' is the second one of 'a': join values"),
    (['a>=1', 'a=2'], "the filter 'a=2' is the second one of 'a'"),
    (['a=1', 'a>=2'], "the filter 'a>=2' does not go with the one before"),
    (['a>=1', 'a>=2'], "the filter 'a>=2' does not go with the one before"),
    (['a<=1', 'b=1', 'a<=2'], "the filter 'a<=2' does not go with the one"),
    (['a>=1,2'], "the filter 'a>=1,2' should have one value: write a comma"),
  ],
)
def test_filters_that_contradict(texts, message):
  with pytest.raises(UserError) as error:
    parse_filters(texts)
  assert message in str(error.value)


def test_filters_select():
  fields = Fields.build(
    [{'year': 2019, 'by': 'Li, Na'}, {'year': 2020, 'by': 'Li, Na'}, {}]
  )
  where = parse_filters(['year>=2019.5', 'year<=2021', r'by=Li\, Na,Bo'])
  assert fields.select(where).tolist() == [False, True, False]
