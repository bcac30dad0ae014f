"""A generator and its examples agree, or training is refused in a line."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest
from tiny_generator import END, START, begun

from gr_jax import run_generator
from gr_jax.data.prepared import PreparedData
from gr_jax.models.query_generator import QueryGenerator
from gr_jax.querygen.generator import Generator
from gr_jax.run_generator import GeneratorRun
from gr_jax.types import UserError


@pytest.fixture(scope='module')
def ready(tmp_path_factory):
  folder = tmp_path_factory.mktemp('ready')
  settings = begun(folder, steps=2, evaluate_every=1)
  return settings, PreparedData(folder / 'cache' / 'prepared')


def changed(settings, **fields):
  """The settings with other fields of the model."""
  model = dataclasses.replace(settings.model, **fields)
  return dataclasses.replace(settings, model=model)


@pytest.mark.parametrize('start, end', [(0, 1), (5, 6), (START, 4)])
def test_marks_are_those_of_the_vocabulary(ready, start, end):
  settings, prepared = ready
  run = GeneratorRun(changed(settings, start=start, end=end))
  with pytest.raises(UserError, match=f'set start = {START} and end = {END},'):
    run.batches(prepared, range(4))


def test_dev_queries_begin_as_those_that_are_trained_on(
  ready, tmp_path, monkeypatch
):
  settings, prepared = ready
  data = tmp_path / 'data'
  shutil.copytree(settings.data_dir, data)
  queries = data / 'queries.jsonl'
  lines = map(json.loads, queries.read_text().splitlines())
  fields = [json.dumps(line | {'place': 'summit'}) + '\n' for line in lines]
  queries.write_text(''.join(fields))
  preparation = dataclasses.replace(settings.preparation, control_field='place')
  asked = dataclasses.replace(
    settings, data_dir=str(data), preparation=preparation
  )
  judged = []

  def metrics(model, params, batch):
    judged.append(batch['query_tokens'])
    return {'token_loss': (0.0, 1.0)}

  monkeypatch.setattr(run_generator, 'token_metrics', metrics)
  (hook,) = GeneratorRun(asked).hooks(tmp_path, prepared)
  hook(0, SimpleNamespace(all_params=dict))
  text = prepared.vocabulary().decode(judged[0][0, 0].tolist())
  assert text.startswith('[CLS] summit ')


def test_a_dev_split_without_relevant_documents_is_refused(ready, tmp_path):
  settings, prepared = ready
  data = tmp_path / 'data'
  shutil.copytree(settings.data_dir, data)
  dev = data / 'qrels' / 'dev.tsv'
  dev.write_text(dev.read_text().replace('\t1\n', '\t0\n'))
  run = GeneratorRun(dataclasses.replace(settings, data_dir=str(data)))
  with pytest.raises(UserError, match=r"split 'dev' of .* it holds none"):
    run.hooks(tmp_path, prepared)


@pytest.mark.parametrize(
  'fields',
  [{'queries_per_document': 0}, {'head_parts': 0}, {'start': -1}, {'end': 0}],
)
def test_sizes_that_no_generator_has_are_refused(ready, fields):
  with pytest.raises(UserError, match=f'{next(iter(fields))} must be at least'):
    changed(ready[0], **fields)


def test_a_run_of_texts_needs_a_model_of_texts_and_seeds_from_0(ready):
  settings, _ = ready
  with pytest.raises(UserError, match='model is a GeneratorConfig or a'):
    dataclasses.replace(settings, model=settings.model.encoder)
  for name, value in (
    ('seed', -1),
    ('loader', dataclasses.replace(settings.loader, seed=-1)),
  ):
    with pytest.raises(UserError, match='seed must be at least 0, got -1'):
      dataclasses.replace(settings, **{name: value})


def test_a_generator_without_parameters_of_its_model_is_refused(ready):
  settings, prepared = ready
  model = QueryGenerator(settings.model)
  with pytest.raises(UserError, match='trained without decoder and encoder'):
    Generator(model, {'pointer_gate': {}}, prepared.vocabulary(), 8, '')
