"""A door for tests: one of several processes, in what its first word names."""

import argparse
import pathlib
import time
import types
from unittest import mock

import numpy as np

from gr_jax import entry, processes
from gr_jax.evaluation.rankings import Rankings
from gr_jax.evaluation.shared_answers import ask_in_shards, joined_answers
from gr_jax.retrieval.shards import encode_shards, join
from gr_jax.types import UserError

TEXTS = [
  np.random.default_rng(row).integers(1, 50, 1 + row % 7).astype(np.int32)
  for row in range(50)
]
ROWS = 8
DOCUMENTS = 16


def encode_texts(folder, die_at=None):
  """Encodes TEXTS in shards; returns the vectors and which rows were read.

  Args:
    folder: of the shards.
    die_at: row whose reading kills the process, as memory running out would.
  """
  import jax

  read = []

  def read_tokens(rows):
    if die_at in rows:
      jax.block_until_ready(jax.numpy.zeros(1))
      import os
      import signal

      os.kill(os.getpid(), signal.SIGKILL)
    read.extend(rows.tolist())
    return [TEXTS[row] for row in rows]

  # A result whose last bits would show another order of summation.
  encode = jax.jit(lambda x_BS: jax.numpy.sin(x_BS[..., None] * 0.7).mean(1))
  paths = encode_shards(
    folder, encode, read_tokens, len(TEXTS), 7, 'inputs', rows=ROWS
  )
  return paths, read


QUERIES = ['a' * size for size in range(1, 11)]


class Lengths:
  """Ranks documents by how near their number is to a query's length."""

  document_ids = tuple(map(str, range(DOCUMENTS)))

  def __init__(self):
    self.asked = []

  def search(self, texts, k):
    self.asked.extend(texts)
    sizes_B = np.array([len(text) for text in texts])
    scores_BN = -np.abs(np.arange(DOCUMENTS) - sizes_B[:, None])
    rows_BC = np.argsort(-scores_BN, axis=1, kind='stable')[:, :k]
    return Rankings(
      rows_BC,
      np.take_along_axis(scores_BN, rows_BC, axis=1).astype(np.float32),
      documents_scored_B=sizes_B,
      code_scores_B=sizes_B,
    )


def indexed(folder):
  """Gives identifiers to PREPARED in shards; returns them, and who was read.

  Args:
    folder: of the run.
  """
  import jax

  from gr_jax import index_corpus, run_texts
  from gr_jax.models.retriever import Retriever
  from gr_jax.retrieval import shards
  from gr_jax.training import initial

  read = []

  def document_tokens(rows):
    read.extend(rows.tolist())
    return PREPARED.document_tokens(rows)

  prepared = types.SimpleNamespace(**vars(PREPARED))
  prepared.document_tokens = document_tokens
  settings = tiny_settings(folder)
  model = Retriever(settings.model)
  params, _, _ = initial.init_params(model, 0, DOCUMENTS)
  params = jax.device_get(params)
  hashes = {'vocabulary': 'v', 'encoder_weights': '', 'examples': 'e'}
  with (
    mock.patch.dict(shards._ROWS, cpu=4),
    index_corpus._on_all_devices(params) as copied,
  ):
    texts = run_texts.Texts(settings, folder, model, copied, prepared, hashes)
    paths = texts.indexed(copied, 'checkpoint')
    codes_NWL, costs_NW = texts.candidates(copied)
  return paths, read[:DOCUMENTS], {'codes': codes_NWL, 'costs': costs_NW}


def work_together(folder, flags):
  """Everything that processes do together, and an error of process 0."""
  del flags
  import jax

  index = jax.process_index()
  assert (processes.index(), processes.count()) == (index, 2)
  assert processes.first(lambda: [index, processes.count()]) == [0, 1]
  processes.agree('the same', 'word')
  mesh = jax.make_mesh((jax.device_count(),), ('data',))
  with jax.set_mesh(mesh), processes.local_devices():
    found = jax.jit(lambda x: x + index)(np.ones(2))
    assert found.is_fully_addressable and found[0] == 1 + index
  paths, read = encode_texts(folder / 'shards')
  processes.say(f'{len(paths)} shards')
  (folder / f'read_{index}').write_text(' '.join(map(str, read)))
  processes.first(lambda: join(paths, len(TEXTS), folder / 'vectors.npy'))
  paths, read, candidates = indexed(folder / 'run')
  (folder / f'indexed_{index}').write_text(' '.join(map(str, read)))
  np.savez(folder / f'candidates_{index}.npz', **candidates)
  processes.first(lambda: join(paths, DOCUMENTS, folder / 'index.npy'))
  system = Lengths()
  paths = ask_in_shards(system, QUERIES, 3, 4, folder / 'answers', 'inputs')
  (folder / f'asked_{index}').write_text(' '.join(system.asked))
  found, _ = joined_answers(paths)
  np.savez(folder / f'answers_{index}.npz', **vars(found))

  def refuse():
    raise UserError('the disk is full')

  processes.first(refuse)


def wait_for_each_other(folder, flags):
  """Sums over all processes until one is lost."""
  del flags
  import jax

  mesh = jax.make_mesh((jax.device_count(),), ('data',))
  spread = jax.NamedSharding(mesh, jax.P('data'))
  ones = jax.make_array_from_callback(
    (jax.device_count(),), spread, lambda place: np.ones(1, np.float32)
  )
  total = jax.jit(lambda x: x.sum())
  while True:
    assert float(total(ones)) == jax.device_count()
    (folder / f'alive_{jax.process_index()}').touch()
    time.sleep(0.05)


class Source:
  """Examples of one kind: each document has two queries."""

  def __init__(self):
    self.document_indices = np.repeat(np.arange(DOCUMENTS, dtype=np.int32), 2)

  def __len__(self):
    return len(self.document_indices)

  def query_tokens(self, indices):
    return [np.int32([1 + i % 11, 12 + i % 7]) for i in indices]


PREPARED = types.SimpleNamespace(
  directory='prepared',
  document_ids=[f'd{n}' for n in range(DOCUMENTS)],
  document_length=3,
  query_length=2,
  document_tokens=lambda rows: [np.int32([1 + i % 11, 5, 6]) for i in rows],
  sources={'labelled': Source()},
  hashes=lambda: {'vocabulary': 'v', 'examples': 'e'},
)


def tiny_settings(folder, steps=4, fsdp=1, model=1):
  """Of a run on PREPARED, from text to codes that move; see `train_tiny`."""
  from gr_jax import run_settings
  from gr_jax.data.loader import LoaderSettings
  from gr_jax.indexers.residual import ResidualConfig
  from gr_jax.models.code_decoder import CodeDecoderConfig
  from gr_jax.models.retriever import RetrieverConfig
  from gr_jax.models.t5 import T5Config
  from gr_jax.objectives.weighted_sum import ObjectiveSettings, only
  from gr_jax.training.mesh import MeshSettings
  from gr_jax.training.state import TrainingSettings

  encoder = T5Config(
    vocab_size=20, emb_dim=8, num_heads=2, head_dim=4, num_encoder_layers=1,
    num_decoder_layers=0, mlp_dim=8, dropout_rate=0.1,
  )  # fmt: skip
  return run_settings.RunSettings(
    run_dir=str(folder),
    data_dir='no_folder',
    model=RetrieverConfig(
      encoder=encoder,
      indexer=ResidualConfig(positions=2, codes=4),
      decoder=CodeDecoderConfig(stack=encoder),
      width=8,
    ),
    # Of the whole batch, and of the balance over it; few, to compile fast.
    objective=only(ObjectiveSettings(), 'generation', 'bottleneck', 'density'),
    loader=LoaderSettings(batch_size=8, rates={'labelled': 1.0}),
    mesh=MeshSettings(fsdp=fsdp, model=model),
    training=TrainingSettings(
      steps=steps,
      train_encoder=True,
      dense_fraction=0.0,
      settled_fraction=0.0,
      log_every=1,
      checkpoint_every=2,
      keep_checkpoints=9,
      evaluate_every=0,
    ),
  )


def train_tiny(folder, steps=4, fsdp=1, model=1):
  """Trains on PREPARED.

  Args:
    folder: of the run.
    steps: of it, with a checkpoint at every second.
    fsdp: devices along that axis of the mesh.
    model: devices along that axis.
  """
  from gr_jax import run_folder, train

  run_folder.prepared_examples = lambda *_: PREPARED
  train.train(tiny_settings(folder, steps, fsdp, model), folder)


def main(arguments):
  parser = argparse.ArgumentParser()
  parser.add_argument('what')
  parser.add_argument('folder', type=pathlib.Path)
  for name in ('steps', 'fsdp', 'model'):
    parser.add_argument(f'--{name}', type=int, default=1)
  processes.add_flags(parser)
  flags = parser.parse_args(arguments)
  with processes.joined(flags):
    WHAT[flags.what](flags.folder, flags)


WHAT = {
  'work': work_together,
  'wait': wait_for_each_other,
  'train': lambda folder, flags: train_tiny(
    folder, flags.steps, flags.fsdp, flags.model
  ),
}

if __name__ == '__main__':
  entry.run_main(main)
