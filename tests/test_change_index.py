"""The doors of an index that changes: delete, hide, show, fold, filter."""

import io
import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / 'retrieval'))

import saved_index

from gr_jax import change_index, insert, search
from gr_jax.index.reader import load_index
from gr_jax.retrieval.living import (
  FollowingSearcher,
  LivingSearcher,
)
from gr_jax.types import Document, UserError


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  folder = tmp_path_factory.mktemp('changing') / 'index'
  saved_index.save(folder)
  return folder


def found(path, capsys, *flags):
  """Ids that the door of search prints."""
  arguments = [f'--index={path}', '--json', '--k=60', *flags, 'read a file']
  assert search.main(arguments) == 0
  hits = json.loads(capsys.readouterr().out)['hits']
  return [hit['document_id'] for hit in hits]


def test_documents_go_hide_and_come_through_the_doors(
  path, tmp_path, capsys, monkeypatch
):
  def change(*flags):
    assert change_index.main([f'--index={path}', *flags]) == 0
    return capsys.readouterr().out

  everything = set(found(path, capsys))
  assert {'d0', 'd1', 'd2', 'd3'} <= everything
  assert change('--delete', 'd1', 'd2') == (
    'deleted 2 documents: 38 documents are in the index now, 0 of them hidden\n'
  )
  monkeypatch.setattr('sys.stdin', io.StringIO('d0\nd3\n\n'))
  assert 'hid 2 documents: 38 documents' in change('--hide', '-')
  assert set(found(path, capsys)) == everything - {'d0', 'd1', 'd2', 'd3'}
  corpus = tmp_path / 'new.jsonl'
  lines = [
    {'_id': 'd1', 'text': 'read a json file', 'metadata': {'year': 2020}},
    {'_id': 'x', 'text': 'read a file', 'metadata': {'year': 2022}},
  ]
  corpus.write_text('\n'.join(map(json.dumps, lines)))
  insert.main([f'--index={path}', f'--corpus={corpus}'])
  assert capsys.readouterr().out.startswith('inserted 2 documents, 40 are in')
  expected = (everything - {'d0', 'd2', 'd3'}) | {'d1', 'x'}
  assert set(found(path, capsys)) == expected
  assert found(path, capsys, '--where=year>=2021') == ['x']
  assert set(found(path, capsys, '--where', 'year=2020,2022')) == {'d1', 'x'}
  assert f'wrote {path / "v000002"}' in change('--show', 'd0', '--fold')
  assert set(found(path, capsys)) == expected | {'d0'}
  assert len(load_index(path, verify=True)) == 40
  for flags, message in (
    (['--delete', 'nobody'], '1 of 1 documents are not in the index'),
    ([], 'name what to --delete'),
  ):
    with pytest.raises(UserError, match=message):
      change(*flags)
  with pytest.raises(UserError, match="no document has a field 'yaer'"):
    found(path, capsys, '--where=yaer=2020')


def test_one_searcher_changes_the_index_and_another_follows(tmp_path):
  path = tmp_path / 'index'
  texts = saved_index.save(path)
  following = FollowingSearcher(path, spare=100)
  query = texts[0]

  def names(living):
    return [hit.document_id for hit in living.searcher.search([query], 60)[0]]

  with LivingSearcher(path, room=100) as living:
    whole = names(living)
    assert names(following) == whole and not following.refresh()
    living.delete([whole[0]])
    living.hide([whole[1]])
    told = living.insert([Document('new', '', query, {'tags': ['a', 'b']})])
    assert (told.documents, told.total, told.joined) == (1, 40, 1)
    assert 'new' in names(living)
    assert set(names(living)) == {*whole[2:], 'new'}
    only = living.searcher.select(where={'tags': 'b'})
    hits = living.searcher.search([query], 5, only)[0]
    assert [hit.document_id for hit in hits] == ['new']
    assert names(following) == whole
    assert following.refresh() and names(following) == names(living)
    before = names(living)
    assert living.fold() == path / 'v000002'
    assert names(living) == before
    living.show([whole[1]])
    assert following.refresh()
    assert set(names(following)) == {*whole[1:], 'new'}
