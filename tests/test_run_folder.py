"""What a run folder binds, and how texts become vectors once."""

import dataclasses
import types

import numpy as np
import prepared_by_hand
import pytest

from gr_jax import run_folder, run_settings, run_texts
from gr_jax.data import cloud_folders
from gr_jax.data.loader import LoaderSettings
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.training import initial
from gr_jax.training.mesh import MeshSettings
from gr_jax.training.state import TrainingSettings
from gr_jax.types import UserError

ENCODER = T5Config(
  vocab_size=20,
  emb_dim=4,
  num_heads=1,
  head_dim=4,
  num_encoder_layers=1,
  num_decoder_layers=0,
  mlp_dim=4,
)


class Source:
  """Examples of one kind, two for each of `documents`."""

  def __init__(self, *documents):
    self.document_indices = np.repeat(np.int32(documents), 2)

  def __len__(self):
    return len(self.document_indices)

  def query_tokens(self, indices):
    return [np.int32([1 + self.document_indices[i], 2]) for i in indices]


def prepared(**sources):
  return types.SimpleNamespace(
    directory='prepared',
    document_ids=['a', 'b', 'c'],
    document_length=3,
    query_length=2,
    document_tokens=lambda indices: [np.int32([i + 1, 3, 4]) for i in indices],
    sources=sources,
    part_sha256=lambda part: part,
  )


def run(encoder=ENCODER, rates=None, **changes):
  return run_settings.RunSettings(
    run_dir='run',
    model=RetrieverConfig(encoder=encoder, width=4),
    loader=LoaderSettings(rates=rates or {'labelled': 1.0}),
    **changes,
  )


def texts(settings, folder, examples):
  model = Retriever(settings.model)
  params, _, _ = initial.init_params(model, settings.seed, documents=3)
  hashes = {'vocabulary': 'v', 'encoder_weights': 'w', 'examples': 'e'}
  return run_texts.Texts(
    settings, folder, model, params, examples, hashes
  ), params


def test_vectors_of_another_encoder_are_made_anew(tmp_path):
  """The same weights; the activation is read off the configuration alone."""
  examples = prepared(labelled=Source(0))
  first, _ = texts(run(), tmp_path, examples)
  before = np.array(first.frozen.documents)
  again, _ = texts(run(), tmp_path, examples)
  np.testing.assert_array_equal(again.frozen.documents, before)
  other = dataclasses.replace(ENCODER, mlp_activations=('relu', 'linear'))
  changed, _ = texts(run(other), tmp_path, examples)
  assert not np.allclose(changed.frozen.documents, before)


@pytest.mark.parametrize(
  'rates, trained, documents',
  [
    (('labelled', 'pseudo', 'extractive'), False, [0, 0, 1, 1, 2, 2]),
    (('labelled', 'pseudo', 'extractive'), True, [0, 0, 1, 1, 2, 2]),
    (('pseudo', 'spans'), False, [1, 1, 2, 2]),
    (('extractive', 'spans'), False, [1, 1]),
    (('extractive', 'spans'), True, [1, 1]),
    (('spans', 'document'), False, [2, 2]),
    (('document',), False, []),
  ],
)
def test_queries_that_codes_start_from(tmp_path, rates, trained, documents):
  """Those that are trained on: real before generated before extracted."""
  examples = prepared(
    labelled=Source(0),
    pseudo=Source(1, 2),
    extractive=Source(1),
    spans=Source(2),
    document=Source(0, 1, 2),
  )
  settings = run(
    rates=dict.fromkeys(rates, 1.0),
    training=TrainingSettings(train_encoder=trained),
  )
  opened, params = texts(settings, tmp_path, examples)
  vectors, found = opened.training_queries(params)
  assert found.tolist() == documents
  # A source's queries depend on their documents alone: each pair is alike.
  np.testing.assert_allclose(vectors[::2], vectors[1::2], atol=1e-6)
  assert len(vectors) == len(documents)


def trained(folder, settings):
  """A run folder that has a checkpoint, as far as settings can tell."""
  run_folder.keep_settings(settings, folder, '')
  (folder / 'checkpoints' / 'step_00000001').mkdir(parents=True)


def test_what_may_change_between_a_run_and_its_continuation(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'linked').symlink_to(tmp_path / 'data')
  trained(tmp_path / 'run', run(data_dir='data'))
  for data_dir in ('data', './data', 'linked', str(tmp_path / 'data')):
    changed = run(
      data_dir=data_dir,
      cache_dir='elsewhere',
      mesh=MeshSettings(data=1),
      search=SearchSettings(beams=3),
      preparation=PreparationSettings(
        runner='beam', task_cache='cache', prepared_at='gs://bucket/folder'
      ),
      training=TrainingSettings(
        log_every=1, evaluate_every=7, checkpoint_every=9, keep_checkpoints=1
      ),
    )
    run_folder.check_settings(changed, tmp_path / 'run')


@pytest.mark.parametrize(
  'changes, said',
  [
    ({'data_dir': 'other'}, r'another data_dir \(was .*data.*, is .*other'),
    ({'seed': 3}, r'another seed \(was 0, is 3\)'),
    (
      {'training': TrainingSettings(steps=7)},
      r'another training \(steps was 900, is 7\)',
    ),
    (
      {'encoder': dataclasses.replace(ENCODER, head_dim=8)},
      r'another model \(head_dim was 4, is 8\)',
    ),
  ],
)
def test_what_checkpoints_bind(tmp_path, changes, said):
  trained(tmp_path / 'run', run(data_dir='data'))
  changed = run(**{'data_dir': 'data', **changes})
  with pytest.raises(UserError, match=said):
    run_folder.check_settings(changed, tmp_path / 'run')


def test_collections_in_one_cache_do_not_meet(tmp_path):
  places = [
    run_settings.collection_arguments(
      run(data_dir=name, cache_dir=str(tmp_path)), tmp_path / 'run'
    )[0]
    for name in ('python_docs', 'ir_datasets:zoo', 'ir_datasets:zoo/heap')
  ]
  assert len(set(places)) == 3
  assert not {parent for place in places for parent in place.parents} & {
    *places
  }


def test_each_process_checks_the_copy_that_it_has_fetched(
  tmp_path, monkeypatch
):
  (tmp_path / 'made').mkdir()
  made = prepared_by_hand.write_prepared(tmp_path / 'made')
  url = 'memory://checked'
  cloud_folders.upload(made, url, print)
  settings = run(
    data_dir='none',
    cache_dir=str(tmp_path / 'cache'),
    preparation=PreparationSettings(prepared_at=url),
  )
  folder = run_settings.cache_dir(settings, tmp_path) / 'prepared'
  cloud_folders.fetch(url, folder, print)
  path = folder / 'examples-spans-00000.array_record'
  damaged = bytearray(path.read_bytes())
  damaged[-1] ^= 1
  path.write_bytes(damaged)
  # As in another than process 0.
  monkeypatch.setattr(run_folder.processes, 'first', lambda action: None)
  with pytest.raises(UserError, match='array_record: damaged'):
    run_folder.prepared_examples(settings, tmp_path)
