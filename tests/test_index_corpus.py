"""The indexing door on what is no finished run."""

import json

import pytest

from gr_jax import index_corpus, run_settings
from gr_jax.settings import to_json
from gr_jax.types import UserError


def test_no_run_is_said_in_one_line(tmp_path):
  with pytest.raises(UserError, match=r'it has no settings\.json'):
    index_corpus.main([f'--run_dir={tmp_path}'])


def test_a_run_without_a_checkpoint_or_without_that_step(tmp_path):
  settings = run_settings.RunSettings(run_dir=str(tmp_path))
  (tmp_path / 'settings.json').write_text(json.dumps(to_json(settings)))
  with pytest.raises(UserError, match='holds no checkpoint: train the run'):
    index_corpus.main([f'--run_dir={tmp_path}'])
  with pytest.raises(UserError, match='no checkpoint of step 7'):
    index_corpus.main([f'--run_dir={tmp_path}', '--checkpoint=7'])
  assert not (tmp_path / 'index').exists()


def write_collection(folder, ids):
  folder.mkdir(exist_ok=True)
  lines = [json.dumps({'_id': i, 'title': '', 'text': 'words'}) for i in ids]
  (folder / 'corpus.jsonl').write_text('\n'.join(lines) + '\n')
  (folder / 'queries.jsonl').write_text('{"_id": "q", "text": "words"}\n')


@pytest.mark.parametrize(
  ('now', 'place'),
  [(['a', 'x', 'c'], 2), (['a', 'b'], 3), (['a', 'b', 'c', 'd'], 4)],
)
def test_a_collection_that_changed_since_is_refused(tmp_path, now, place):
  settings = run_settings.RunSettings(run_dir='run', data_dir=str(tmp_path))
  write_collection(tmp_path, now)
  with pytest.raises(UserError, match=rf'changed .*at document {place}\)'):
    index_corpus._index(settings, tmp_path, None, None, ['a', 'b', 'c'])


def test_an_index_that_cannot_be_searched_is_said_once(tmp_path, capfd):
  with pytest.raises(UserError, match='there is no index folder'):
    index_corpus.warm_up(tmp_path / 'index')
  assert capfd.readouterr() == ('', '')
