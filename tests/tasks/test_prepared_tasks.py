"""Tasks of a prepared folder, as T5X's gin files name them."""

import numpy as np
import pytest
from tiny_collection import write_collection

from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.types import UserError

RATES = {'labelled': 2.0, 'spans': 1.0}
LENGTHS = {'query': 8, 'document': 12, 'targets': 1}


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  from gr_jax.tasks.beir import beir_tasks

  from gr_jax.data.prepare import prepare

  folder = tmp_path_factory.mktemp('tasks')
  settings = PreparationSettings(
    data_dir=str(write_collection(folder / 'data')),
    vocabulary_size=160,
    query_length=8,
    document_length=12,
    sources=('labelled', 'spans'),
    spans_per_document=1,
    documents_per_shard=16,
  )
  prepare(settings, folder / 'prepared', beir_tasks)
  return folder / 'prepared'


def batches(name, split, **more):
  import seqio

  from gr_jax.data.seqio_converter import RetrievalFeatureConverter

  return seqio.get_dataset(
    mixture_or_task_name=name,
    task_feature_lengths=LENGTHS,
    dataset_split=split,
    feature_converter=RetrievalFeatureConverter(),
    batch_size=8,
    **more,
  )


@pytest.fixture(scope='module')
def training(directory):
  from gr_jax.tasks import prepared

  name = prepared.training_mixture(str(directory), RATES)
  return batches(name, 'train', shuffle=True, num_epochs=None, seed=0)


def test_batches_hold_the_tokens_that_preparation_wrote(training, directory):
  from gr_jax.data.prepared import PreparedData

  prepared = PreparedData(directory)
  queries = {
    (tuple(tokens), document)
    for source in prepared.sources.values()
    for tokens, document in (source[i] for i in range(len(source)))
  }
  for batch in training.take(4).as_numpy_iterator():
    documents = prepared.document_tokens(batch['document_index'])
    for row, tokens in enumerate(documents):
      assert batch['document_tokens'][row, : len(tokens)].tolist() == [*tokens]
      assert not batch['document_tokens'][row, len(tokens) :].any()
      query = batch['query_tokens'][row]
      assert (tuple(query[query != 0]), batch['document_index'][row]) in queries


def test_an_iterator_goes_on_where_it_was_saved(training, tmp_path):
  import tensorflow as tf

  first, second = iter(training), iter(training)
  for _ in range(3):
    next(first)
  path = tf.train.Checkpoint(ds=first).write(str(tmp_path / 'place'))
  tf.train.Checkpoint(ds=second).read(path).assert_consumed()
  # Past the end of the first epoch, which has 120 examples at most.
  for _ in range(30):
    wanted, found = next(first), next(second)
    for name, rows in wanted.items():
      np.testing.assert_array_equal(rows, found[name])


def test_queries_are_measured_by_seqio(directory):
  import seqio
  from gr_jax.tasks import prepared

  from gr_jax.data.seqio_converter import RetrievalFeatureConverter

  name = prepared.query_task(str(directory), 'dev')
  evaluator = seqio.Evaluator(
    name,
    RetrievalFeatureConverter(),
    eval_split='dev',
    sequence_length=LENGTHS,
  )

  def predict(dataset):
    """The right document, third for every other query, and no more than 4."""
    for index, example in dataset.as_numpy_iterator():
      right = int(example['document_index'])
      others = [number for number in range(40) if number != right][:2]
      found = [*others, right] if index % 2 else [right, *others]
      yield index, [*found, -1]

  metrics, _ = evaluator.evaluate(
    compute_metrics=True, predict_fn=lambda ds: list(predict(ds))
  )
  found = metrics.result()[name]
  assert found['R@1'] == 0.5
  assert found['R@10'] == 1.0
  np.testing.assert_allclose(found['RR@10'], (1 + 1 / 3) / 2)


def test_another_collection_is_refused(directory, tmp_path):
  import shutil

  from gr_jax.tasks import prepared

  from gr_jax.data.prepared import PreparedData, manifest_text

  changed = tmp_path / 'prepared'
  shutil.copytree(directory, changed)
  manifest = PreparedData(changed).manifest
  data = tmp_path / 'data'
  shutil.copytree(manifest['settings']['data_dir'], data)
  with (data / 'queries.jsonl').open('a') as file:
    file.write('{"_id": "more", "text": "one more"}\n')
  manifest['settings']['data_dir'] = str(data)
  (changed / 'manifest.json').write_text(manifest_text(manifest))
  with pytest.raises(UserError, match='prepare it again'):
    prepared.query_task(str(changed), 'dev')


def test_packing_is_refused():
  from gr_jax.data.seqio_converter import RetrievalFeatureConverter

  with pytest.raises(UserError, match='pack = False'):
    RetrievalFeatureConverter(pack=True)
