"""One generator of two languages writes the one that it is asked for."""

import dataclasses
import json

import pytest
import tiny_collection
from tiny_generator import generated, settings_of
from tiny_texts import write_prepared, write_vocabulary

from gr_jax import train_text

GERMAN = ['wo', 'wohnt', 'am', 'de', 'en', ':']


def write_two_languages(data):
  """The tiny collection; the second query of a document is another language."""
  tiny_collection.write_collection(data)
  path = data / 'queries.jsonl'
  rows = []
  for line in path.read_text().splitlines():
    row = json.loads(line) | {'language': 'en'}
    animal, place, number = row['_id'].split('-')
    if number == '1':
      row |= {'text': f'wo wohnt {animal} am {place}', 'language': 'de'}
    rows.append(json.dumps(row) + '\n')
  path.write_text(''.join(rows))


@pytest.mark.soak
def test_two_languages_come_out_of_one_generator(tmp_path):
  write_two_languages(tmp_path / 'data')
  size = write_vocabulary(tmp_path / 'vocabulary', GERMAN)
  settings = settings_of(
    tmp_path, size, {'steps': 200, 'log_every': 100, 'checkpoint_every': 200}
  )
  preparation = dataclasses.replace(
    settings.preparation, control_field='language'
  )
  settings = dataclasses.replace(
    settings,
    preparation=preparation,
    # The eight devices of such a test share it.
    loader=dataclasses.replace(settings.loader, batch_size=40),
  )
  write_prepared(tmp_path / 'cache' / 'prepared', settings)
  train_text.train(settings, tmp_path / 'run')
  for language, shape in (
    ('en', '{} of the {}'), ('de', 'wo wohnt {} am {}'),
  ):  # fmt: skip
    language_asked = f'--gin.GeneratorSource.query_language={language}'
    found = generated(tmp_path, tmp_path / language, language_asked)
    own = sum(shape.format(*name.split('-')) == text for name, text in found)
    # It draws, and has learned well.
    assert own >= 0.8 * len(found) >= 30
    other = {'en': {'wo', 'wohnt', 'am'}, 'de': {'of', 'the'}}[language]
    strays = sum(bool(other & {*text.split()}) for _, text in found)
    assert strays <= 0.05 * len(found)
    assert not any(':' in text for _, text in found)
