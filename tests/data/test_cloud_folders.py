"""Prepared examples on a file system that is not local: fsspec's memory."""

import importlib.util
import json
import pathlib

import fsspec
import numpy as np
import pytest

from gr_jax.checksums import file_sha256
from gr_jax.data import cloud_folders
from gr_jax.data.preparation_settings import FORMAT
from gr_jax.data.prepared import (
  MANIFEST,
  PreparedData,
  document_indices_file,
  manifest_text,
)
from gr_jax.data.shard_files import (
  Example,
  encode_example,
  encode_tokens,
  write_shard,
)
from gr_jax.types import UserError

URL = 'memory://bucket/prepared'
ROOT = '/bucket/prepared'
EXAMPLES = 'examples-labelled-00000.array_record'


@pytest.fixture
def bucket():
  system = fsspec.filesystem('memory')
  system.store.clear()
  yield system
  system.store.clear()


def write_prepared(folder, salt=0):
  """A folder as preparation leaves it: three documents, two queries."""
  folder.mkdir()
  (folder / 'vocabulary').mkdir()
  (folder / 'vocabulary' / 'words.txt').write_text('the dog')
  (folder / 'document_ids.txt').write_text('a\nb\nc\n')
  documents = [encode_tokens([number, salt]) for number in range(3)]
  write_shard(folder / 'documents-00000.array_record', documents[:2])
  write_shard(folder / 'documents-00001.array_record', documents[2:])
  examples = [Example(np.array([7, 8]), n, f'q{n}') for n in (2, 0)]
  write_shard(
    folder / EXAMPLES,
    map(encode_example, examples),
  )
  np.save(folder / document_indices_file('labelled'), np.int32([2, 0]))
  files = {
    path.relative_to(folder).as_posix(): {
      'bytes': path.stat().st_size,
      'sha256': file_sha256(path),
    }
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }
  manifest = {
    'format': FORMAT,
    'settings': {},
    'documents': {'shards': sorted(n for n in files if 'documents-0' in n)},
    'sources': {
      'labelled': {'shards': ['examples-labelled-00000.array_record']}
    },
    'files': files,
  }
  (folder / MANIFEST).write_text(manifest_text(manifest))
  return folder


def contents(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


def fetch(directory):
  copied = []
  cloud_folders.fetch(URL, directory, copied.append)
  return [pathlib.PurePosixPath(line).name for line in copied]


def test_what_is_fetched_is_what_was_uploaded(bucket, tmp_path):
  folder = write_prepared(tmp_path / 'made')
  cloud_folders.upload(folder, URL, lambda line: None)
  copied = fetch(tmp_path / 'cache' / 'prepared')
  assert len(copied) == len(set(copied)) == 6
  assert contents(tmp_path / 'cache' / 'prepared') == contents(folder)
  data = PreparedData(tmp_path / 'cache' / 'prepared')
  data.verify()
  assert data.sources['labelled'].example(0).query_id == 'q2'
  assert [row.tolist() for row in data.document_tokens([2, 0])] == [
    [2, 0], [0, 0]
  ]  # fmt: skip
  # Once: what is there and the same is not copied again.
  assert fetch(tmp_path / 'cache' / 'prepared') == []


def test_changed_files_alone_are_written_again(bucket, tmp_path):
  cloud_folders.upload(write_prepared(tmp_path / 'a'), URL, lambda line: None)
  fetch(tmp_path / 'prepared')
  written = []
  changed = write_prepared(tmp_path / 'b', salt=1)
  cloud_folders.upload(changed, URL, written.append)
  assert [line.rpartition('/')[2] for line in written] == [
    'documents-00000.array_record',
    'documents-00001.array_record',
  ]
  # The host replaces its folder as a whole.
  fetch(tmp_path / 'prepared')
  assert contents(tmp_path / 'prepared') == contents(changed)


def flip(bucket, name):
  """Turns a bit in the middle of a file."""
  content = bytearray(bucket.cat_file(f'{ROOT}/{name}'))
  content[len(content) // 2] ^= 1
  bucket.pipe_file(f'{ROOT}/{name}', bytes(content))


def test_a_flipped_bit_is_named_and_the_copy_goes_on(bucket, tmp_path):
  cloud_folders.upload(write_prepared(tmp_path / 'a'), URL, lambda line: None)
  for name in (MANIFEST, EXAMPLES):
    flip(bucket, name)
    with pytest.raises(UserError, match=f'{name}: damaged'):
      fetch(tmp_path / 'prepared')
    assert not (tmp_path / 'prepared').exists()
    flip(bucket, name)
  # Files that came whole are not copied a second time.
  assert 'document_ids.txt' not in fetch(tmp_path / 'prepared')
  assert contents(tmp_path / 'prepared') == contents(tmp_path / 'a')


def test_an_upload_that_was_not_finished_is_not_read(bucket, tmp_path):
  folder = write_prepared(tmp_path / 'a')
  cloud_folders.upload(folder, URL, lambda line: None)

  def stop(line):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    cloud_folders.upload(write_prepared(tmp_path / 'b', salt=1), URL, stop)
  with pytest.raises(UserError, match='no prepared examples'):
    fetch(tmp_path / 'prepared')


REFUSED = {
  'gs://bucket/x': r"gcsfs.*pip install 'gr_jax\[cloud\]'",
  'nowhere://x': r'expected gs://BUCKET/FOLDER or s3://BUCKET/FOLDER',
  'memory://empty': 'no prepared examples .manifest.json is missing',
}


@pytest.mark.parametrize('url', REFUSED)
def test_what_cannot_be_read_is_one_line(url, bucket, tmp_path):
  if url.startswith('gs:') and importlib.util.find_spec('gcsfs'):
    pytest.skip('gcsfs is installed: this is about machines without it')
  with pytest.raises(UserError, match=REFUSED[url]):
    cloud_folders.fetch(url, tmp_path / 'prepared', print)


@pytest.mark.parametrize('name', ['../evil', '/evil'])
def test_no_name_leads_out_of_the_folder(name, bucket, tmp_path):
  entry = {'bytes': 1, 'sha256': '0' * 64}
  manifest = json.dumps({'files': {name: entry}}).encode()
  bucket.pipe_file(f'{ROOT}/{MANIFEST}', manifest)
  with pytest.raises(UserError, match='leads out of the folder'):
    fetch(tmp_path / 'prepared')
