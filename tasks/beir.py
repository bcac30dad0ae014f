"""Tasks on any folder in the BEIR layout: one for each kind of query.

A folder is known only at run time, so that Tasks are made by a function:

  tasks = beir_tasks(make_plan(settings, ids_path), vocabulary)
  register('squadshifts', tasks)
  seqio.get_mixture_or_task('squadshifts_labelled')
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import seqio

from gr_jax.data.plan_files import inputs_stamp, read_plan
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.data.seqio_features import (
  SeqioVocabulary,
  ShardedTextSource,
  cut,
  tokenize,
)
from gr_jax.data.text_examples import CORPUS, Plan, TextExamples
from gr_jax.data.vocabularies import Vocabulary

TRAIN = 'train'


def beir_tasks(
  plan: Plan, vocabulary: Vocabulary, with_documents: bool = True
) -> dict[str, seqio.Task]:
  """Makes a Task for each source of the settings, and one for the corpus.

  Args:
    plan: settings and shards of a collection.
    vocabulary: for queries and documents.
    with_documents: whether each query comes with the tokens of its document,
      as a launcher that trains on the Task itself needs it; preparation
      writes each document once instead. The texts are then held in memory by
      the processes that read examples.

  Returns:
    Tasks by source name, which can be cached offline; features 'query' and
    'document', and 'query_id', 'document_id', 'document_index', and 'order'
    and 'inputs' (see ShardedTextSource) passed through.
  """
  reader = TextExamples(plan)
  # Late: whoever makes the Tasks of a large corpus may read from a cache.
  texts = functools.cache(lambda: list(plan.document_texts()))
  stamp = inputs_stamp(plan, vocabulary)
  tasks = {}
  for kind in (CORPUS, *plan.settings.sources):
    pairs = with_documents and kind != CORPUS
    source = ShardedTextSource(
      _examples(kind, reader, texts if pairs else None),
      {TRAIN: plan.shards(kind)},
      stamp,
    )
    names = ['document'] if kind == CORPUS else ['query']
    if pairs:
      names.append('document')
    tasks[kind] = text_task(
      f'gr_jax_{kind}', source, plan.settings, vocabulary, names
    )
  return tasks


def text_task(
  name: str,
  source: seqio.DataSource,
  settings: PreparationSettings,
  vocabulary: Vocabulary,
  features: Sequence[str],
) -> seqio.Task:
  """A Task that tokenises texts, and can be cached after that.

  Args:
    name: of the Task.
    source: of examples with the strings 'query' and 'document'.
    settings: of the lengths.
    vocabulary: for queries and documents.
    features: 'query', 'document' or both.
  """
  # The end marker is the vocabulary's own business, like cutting.
  feature = seqio.Feature(SeqioVocabulary(vocabulary), add_eos=False)
  lengths = {
    'query': settings.query_length,
    'document': settings.document_length,
  }
  return seqio.Task(
    name,
    source=source,
    preprocessors=[
      functools.partial(tokenize, lengths=lengths),
      seqio.CacheDatasetPlaceholder(),
      functools.partial(cut, lengths=lengths),
    ],
    output_features=dict.fromkeys(features, feature),
  )


def register(name: str, tasks: Mapping[str, seqio.Task]) -> list[str]:
  """Registers Tasks as NAME_SOURCE, in place of earlier ones of that name.

  Returns:
    The registered names.
  """
  names = []
  for kind, task in tasks.items():
    full = f'{name}_{kind}'
    if full in seqio.TaskRegistry.names():
      seqio.TaskRegistry.remove(full)
    seqio.TaskRegistry.add_provider(full, task.replace(name=full))
    names.append(full)
  return names


def register_plan(
  directory: str | pathlib.Path, name: str = 'gr_jax'
) -> list[str]:
  """Registers the Tasks of a planned collection as NAME_SOURCE.

  Args:
    directory: that `gr_jax.prepare --plan` wrote.
    name: before the name of each source. Preparation looks for caches of
      'gr_jax'.

  Returns:
    The registered names.
  """
  plan, vocabulary, with_documents = read_plan(directory)
  return register(name, beir_tasks(plan, vocabulary, with_documents))


def _examples(
  kind: str, reader: TextExamples, texts: Callable[[], list[str]] | None
):
  """A reader of shards of a kind, with the documents' texts when given."""

  def examples(split, shard):
    del split  # queries of other splits are searched with, not trained on
    for example in reader.examples(kind, shard):
      if texts is not None:
        document = texts()[example.document_index]
        example = dataclasses.replace(example, document=document)
      yield example

  return examples
