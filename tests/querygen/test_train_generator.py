"""A run of train_text: it learns queries by heart, and goes on bit for bit."""

import dataclasses
import json

import deadly_places
import jax
import numpy as np
import pytest
import survival
from tiny_generator import (
  DOCUMENT,
  QUERY,
  begun,
  contents,
  generated,
  map_texts,
  restored,
)

from gr_jax import run_folder, train_text
from gr_jax.data.collection import Collection
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.models.query_generator import QueryGenerator
from gr_jax.querygen.generator import load_generator
from gr_jax.querygen.sampling import SamplingSettings, draw
from gr_jax.training.logs import MetricWriter, read_jsonl
from gr_jax.types import Terminated, UserError

STEPS, SAVED = 200, 180


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp('generator')
  settings = begun(
    folder,
    steps=STEPS,
    log_every=20,
    evaluate_every=100,
    checkpoint_every=SAVED,
  )
  train_text.train(settings, folder / 'run')
  return folder, settings


def test_it_writes_the_queries_that_it_has_learned_by_heart(trained):
  folder, settings = trained
  collection = Collection(settings.data_dir)
  vocabulary = load_vocabulary(settings.preparation.vocabulary)
  documents = list(collection.documents())
  tokens_BS = np.zeros((len(documents), DOCUMENT), np.int32)
  for row, ids in zip(
    tokens_BS,
    vocabulary.encode_batch(map_texts(documents), DOCUMENT),
    strict=True,
  ):
    row[: len(ids)] = ids
  tokens_BWL, log_probs_BW = draw(
    QueryGenerator(settings.model),
    restored(folder / 'run'),
    tokens_BS,
    jax.random.split(jax.random.key(0), len(documents)),
    SamplingSettings(queries=2, method='beam', max_tokens=QUERY),
  )
  texts = {query.id: query.text for query in collection.queries()}
  for document, found_WL in zip(documents, np.asarray(tokens_BWL), strict=True):
    found = {vocabulary.decode(row[row > 0].tolist()) for row in found_WL}
    assert found == {texts[f'{document.id}-{n}'] for n in range(2)}
  # Both are as likely.
  assert np.mean(np.exp(log_probs_BW)) == pytest.approx(0.5, abs=0.1)


def test_a_document_is_given_the_same_queries_among_any_others(trained):
  folder, settings = trained
  documents = list(Collection(settings.data_dir).documents())
  generator = load_generator(folder / 'run')
  rules = SamplingSettings(queries=4, max_tokens=QUERY, top_p=1.0)
  together = generator.generate(documents, rules, seed=3)
  assert len(documents) > 2 * generator.batch_size
  # One, a few in another order, and in other batches than before.
  for chosen in ([7], [30, 7, 2], list(range(39, 1, -1))):
    some = generator.generate([documents[n] for n in chosen], rules, seed=3)
    for number, queries in zip(chosen, some, strict=True):
      assert [q.text for q in queries] == [q.text for q in together[number]]
  other = generator.generate(documents, rules, seed=4)
  assert [q.text for q in other[0]] != [q.text for q in together[0]]
  # A word that no query begins with; it is left out again.
  forced = generator.generate(documents[:2], rules, seed=3, prefix='sleeps')
  assert not any(q.text.startswith('sleeps') for qs in forced for q in qs)
  # What the model thinks of such a beginning counts.
  assert max(q.log_probability for qs in forced for q in qs) < min(
    q.log_probability for q in together[0]
  )


def test_what_the_vocabulary_lacks_is_never_written(trained, monkeypatch):
  folder, settings = trained
  documents = list(Collection(settings.data_dir).documents())[:2]
  generator = load_generator(folder / 'run')
  vocabulary = generator._vocabulary
  assert vocabulary.unk_id == vocabulary.encode('\u4e9c', 3)[-2]
  rules = SamplingSettings(queries=4, max_tokens=QUERY, top_p=1.0)
  likely = generator.generate(documents, rules, seed=3)[0][0].text.split()[0]
  (word,) = generator._forced(likely)
  monkeypatch.setattr(vocabulary, 'unk_id', word)
  found = generator.generate(documents, rules, seed=3)
  assert not any(likely in q.text.split() for qs in found for q in qs)


def test_what_is_no_run_of_a_generator_is_refused(trained, tmp_path):
  with pytest.raises(UserError, match='should be the folder of a run'):
    load_generator(tmp_path)
  (tmp_path / 'settings.json').symlink_to(trained[0] / 'run' / 'settings.json')
  with pytest.raises(UserError, match='holds no checkpoint'):
    load_generator(tmp_path)


def test_a_language_is_asked_of_what_has_learned_some(trained, tmp_path):
  folder = trained[0]
  with pytest.raises(UserError, match=r"is 'de', and .* trained without a"):
    generated(folder, tmp_path, '--gin.GeneratorSource.query_language=de')
  (tmp_path / 'checkpoints').symlink_to(folder / 'run' / 'checkpoints')
  saved = json.loads((folder / 'run' / 'settings.json').read_text())
  saved['preparation']['control_field'] = 'language'
  (tmp_path / 'settings.json').write_text(json.dumps(saved))
  with pytest.raises(UserError, match="= 'language', and would write its val"):
    load_generator(tmp_path)
  load_generator(tmp_path, query_language='de')
  # As earlier versions wrote it.
  del saved['preparation']['control_field']
  (tmp_path / 'settings.json').write_text(json.dumps(saved))
  load_generator(tmp_path)


def test_logs_tell_of_training_and_of_dev(trained):
  logs = read_jsonl(trained[0] / 'run' / 'logs')
  losses = [line['token_loss'] for line in logs if 'token_loss' in line]
  assert losses[-1] < losses[0] / 4
  dev, right = (
    {line['step']: line[name] for line in logs if name in line}
    for name in ('dev/token_loss', 'dev/token_accuracy')
  )
  assert list(dev) == [100, STEPS]
  # Its queries are among those that are trained on: half of the choice.
  assert dev[STEPS] < 0.5
  # Of five tokens the first may be that of the other query.
  assert list(right) == [100, STEPS] and 0.75 < right[STEPS] <= 1


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trained, tmp_path):
  folder, settings = trained
  name = f'step_{SAVED:08d}'
  again = tmp_path / 'run'
  (again / 'checkpoints').mkdir(parents=True)
  for part in ('settings.json', f'checkpoints/{name}'):
    (again / part).symlink_to(folder / 'run' / part)
  train_text.train(settings, again)
  expected, found = restored(folder / 'run'), restored(again)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert read_jsonl(again / 'logs')[0]['step'] == SAVED + 20


def test_sigterm_saves_and_the_run_comes_to_the_same_end(trained, monkeypatch):
  folder, settings = trained
  settings = dataclasses.replace(
    settings,
    training=dataclasses.replace(
      settings.training,
      steps=24,
      log_every=1,
      evaluate_every=10,
      checkpoint_every=100,
    ),
  )
  train_text.train(settings, folder / 'whole')
  ended = folder / 'ended'
  with monkeypatch.context() as patched:
    # Gives back what the place replaces.
    patched.setattr(MetricWriter, 'write', MetricWriter.write)
    deadly_places.PLACES['sigterm']()
    with pytest.raises(Terminated):
      train_text.train(settings, ended)
  # Of the step after the line that it came with, and of no other.
  assert [path.name for path in (ended / 'checkpoints').iterdir()] == [
    'step_00000016'
  ]
  train_text.train(settings, ended)
  found, expected = map(survival.outcome, (ended, folder / 'whole'))
  assert [line['step'] for line in found['logs']].count(20) == 2
  survival.assert_same(found, expected)


def test_other_settings_do_not_go_on_with_a_run(trained):
  folder, settings = trained
  other = dataclasses.replace(
    settings, model=dataclasses.replace(settings.model, pointer=False)
  )
  with pytest.raises(UserError, match='pointer was True, is False'):
    run_folder.check_settings(other, folder / 'run')
  run_folder.check_settings(settings, folder / 'run')


def test_the_door_of_pseudo_queries_asks_it(trained, tmp_path):
  folder = trained[0]
  found = generated(folder, tmp_path / 'out')
  texts = {query.text for query in Collection(folder / 'data').queries()}
  own = sum(text in texts for _, text in found)
  # It draws, and has learned well.
  assert own >= 0.8 * len(found) > 40
  for name, text in found:
    if text in texts:
      assert set(name.split('-')) <= set(text.split())
  # As often as one likes.
  assert generated(folder, tmp_path / 'again') == found
  assert contents(tmp_path / 'out') == contents(tmp_path / 'again')
  none = generated(folder, tmp_path / 'none', held_out="('test', 'dev')")
  assert len(none) < len(found) / 4
