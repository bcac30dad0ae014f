"""seqio_cache_tasks on our Tasks, preparation from what it wrote, TFDS,
and the recipes on a miniature.

One file, so that one process imports Beam and TensorFlow.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from tiny_collection import write_collection

from gr_jax import (
  configuration,
  index_corpus,
  run_folder,
  run_settings,
  train,
)
from gr_jax import prepare as door
from gr_jax import settings as registry
from gr_jax.data import cloud_folders
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.data.prepared import PreparedData
from gr_jax.evaluate import evaluate
from gr_jax.types import UserError

BUCKET = 'memory://bucket/prepared'
# What makes any recipe small enough for a test.
MINIATURE = [
  'T5Config.vocab_size=256',
  'T5Config.emb_dim=16',
  'T5Config.num_heads=1',
  'T5Config.head_dim=8',
  'T5Config.num_encoder_layers=1',
  'T5Config.num_decoder_layers=1',
  'T5Config.mlp_dim=16',
  'T5Config.dtype=float32',
  'RetrieverConfig.width=16',
  'RetrieverConfig.queue=64',
  'POSITIONS=2',
  'CODES=8',
  'STEPS=6',
  'PreparationSettings.vocabulary_size=160',
  'PreparationSettings.document_length=16',
  'PreparationSettings.query_length=8',
  'LoaderSettings.batch_size=16',
  'MeshSettings.fsdp=1',
  'TrainingSettings.evaluate_every=0',
  'TrainingSettings.settled_rounds=1',
  'SearchSettings.beams=8',
  'SearchSettings.fraction=0.25',
  'SearchSettings.batch_sizes=(8,)',
]


@pytest.fixture(scope='module')
def cached(tmp_path_factory):
  """A plan, a cache of its Tasks by Beam, and the settings of both."""
  folder = tmp_path_factory.mktemp('offline')
  settings = PreparationSettings(
    data_dir=str(write_collection(folder / 'data')),
    vocabulary_size=160,
    query_length=6,
    document_length=12,
    sources=('labelled',),
    documents_per_shard=16,
  )
  registry.register(PreparationSettings)
  request = folder / 'settings.json'
  request.write_text(json.dumps(registry.to_json(settings)))
  door.main(
    [f'--settings={request}', f'--plan={folder / "plan"}', '--with_documents']
  )
  run_script(folder)
  return folder, settings


def run_script(folder):
  """seqio_cache_tasks, here: Beam and TensorFlow take long to import."""
  from absl import flags
  from seqio.scripts import cache_tasks_main

  arguments = [
    '--module_import=gr_jax.tasks.offline',
    '--tasks=gr_jax_corpus,gr_jax_labelled',
    f'--output_cache_dir={folder / "cache"}',
    '--min_shards=2',
    '--pipeline_options=--runner=DirectRunner',
  ]
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('GR_JAX_PLAN', str(folder / 'plan'))
    flags.FLAGS(['seqio_cache_tasks', *arguments])
    cache_tasks_main.main([])


def prepared(settings, directory):
  from gr_jax.tasks.beir import beir_tasks

  from gr_jax.data.prepare import prepare

  prepare(settings, directory, beir_tasks)
  return PreparedData(directory)


def read_cache(folder, settings, kind):
  """The Task of a kind and the cache of it."""
  from gr_jax.tasks.beir import beir_tasks

  from gr_jax.data.plan_files import inputs_stamp, read_plan
  from gr_jax.data.task_cache import TaskCache

  plan, vocabulary, with_documents = read_plan(folder / 'plan')
  task = beir_tasks(plan, vocabulary, with_documents)[kind]
  stamp = inputs_stamp(plan, vocabulary)
  return task, TaskCache(task, str(folder / 'cache'), stamp)


def test_from_a_cache_come_the_same_files(cached, tmp_path):
  folder, settings = cached
  direct = prepared(settings, tmp_path / 'direct')
  through = dataclasses.replace(settings, task_cache=str(folder / 'cache'))
  again = prepared(through, tmp_path / 'cached')
  assert direct.manifest['task_cache'] == {}
  assert again.manifest['files'] == direct.manifest['files']
  assert len(again.manifest['sources']['labelled']['shards']) == 5
  for name in ('sources', 'documents', 'inputs_sha256', 'vocabulary'):
    assert again.manifest[name] == direct.manifest[name]
  counts = {
    kind: entry['examples']
    for kind, entry in again.manifest['task_cache'].items()
  }
  assert counts == {'corpus': 40, 'labelled': 80}


def test_the_hash_is_that_of_the_task_in_any_order(cached):
  from gr_jax.data.task_cache import ContentHash

  folder, settings = cached
  task, cache = read_cache(folder, settings, 'labelled')
  direct = list(
    task.get_dataset(split='train', shuffle=False).as_numpy_iterator()
  )
  cached_order = [o for batch in cache.batches() for o in batch['order']]
  direct_order = [example['order'] for example in direct]
  # Otherwise this shows nothing of orders.
  assert cached_order != direct_order and set(cached_order) == set(direct_order)
  content = ContentHash()
  for example in direct:
    content.add(example)
  assert content.summary() == cache.content()
  content.add(direct[0])
  other = ContentHash()
  for example in [*direct[1:], direct[1], direct[0]]:
    other.add(example)
  # One example twice is not another one twice.
  assert other.summary() != content.summary()


def test_cached_tokens_are_cut_to_shorter_lengths(cached):
  folder, settings = cached
  task, _ = read_cache(folder, settings, 'labelled')
  lengths = {'query': 4, 'document': 7}
  rows = task.get_dataset(
    sequence_length=lengths, split='train', shuffle=False, use_cached=True
  )
  vocabulary = task.output_features['query'].vocabulary.vocabulary
  lines = (folder / 'data' / 'queries.jsonl').read_text().splitlines()
  texts = {query['_id']: query['text'] for query in map(json.loads, lines)}
  cut = 0
  for row in rows.as_numpy_iterator():
    expected = vocabulary.encode_counted(
      [texts[row['query_id'].decode()]], lengths['query']
    )[0]
    assert row['query'].tolist() == expected.ids
    assert row['query_truncated'] == expected.truncated
    assert len(row['document']) <= 7 and row['document'][-1] == 1
    cut += expected.truncated
  assert cut
  with pytest.raises(UserError, match='keeps 6 tokens of a query, 9 are'):
    task.get_dataset(sequence_length={'query': 9}, split='train')


def test_a_cache_of_something_else_is_refused(cached, tmp_path):
  folder, settings = cached
  through = dataclasses.replace(settings, task_cache=str(folder / 'cache'))
  other = dataclasses.replace(through, query_length=5)
  with pytest.raises(UserError, match='from other texts, settings or vocab'):
    prepared(other, tmp_path / 'other')
  nowhere = dataclasses.replace(through, task_cache=str(tmp_path))
  with pytest.raises(
    UserError, match="no complete cache of the Task 'gr_jax_c"
  ):
    prepared(nowhere, tmp_path / 'nowhere')
  assert list(tmp_path.iterdir()) == []


def test_a_damaged_cache_is_refused(cached, tmp_path):
  folder, settings = cached
  shutil.copytree(folder / 'cache', tmp_path / 'cache')
  through = dataclasses.replace(settings, task_cache=str(tmp_path / 'cache'))
  record = next(
    (tmp_path / 'cache' / 'gr_jax_labelled').glob('*tfrecord*0-of*')
  )
  content = np.frombuffer(record.read_bytes(), np.uint8).copy()
  content[len(content) // 2] ^= 1
  record.write_bytes(content.tobytes())
  with pytest.raises(UserError, match='gr_jax_labelled: damaged'):
    prepared(through, tmp_path / 'flipped')
  # A whole record less, which TFRecord's own checks do not see.
  size = int.from_bytes(content[:8].tobytes(), 'little') + 16
  content[len(content) // 2] ^= 1
  record.write_bytes(content[size:].tobytes())
  with pytest.raises(UserError, match='79 examples, 80 were cached'):
    prepared(through, tmp_path / 'shorter')


def test_a_tfds_of_a_folder_reads_back_equal(cached, tmp_path):
  import tensorflow_datasets as tfds
  from gr_jax.tasks.beir import beir_tasks
  from gr_jax.tasks.tfds_beir import tfds_tasks, write_tfds

  from gr_jax.data.collection import Collection
  from gr_jax.data.plan_files import read_plan

  folder, settings = cached
  data = tmp_path / 'zoo'
  shutil.copytree(folder / 'data', data)
  lines = (data / 'corpus.jsonl').read_text().splitlines()
  extra = {'_id': 'é1', 'text': 'Ünïcode ☃ ', 'year': 1, 'metadata': {'a': [2]}}
  lines.insert(7, json.dumps(extra))
  (data / 'corpus.jsonl').write_text('\n'.join(lines))
  (data / 'qrels' / 'dev.tsv').write_text(
    'query-id\tcorpus-id\tscore\notter-river-0\té1\t0\n'
  )
  folders = write_tfds(data, str(tmp_path / 'tfds'))
  assert list((tmp_path / 'tfds').rglob('*.array_record*'))
  collection = Collection(data)

  def rows(part, split):
    builder = tfds.builder_from_directory(folders[part])
    for row in builder.as_data_source(split=split):
      yield {
        key: value.decode() if isinstance(value, bytes) else int(value)
        for key, value in row.items()
      }

  documents = list(collection.documents())
  for row, document in zip(rows('corpus', 'corpus'), documents, strict=True):
    row['metadata'] = json.loads(row['metadata'])
    assert row == {'id': document.id, **vars_of(document)}
  queries = list(collection.queries())
  found = rows('queries', 'queries')
  for row, query in zip(found, queries, strict=True):
    assert (row['id'], row['text']) == (query.id, query.text)
  for split in ('train', 'dev', 'test'):
    judged = collection.judgements(split)
    for row, judgement in zip(rows('qrels', split), judged, strict=True):
      assert row['query_id'] == judgement.query_id
      assert row['document_id'] == judgement.document_id
      assert row['relevance'] == judgement.relevance
      assert documents[row['document_index']].id == judgement.document_id
  # The Tasks give what those of the folder give.
  plan, vocabulary, _ = read_plan(folder / 'plan')
  folders = write_tfds(folder / 'data', str(tmp_path / 'tfds'), 'plain')
  made = tfds_tasks(folders, settings, vocabulary)
  direct = beir_tasks(plan, vocabulary)
  for kind in ('corpus', 'labelled'):
    assert examples_of(made[kind]) == examples_of(direct[kind])
    assert made[kind].supports_caching
  with pytest.raises(UserError, match='delete it, or choose another name'):
    write_tfds(data, str(tmp_path / 'tfds'), 'plain')


def vars_of(document):
  return {
    'title': document.title,
    'text': document.text,
    'metadata': dict(document.metadata),
  }


def examples_of(task):
  """Every example of a Task but the number for what made it."""
  dataset = task.get_dataset(split='train', shuffle=False)
  return [
    {
      key: np.asarray(value).tolist()
      for key, value in example.items()
      if key != 'inputs'
    }
    for example in dataset.as_numpy_iterator()
  ]


@pytest.mark.parametrize(
  'name', ['msmarco', pytest.param('nq320k', marks=pytest.mark.soak)]
)
def test_a_recipe_goes_from_folder_to_evaluated_index(name, tmp_path):
  """The file as it is shipped, smaller in every way."""
  data = write_collection(tmp_path / 'data')
  lines = [
    json.dumps({'_id': row['_id'], 'queries': [row['title'], row['_id']]})
    for row in map(json.loads, (data / 'corpus.jsonl').read_text().splitlines())
  ]
  (tmp_path / 'pseudo.jsonl').write_text('\n'.join(lines))
  run = tmp_path / 'run'
  configuration.parse(
    [f'gin/recipes/{name}.gin'],
    [
      f'RUN_DIR={run}',
      f'DATA_DIR={data}',
      f'PSEUDO_QUERIES={tmp_path / "pseudo.jsonl"}',
      *MINIATURE,
    ],
  )
  settings = configuration.build(run_settings.RunSettings)
  # Here, not in a process of its own, which would import TensorFlow again.
  preparation = dataclasses.replace(settings.preparation, data_dir=str(data))
  prepared(preparation, tmp_path / 'made')
  # By way of a bucket, as to hosts that share no file system.
  cloud_folders.upload(tmp_path / 'made', BUCKET, print)
  settings = dataclasses.replace(
    settings,
    preparation=dataclasses.replace(settings.preparation, prepared_at=BUCKET),
  )
  train.train(settings, run)
  index_corpus.index_run(run)
  evaluate(run)
  results = json.loads((run / 'results.json').read_text())
  assert (results['documents'], results['queries']) == (40, 40)
  systems = {row['name']: row for row in results['systems']}
  assert systems.keys() == {'BM25', 'exact dense', 'gr_jax'}
  found = run_folder.prepared_examples(settings, run).manifest
  assert found == PreparedData(tmp_path / 'made').manifest
  (data / 'queries.jsonl').write_bytes(
    (data / 'queries.jsonl').read_bytes().replace(b'which', b'what')
  )
  with pytest.raises(UserError, match='prepared from other texts or settings'):
    run_folder.prepared_examples(settings, run)
  # A quarter of the documents, as asked.
  assert 0 < systems['gr_jax']['documents_scored_per_query'] <= 10
  assert systems['gr_jax']['R@10'] > 0
