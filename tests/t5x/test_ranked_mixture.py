"""A teacher's lists from a seqio mixture, into a step of T5X's model."""

import dataclasses
import json

import flax.core
import jax
import numpy as np
import pytest
from tiny_collection import write_collection

from gr_jax import run_folder
from gr_jax.data.collection import Collection
from gr_jax.data.loader import LoaderSettings
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.data.prepared import PreparedData
from gr_jax.data.ranked_lists import ListSettings
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.objectives.weighted_sum import ObjectiveSettings, only
from gr_jax.ranking.corpus import read_prepared
from gr_jax.run_settings import RunSettings
from gr_jax.t5x import run as t5x_run
from gr_jax.training.state import TrainingSettings
from gr_jax.types import NO_DOC, UserError

T5 = T5Config(
  vocab_size=160,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  num_encoder_layers=1,
  num_decoder_layers=0,
  mlp_dim=16,
)
DOCUMENTS, SHARD = 40, 16
# Two lists of three out of four others, or of two.
LISTS = ListSettings('', lists=2, size=4, top=1, least=2, depth=4)
STEPS_AWAY = 3, 0, 7, 1, 9


def settings(folder):
  return RunSettings(
    str(folder / 'run'),
    data_dir=str(folder / 'data'),
    trained_run='runs/before',
    preparation=PreparationSettings(
      data_dir=str(folder / 'data'),
      vocabulary_size=160,
      query_length=8,
      document_length=12,
      sources=('labelled', 'spans'),
      spans_per_document=2,
      documents_per_shard=SHARD,
    ),
    loader=LoaderSettings(batch_size=8, rates={'labelled': 1.0, 'spans': 1.0}),
    lists=dataclasses.replace(LISTS, path=str(folder / 'rankings.jsonl')),
    model=RetrieverConfig(
      encoder=T5,
      indexer=ResidualConfig(positions=2, codes=4),
      decoder=CodeDecoderConfig(stack=T5),
      width=8,
      queue=8,
    ),
    training=TrainingSettings(
      steps=20,
      dense_fraction=0.0,
      settled_fraction=1.0,
      settled_rounds=0,
      train_encoder=True,
    ),
    objective=dataclasses.replace(
      only(ObjectiveSettings(), 'generation', 'bottleneck'), distillation=1.0
    ),
  )


def rankings(ids):
  """{query id: documents} of labelled queries and second spans."""
  found = {}
  for number, name in enumerate(ids):
    ranked = [(number + step) % DOCUMENTS for step in STEPS_AWAY]
    # The first five documents have none, one a short one, which is kept.
    if number >= 5:
      found[f'{name}-0'] = ranked if number != 20 else ranked[:3]
      found[f'{name}:spans:1'] = ranked[::-1]
  return found


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  from gr_jax.tasks.beir import beir_tasks

  from gr_jax.data.prepare import prepare

  path = tmp_path_factory.mktemp('ranked')
  write_collection(path / 'data')
  run = settings(path)
  prepare(run.preparation, path / 'run' / 'prepared', beir_tasks)
  run_folder.keep_settings(run, path / 'run', '')
  ids = PreparedData(path / 'run' / 'prepared').document_ids
  asked = read_prepared(Collection(path / 'data'), run.preparation)
  texts = {query.id: query.text for query in asked.queries}
  lines = [
    {
      'query_id': query,
      # Ids of second spans that short documents do not have.
      'query': texts.get(query, 'none'),
      'document_ids': [ids[number] for number in ranked],
      'scores': [9.0, 8.0, 7.0, 6.0, 5.0][: len(ranked)],
    }
    for query, ranked in rankings(ids).items()
  ]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (path / 'rankings.jsonl').write_text(text)
  return path


@pytest.fixture(scope='module')
def mixture(folder):
  from gr_jax.tasks import prepared

  run_dir = str(folder / 'run')
  return prepared.training_mixture(
    t5x_run.prepared_directory(run_dir),
    t5x_run.rates(run_dir),
    t5x_run.lists(run_dir),
  )


def check_row(example, kept, ids):
  """Whether lists are of the ranking of an example's query."""
  own = ids.index(example['document_id'].decode())
  index_PM, scores_PM = example['list_index'], example['list_scores']
  assert index_PM.shape == scores_PM.shape == (2, 4)
  if kept is None:
    assert (index_PM == NO_DOC).all() and not scores_PM.any()
    return set()
  scores = dict(zip(kept, [9.0, 8.0, 7.0, 6.0, 5.0], strict=False))
  others = [document for document in kept if document != own]
  for index_M, scores_M in zip(index_PM, scores_PM, strict=True):
    real_M = index_M != NO_DOC
    assert real_M.sum() == min(4, 1 + len(others))
    assert not scores_M[~real_M].any()
    first, *listed = index_M[real_M].tolist()
    assert first == own and listed[0] == others[0]
    places = [others.index(document) for document in listed]
    assert places == sorted(set(places))
    assert scores_M[real_M].tolist() == [scores[d] for d in (own, *listed)]
  return {tuple(index_M) for index_M in index_PM}


def test_rows_of_all_sources_are_the_rankings(mixture, folder):
  import seqio

  prepared = PreparedData(folder / 'run' / 'prepared')
  ids = prepared.document_ids
  wanted = rankings(ids)
  drawn, counts = {}, {}
  for source in ('labelled', 'spans'):
    task = seqio.get_mixture_or_task(f'gr_jax_{source}')
    for shard in range(3):
      dataset = task.get_dataset(
        None,
        'train',
        shuffle=False,
        shard_info=seqio.ShardInfo(shard, 3),
        num_epochs=2,
        seed=0,
      )
      for example in dataset.as_numpy_iterator():
        query = example['query_id'].decode()
        lists = check_row(example, wanted.get(query), ids)
        drawn.setdefault(query, set()).update(lists)
        counts[query] = counts.get(query, 0) + 1
  # Each query twice, of which none is left out: they are generated from too.
  assert len(counts) == sum(map(len, prepared.sources.values()))
  assert set(counts.values()) == {2}
  assert max(len(lists) for lists in drawn.values()) == 3


@pytest.fixture(scope='module')
def batches(mixture, folder):
  import seqio

  from gr_jax.data.seqio_converter import RetrievalFeatureConverter

  return seqio.get_dataset(
    mixture_or_task_name=mixture,
    task_feature_lengths=t5x_run.training_lengths(str(folder / 'run')),
    dataset_split='train',
    feature_converter=RetrievalFeatureConverter(),
    batch_size=8,
    shuffle=True,
    num_epochs=None,
    seed=0,
  )


def test_lists_go_on_where_an_iterator_was_saved(batches, tmp_path):
  import tensorflow as tf

  first, second = iter(batches), iter(batches)
  for _ in range(3):
    next(first)
  path = tf.train.Checkpoint(ds=first).write(str(tmp_path / 'place'))
  tf.train.Checkpoint(ds=second).read(path).assert_consumed()
  for _ in range(20):
    wanted, found = next(first), next(second)
    for name in ('list_index', 'list_scores'):
      np.testing.assert_array_equal(wanted[name], found[name])


def test_a_step_of_the_model_follows_them(batches, folder):
  (batch,) = batches.take(1).as_numpy_iterator()
  assert batch['list_index'].shape == batch['list_scores'].shape == (8, 2, 4)
  model = t5x_run.model(str(folder / 'run'), 'settled')
  variables = model.get_initial_variables(None, {})
  table = np.random.default_rng(0).integers(0, 4, (DOCUMENTS, 2))
  frozen = {
    **variables['frozen'],
    'identifiers': {'table': table.astype(np.int32)},
  }
  mutables = flax.core.freeze({'frozen': frozen, 'usage': variables['usage']})
  step = jax.jit(jax.grad(model.loss_fn, has_aux=True))
  grads, (metrics, _) = step(
    variables['params'], {**batch, 'step': 0}, jax.random.key(0), mutables
  )
  assert metrics['margin_rank'].compute() > 0
  listed = (batch['list_index'] != NO_DOC).any(axis=-1).sum()
  assert 0 < metrics['list_accuracy'].count == listed
  assert np.any(grads['indexer']['codebooks'])


def test_a_mixture_without_a_teacher_has_no_lists(folder):
  import seqio
  from gr_jax.tasks import prepared

  directory = t5x_run.prepared_directory(str(folder / 'run'))
  rates = {'labelled': 1.0}
  name = prepared.training_mixture(directory, rates, LISTS)
  features = seqio.get_mixture_or_task(name).output_features
  assert not {'list_index', 'list_scores'} & features.keys()
  missing = dataclasses.replace(LISTS, path=str(folder / 'none'))
  with pytest.raises(UserError, match='none is there'):
    prepared.training_mixture(directory, rates, missing)
