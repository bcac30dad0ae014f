"""A prepared folder without preparation, and what tells batches apart."""

import hashlib
import json

import numpy as np

from gr_jax.checksums import file_sha256
from gr_jax.data import prepared, shard_files
from gr_jax.data.preparation_settings import FORMAT

SIZES = {'labelled': 40, 'spans': 90, 'pseudo': 0}
DOCUMENTS = 30


def digest(batch):
  """A hash of all arrays of a batch."""
  joined = b''.join(batch[name].tobytes() for name in sorted(batch))
  return hashlib.sha256(joined).hexdigest()


def write_prepared(path):
  """Fills a folder, in two shards of documents; returns it."""
  rng = np.random.default_rng(0)
  (path / 'document_ids.txt').write_text(
    ''.join(f'd{i}\n' for i in range(DOCUMENTS))
  )
  shards = []
  for number, part in enumerate(np.split(np.arange(DOCUMENTS), [20])):
    shards.append(f'documents-{number:05d}.array_record')
    shard_files.write_shard(
      path / shards[-1],
      [shard_files.encode_tokens(range(1, 2 + i % 9)) for i in part],
    )
  sources = {}
  for name, size in SIZES.items():
    owners = rng.integers(0, DOCUMENTS, size).astype(np.int32)
    np.save(path / prepared.document_indices_file(name), owners)
    shard = f'examples-{name}-00000.array_record'
    examples = [
      shard_files.Example(np.arange(1, 2 + i % 6), int(owner), f'q{i}é')
      for i, owner in enumerate(owners)
    ]
    shard_files.write_shard(
      path / shard, map(shard_files.encode_example, examples)
    )
    sources[name] = {'count': size, 'shards': [shard]}
  files = {
    file.name: {'bytes': file.stat().st_size, 'sha256': file_sha256(file)}
    for file in path.iterdir()
  }
  manifest = {
    'format': FORMAT,
    'settings': {'query_length': 8, 'document_length': 12},
    'documents': {'count': DOCUMENTS, 'shards': shards},
    'sources': sources,
    'files': files,
  }
  (path / 'manifest.json').write_text(json.dumps(manifest))
  return path
