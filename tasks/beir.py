"""Tasks on any folder in the BEIR layout: one for each kind of query.

A folder is known only at run time, so that Tasks are made by a function:

  tasks = beir_tasks(make_plan(settings, ids_path), vocabulary)
  register('squadshifts', tasks)
  seqio.get_mixture_or_task('squadshifts_labelled')
"""

import dataclasses
from collections.abc import Mapping

import seqio

from gr_jax.data.seqio_features import (
  SeqioVocabulary,
  ShardedTextSource,
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
      writes each document once instead. The texts are then held in memory.

  Returns:
    Tasks by source name; features 'query' and 'document', and 'query_id',
    'document_id' and 'document_index' passed through.
  """
  reader = TextExamples(plan)
  texts = list(plan.document_texts()) if with_documents else None
  return {
    kind: _task(plan, kind, reader, vocabulary, texts)
    for kind in (CORPUS, *plan.settings.sources)
  }


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


def _task(
  plan: Plan,
  kind: str,
  reader: TextExamples,
  vocabulary: Vocabulary,
  texts: list[str] | None,
) -> seqio.Task:
  def examples(split, shard):
    del split  # queries of other splits are searched with, not trained on
    for example in reader.examples(kind, shard):
      if texts is not None and kind != CORPUS:
        document = texts[example.document_index]
        example = dataclasses.replace(example, document=document)
      yield example

  # The end marker is the vocabulary's own business, like cutting.
  feature = seqio.Feature(SeqioVocabulary(vocabulary), add_eos=False)
  names = ['query'] if texts is None else ['query', 'document']
  if kind == CORPUS:
    names = ['document']
  return seqio.Task(
    f'gr_jax_{kind}',
    source=ShardedTextSource(examples, {TRAIN: plan.shards(kind)}),
    preprocessors=[tokenize],
    output_features=dict.fromkeys(names, feature),
  )
