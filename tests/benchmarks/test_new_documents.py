"""Withheld documents take their queries with them, and nothing else."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))

import new_documents

from gr_jax.data.collection import Collection
from gr_jax.data.documents import DocumentFile
from gr_jax.types import UserError

HEADER = 'query-id\tcorpus-id\tscore\n'


@pytest.fixture
def folder(tmp_path):
  data = tmp_path / 'data'
  (data / 'qrels').mkdir(parents=True)
  documents = [
    {
      '_id': name,
      'title': f'T {name}',
      'text': f'ä {name}',
      'metadata': {'n': n},
    }
    for n, name in enumerate(('wiki-0', 'shop-0', 'wiki-1', 'shop-1'))
  ]
  queries = [{'_id': f'q{n}', 'text': f'query {n}'} for n in range(5)]
  for name, records in (('corpus', documents), ('queries', queries)):
    lines = ''.join(json.dumps(record) + '\n' for record in records)
    (data / f'{name}.jsonl').write_text(lines)
  # q0 old, q1 new, q2 old and new, q3 new but known to be wrong, q4 unjudged.
  (data / 'qrels' / 'train.tsv').write_text(
    f'{HEADER}q0\twiki-0\t1\nq1\tshop-0\t1\nq2\twiki-1\t2\nq2\tshop-1\t1\n'
  )
  (data / 'qrels' / 'test.tsv').write_text(f'{HEADER}q3\tshop-0\t0\n')
  return data


@pytest.mark.parametrize('pattern', ['shop', 'shop-*', 's?op-[01]'])
def test_both_halves_are_whole_and_apart(folder, tmp_path, pattern):
  counts = new_documents.withhold(folder, pattern, tmp_path / 'out')
  assert counts == {'known': 2, 'new': 2, 'queries': 3}
  whole = {d.id: d for d in Collection(folder).documents()}
  known = Collection(tmp_path / 'out' / 'known')
  new = list(DocumentFile(tmp_path / 'out' / 'new.jsonl.gz').documents())
  assert [d.id for d in known.documents()] == ['wiki-0', 'wiki-1']
  assert [d.id for d in new] == ['shop-0', 'shop-1']
  assert all(whole[d.id] == d for d in [*new, *known.documents()])
  assert [q.id for q in known.queries()] == ['q0', 'q2', 'q4']
  assert known.splits() == ['train']
  judged = [(j.query_id, j.document_id) for j in known.judgements('train')]
  assert judged == [('q0', 'wiki-0'), ('q2', 'wiki-1')]
  again = {
    path.name: path.read_bytes()
    for path in (tmp_path / 'out').rglob('*') if path.is_file()
  }  # fmt: skip
  new_documents.withhold(folder, pattern, tmp_path / 'out')
  for path in (tmp_path / 'out').rglob('*'):
    if path.is_file():
      assert path.read_bytes() == again[path.name]


@pytest.mark.parametrize(('pattern', 'which'), [('shp', 'none'), ('*', 'all')])
def test_all_or_nothing_is_refused(folder, tmp_path, pattern, which):
  with pytest.raises(UserError, match=f"as those from 'wiki-0' .*{which}$"):
    new_documents.withhold(folder, pattern, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_a_folder_of_something_else_stays(folder, tmp_path):
  with pytest.raises(UserError, match=r'holds corpus\.jsonl: name another'):
    new_documents.withhold(folder, 'shop', folder)
  assert len(list(Collection(folder).documents())) == 4


def test_the_door_counts(folder, tmp_path, capsys):
  output = tmp_path / 'out'
  arguments = [f'--data_dir={folder}', '--withhold=shop', f'--output={output}']
  assert new_documents.main(arguments) == 0
  assert capsys.readouterr().out.splitlines() == [
    f'{output / "known"}: 2 documents, 3 queries',
    f'{output / "new.jsonl.gz"}: 2 documents',
  ]
