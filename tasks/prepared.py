"""Tasks on the collection of a prepared folder, for T5X's gin files.

  from gr_jax.tasks import prepared
  utils.DatasetConfig.mixture_or_task_name = @prepared.training_mixture()
  prepared.training_mixture.directory = 'runs/mine/prepared'

The folder names collection, settings and vocabulary; texts are read and
tokenised again, with the tokens that preparation wrote.
"""

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from gr_jax.tasks.beir import beir_tasks, register, text_task
from gr_jax.tasks.mixtures import register_mixture

from gr_jax.data.collection import Collection
from gr_jax.data.launcher_features import (
  DocumentIds,
  for_launcher,
  with_lists,
)
from gr_jax.data.loader_checks import used_rates
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.data.prepared import DOCUMENT_IDS, PreparedData, is_current
from gr_jax.data.ranked_lists import ListSettings, lists_of
from gr_jax.data.seqio_features import ORDER_BITS, ShardedTextSource
from gr_jax.data.text_examples import Plan, TextExample, make_plan
from gr_jax.evaluation.rankings import Rankings
from gr_jax.ranking.joining import joined_rankings
from gr_jax.types import NO_DOC, Judgement, UserError, document_text

# That of the Tasks which are cached offline.
_NAME = 'gr_jax'


def training_mixture(
  directory: str,
  rates: Mapping[str, float],
  lists: ListSettings | None = None,
) -> str:
  """Registers the sources of training queries as one mixture.

  Args:
    directory: that preparation wrote.
    rates: how often each source is drawn from, LoaderSettings.rates.
    lists: rankings of a teacher that every example comes with: 'list_index'
      int32 [P, M] and 'list_scores' float32 [P, M], as DrawnLists draws them,
      anew in each epoch; NO_DOC in the lists of a query without a ranking. A
      launcher reads them where its feature lengths name both, with P. None, or
      no path, for none.

  Returns:
    The name of the mixture, 'gr_jax_mixture'.
  """
  opened, plan = _opened(directory)
  ids = DocumentIds(tuple(opened.document_ids))
  made = beir_tasks(plan, opened.vocabulary())
  tasks = {
    source: for_launcher(made[source], ids) for source in plan.settings.sources
  }
  used = used_rates(opened, rates)
  if lists is not None and lists.path:
    tasks = _with_lists(tasks, lists, opened, plan, used)
  names = register(_NAME, tasks)
  by_source = {name.removeprefix(f'{_NAME}_'): name for name in names}
  mixture = register_mixture(f'{_NAME}_mixture', by_source, used)
  return mixture.name


def _with_lists(tasks, settings, opened, plan, names):
  """The same Tasks, all with lists, of which some may be empty."""
  joined = joined_rankings(settings, opened, names)
  shape = settings.lists, settings.size
  return {
    source: with_lists(
      task,
      functools.partial(
        _draw, joined.get(source), _starts(opened, plan, source), settings
      ),
      shape,
    )
    for source, task in tasks.items()
  }


def _starts(opened, plan, source) -> np.ndarray:
  """The number of the first example of each shard of a source."""
  starts = np.arange(plan.shards(source)) * plan.settings.documents_per_shard
  if source in dict(plan.counts):
    return starts
  # Those of a shard are of the documents of a shard.
  return np.searchsorted(opened.sources[source].document_indices, starts)


def _draw(kept, starts, settings, order, own, seed):
  """Documents and scores of the lists of the example of that order."""
  shard, place = divmod(int(order), 1 << ORDER_BITS)
  rng = np.random.default_rng(seed.astype(np.uint64))
  random_PC = rng.random((settings.lists, settings.depth))
  return lists_of(kept, starts[shard] + place, own, random_PC, settings)


def query_task(directory: str, split: str) -> str:
  """Registers the judged queries of a split as a Task with retrieval metrics.

  Args:
    directory: that preparation wrote.
    split: of the qrels; the Task has one split of that name.

  Returns:
    The name of the Task, 'gr_jax_SPLIT'. Its metrics are those of
    gr_jax.evaluation.metrics, of predicted numbers of documents, best first.
  """
  opened, plan = _opened(directory)
  judgements = plan.collection().judgements(split)
  examples = _examples(plan.collection(), opened, judgements)
  if not examples:
    raise UserError(
      f'{plan.settings.data_dir}: no query of {split!r} has a relevant document'
    )
  task = text_task(
    f'{_NAME}_{split}',
    ShardedTextSource(lambda split, shard: examples, {split: 1}),
    plan.settings,
    opened.vocabulary(),
    ('query', 'document'),
  )
  task = for_launcher(task, DocumentIds(tuple(opened.document_ids)))
  task = task.replace(
    preprocessors=[_keep_query, *task.preprocessors],
    postprocess_fn=_postprocess,
    metric_fns=[retrieval_metrics(judgements, opened.document_ids)],
  )
  return register(_NAME, {split: task})[0]


def retrieval_metrics(
  judgements: Sequence[Judgement], document_ids: Sequence[str]
) -> Callable[..., Mapping[str, float]]:
  """A metric function of seqio: R@1, R@10, R@100, RR@10 and nDCG@10.

  Args:
    judgements: of the queries asked.
    document_ids: of the collection.
  """
  numbers = {name: number for number, name in enumerate(document_ids)}

  def retrieval(targets, predictions):
    # Training without evaluation needs no ir_measures.
    from gr_jax.evaluation import metrics

    rows_BC = np.full(
      (len(targets), max(map(len, predictions), default=1) or 1), NO_DOC
    )
    for row, found in enumerate(predictions):
      rows_BC[row, : len(found)] = [numbers[name] for name in found]
    places_BC = np.broadcast_to(-np.arange(rows_BC.shape[1]), rows_BC.shape)
    nothing_B = np.zeros(len(targets), int)
    rankings = Rankings(rows_BC, places_BC, nothing_B, nothing_B)
    scores = metrics.score(rankings, targets, document_ids, judgements)
    return scores.means()

  return retrieval


def _keep_query(dataset):
  """Keeps what T5X shows beside its predictions: features of such names."""
  return dataset.map(
    lambda example: (
      example
      | {
        'query_pretokenized': example['query'],
        'query_id_pretokenized': example['query_id'],
      }
    )
  )


def _postprocess(value, example, is_target):
  """Ids of queries as targets; predictions are ids of documents already."""
  return example['query_id'].decode() if is_target else value


@functools.lru_cache(maxsize=1)
def _opened(directory: str) -> tuple[PreparedData, Plan]:
  """A prepared folder, and the plan of the collection that it came from."""
  opened = PreparedData(directory)
  settings = PreparationSettings(**opened.manifest['settings'])
  if not is_current(settings, directory):
    raise UserError(
      f'{settings.data_dir} is not what {directory} was prepared from: prepare '
      'it again'
    )
  with tempfile.TemporaryDirectory(prefix='gr_jax_') as scratch:
    plan = make_plan(settings, pathlib.Path(scratch) / DOCUMENT_IDS)
  path = pathlib.Path(directory).absolute() / DOCUMENT_IDS
  return opened, dataclasses.replace(plan, document_ids_path=path)


def _examples(
  collection: Collection,
  opened: PreparedData,
  judgements: Sequence[Judgement],
) -> list[TextExample]:
  """One example a query, with the first of its relevant documents."""
  relevant = {}
  for judgement in judgements:
    if judgement.relevance > 0:
      relevant.setdefault(judgement.query_id, judgement.document_id)
  wanted = set(relevant.values())
  texts = {
    document.id: document_text(document)
    for document in collection.documents()
    if document.id in wanted
  }
  numbers = {name: number for number, name in enumerate(opened.document_ids)}
  return [
    TextExample(
      query.id,
      query.text,
      relevant[query.id],
      numbers[relevant[query.id]],
      texts[relevant[query.id]],
    )
    for query in collection.queries()
    if query.id in relevant
  ]
