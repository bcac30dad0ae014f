"""The benchmark of changes runs, and finds nothing lost."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))

import living


@pytest.mark.soak
def test_a_small_run_of_the_whole(tmp_path, capsys):
  output = tmp_path / 'living.json'
  arguments = ['--documents=5000', '--changes=4000', '--at_once=200']
  arguments += ['--codes=64', '--length=3', '--width=8', '--beams=20']
  assert living.main([*arguments, f'--output={output}']) == 0
  row = json.loads(output.read_text())
  assert row['changes'] == 4000 and row['documents'] == 5000
  assert row['folds'] > 0 and row['programs_compiled'] == 0
  assert row['documents_found'] >= 8 * 10 * 10
  for name in ('lost_in_memory', 'lost_on_disk', 'deleted_documents_found'):
    assert row[name] == 0
  assert all(row[f'{name}_milliseconds'] > 0 for name in ('insert', 'search'))
  assert json.loads(capsys.readouterr().out)['room'] == row['room']
