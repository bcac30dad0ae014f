"""Rankings are of the collection and the queries that a run is trained on."""

import dataclasses
import json
import types

import pytest
from tiny_collection import write_collection

from gr_jax.data.preparation_settings import PreparationSettings, inputs_hash
from gr_jax.ranking.joining import checked_rankings
from gr_jax.types import UserError

LINE = {'query_id': 'q:spans:0', 'document_ids': ['d0', 'x'], 'scores': [2, 1]}


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
  folder = write_collection(tmp_path_factory.mktemp('joining') / 'data')
  return PreparationSettings(str(folder), sources=('labelled', 'spans'))


@pytest.fixture
def check(settings, tmp_path):
  """Writes a header and a ranking, and reads them for a prepared folder."""
  prepared = types.SimpleNamespace(
    directory='prepared',
    document_ids=['d0', 'd1'],
    manifest={
      'collection_sha256': 'a' * 64,
      'settings': dataclasses.asdict(settings),
    },
  )

  def checked(header, **more):
    path = tmp_path / 'r.jsonl'
    path.write_text(f'{json.dumps(header)}\n{json.dumps(LINE | more)}\n')
    return checked_rankings(str(path), prepared)

  return checked


def of_examples(settings, **changes):
  """What rank_with_teacher says of the spans of such settings."""
  changed = dataclasses.replace(settings, sources=('spans',), **changes)
  return {'sources': ['spans'], 'examples': inputs_hash(changed)}


def test_what_is_known_to_be_the_same_is_taken(check, settings, capsys):
  for header in (
    {'teacher': 'x'}, {'collection': 'a' * 64}, of_examples(settings),
  ):  # fmt: skip
    assert list(check(header)) == ['q:spans:0']
  said = capsys.readouterr().out.splitlines()
  assert len(said) == 3 and '1 places of its rankings hold doc' in said[0]


def test_another_collection_is_refused(check):
  with pytest.raises(UserError, match=r'collection bbbbbbb.*aaaaaaa'):
    check({'collection': 'b' * 64})


def test_other_examples_are_refused_where_no_text_tells_them_apart(
  check, settings
):
  header = of_examples(settings, seed=1)
  with pytest.raises(UserError, match=header['examples'][:12]):
    check(header)
  # Joining compares texts.
  assert list(check(header, query='a span')) == ['q:spans:0']
