"""A TFDS builder for folders in the BEIR layout, and Tasks on what it writes.

  folders = write_tfds('CORPUS', 'TFDS')
  tasks = tfds_tasks(folders, settings, vocabulary)

The records are ArrayRecord: any of them is read at once, without TensorFlow
where `tfds.builder_from_directory(FOLDER).as_data_source()` reads them.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import seqio
import tensorflow_datasets as tfds
from gr_jax.tasks.beir import TRAIN, text_task

from gr_jax.data.collection import Collection
from gr_jax.data.plan_files import stamp
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.data.seqio_features import ShardedTextSource
from gr_jax.data.text_examples import CORPUS, TextExample
from gr_jax.data.vocabularies import Vocabulary
from gr_jax.types import Document, UserError, document_text

PARTS = ('corpus', 'queries', 'qrels')
_FEATURES = {
  'corpus': {
    'id': tfds.features.Text(),
    'title': tfds.features.Text(),
    'text': tfds.features.Text(),
    'metadata': tfds.features.Text(),  # JSON
  },
  'queries': {
    'id': tfds.features.Text(),
    'text': tfds.features.Text(),
    'metadata': tfds.features.Text(),
  },
  # With the texts, so that workers of a Task need nothing else.
  'qrels': {
    'query_id': tfds.features.Text(),
    'document_id': tfds.features.Text(),
    'relevance': np.int32,
    'query': tfds.features.Text(),
    'document': tfds.features.Text(),  # as encoders read it
    'document_index': np.int32,  # in the order of the corpus
  },
}


@dataclasses.dataclass(eq=False)
class BeirConfig(tfds.core.BuilderConfig):
  """One part of a folder, of `PARTS`."""

  folder: str = ''
  part: str = 'corpus'


class BeirFolder(tfds.core.GeneratorBasedBuilder):
  """Documents, queries or judgements of a folder, in the order of its files.

  The part 'corpus' has the split 'corpus', 'queries' the split 'queries', and
  'qrels' the splits that the folder judges.
  """

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    config = self.builder_config
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'The {config.part} of a collection in the BEIR layout.',
      features=tfds.features.FeaturesDict(_FEATURES[config.part]),
      # Identifiers count documents by their place.
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(
        collection_sha256=self._collection.fingerprint()
      ),
    )

  @functools.cached_property
  def _collection(self) -> Collection:
    return Collection(self.builder_config.folder)

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    part = self.builder_config.part
    if part == 'corpus':
      return {'corpus': self._documents()}
    if part == 'queries':
      return {'queries': self._queries()}
    return {name: self._judged(name) for name in self._collection.splits()}

  def _generate_examples(self):
    raise NotImplementedError('each split has a generator of its own')

  def _documents(self):
    for number, document in enumerate(self._collection.documents()):
      yield (
        number,
        {
          'id': document.id,
          'title': document.title,
          'text': document.text,
          'metadata': _json(document.metadata),
        },
      )

  def _queries(self):
    for number, query in enumerate(self._collection.queries()):
      metadata = _json(query.metadata)
      yield (
        number,
        {'id': query.id, 'text': query.text, 'metadata': metadata},
      )

  def _judged(self, split: str):
    judgements = self._collection.judgements(split)
    wanted = {judgement.document_id for judgement in judgements}
    documents = {
      document.id: (index, document_text(document))
      for index, document in enumerate(self._collection.documents())
      if document.id in wanted
    }
    queries = {query.id: query.text for query in self._collection.queries()}
    for number, judgement in enumerate(judgements):
      index, text = documents[judgement.document_id]
      yield (
        number,
        {
          'query_id': judgement.query_id,
          'document_id': judgement.document_id,
          'relevance': judgement.relevance,
          'query': queries[judgement.query_id],
          'document': text,
          'document_index': index,
        },
      )


def _json(metadata: Mapping[str, object]) -> str:
  return json.dumps(metadata, ensure_ascii=False, sort_keys=True)


def write_tfds(
  folder: str | pathlib.Path, data_dir: str, name: str = ''
) -> dict[str, str]:
  """Writes all parts of a folder as ArrayRecord, where they are not yet.

  Args:
    folder: in the BEIR layout; a bad record is refused.
    data_dir: of TFDS; a gs:// path is TFDS's own business.
    name: of the collection; the folder's when empty.

  Returns:
    {part: folder of its records}, for `tfds.builder_from_directory`.

  Raises:
    UserError: for bad input, or when another collection of that name is there.
  """
  folder = pathlib.Path(folder)
  fingerprint = Collection(folder).fingerprint()
  written = {}
  for part in PARTS:
    config = BeirConfig(
      name=f'{name or folder.name}_{part}', folder=str(folder), part=part
    )
    builder = BeirFolder(
      config=config, data_dir=data_dir, file_format='array_record'
    )
    builder.download_and_prepare()
    there = builder.info.metadata['collection_sha256']
    if there != fingerprint:
      raise UserError(
        f'{builder.data_path}: holds the collection {there[:12]}, {folder} is '
        f'{fingerprint[:12]}: delete it, or choose another name'
      )
    written[part] = str(builder.data_path)
  return written


def tfds_tasks(
  folders: Mapping[str, str],
  settings: PreparationSettings,
  vocabulary: Vocabulary,
) -> dict[str, seqio.Task]:
  """Tasks on a written collection: its corpus and its labelled queries.

  They give what `tasks.beir.beir_tasks` gives of the folder, queries with
  their documents, and can be cached offline.

  Args:
    folders: that `write_tfds` returned.
    settings: of split, lengths and shards.
    vocabulary: for queries and documents.

  Returns:
    The Tasks 'corpus' and 'labelled'.
  """
  size = settings.documents_per_shard
  tasks = {}
  for kind, part, split, features in (
    (CORPUS, 'corpus', 'corpus', ('document',)),
    ('labelled', 'qrels', settings.train_split, ('query', 'document')),
  ):
    builder = tfds.builder_from_directory(folders[part])
    if split not in builder.info.splits:
      raise UserError(
        f'{folders[part]}: no split {split!r}; there are '
        f'{sorted(builder.info.splits)}'
      )
    read = _read_documents if kind == CORPUS else _read_positive
    rows = functools.cache(
      functools.partial(builder.as_data_source, split=split)
    )
    count = builder.info.splits[split].num_examples
    source = ShardedTextSource(
      functools.partial(_examples, rows, read, size),
      {TRAIN: max(1, -(-count // size))},
      _stamp(builder.info.metadata, settings, vocabulary),
    )
    tasks[kind] = text_task(
      f'gr_jax_tfds_{kind}', source, settings, vocabulary, features
    )
  return tasks


def _examples(rows, read, size: int, split: str, shard: int):
  del split  # the Task has one, whatever that of the records is called
  found = rows()
  stop = min(len(found), (shard + 1) * size)
  return read(found, range(shard * size, stop))


def _read_documents(rows, numbers: range) -> Iterator[TextExample]:
  for number in numbers:
    row = rows[number]
    name, title, text = (row[key].decode() for key in ('id', 'title', 'text'))
    document = Document(name, title, text)
    yield TextExample('', '', name, number, document_text(document))


def _read_positive(rows, numbers: range) -> Iterator[TextExample]:
  for number in numbers:
    row = rows[number]
    if row['relevance'] > 0:
      yield TextExample(
        row['query_id'].decode(),
        row['query'].decode(),
        row['document_id'].decode(),
        int(row['document_index']),
        row['document'].decode(),
      )


def _stamp(metadata, settings, vocabulary: Vocabulary) -> int:
  """A number for all that the examples are made from."""
  inputs = [
    metadata['collection_sha256'],
    vocabulary.sha256,
    settings.train_split,
    settings.query_length,
    settings.document_length,
  ]
  return stamp(json.dumps(inputs))
