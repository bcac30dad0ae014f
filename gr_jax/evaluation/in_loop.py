"""Evaluation while training: index the corpus as it is now, search dev."""

import importlib.util
import pathlib

from gr_jax.data.collection import Collection
from gr_jax.evaluation.generative import Generative
from gr_jax.evaluation.identifiers import identifier_statistics
from gr_jax.retrieval.building import build_index
from gr_jax.retrieval.searcher import Searcher
from gr_jax.types import UserError


def dev_questions(
  evaluate_every: int, folder: pathlib.Path, max_bad_records: int
):
  """What the loop asks, read before anything takes long.

  Args:
    evaluate_every: TrainingSettings.evaluate_every.
    folder: of the collection that is trained on.
    max_bad_records: as Collection's.

  Returns:
    judging.Questions, None for nothing.
  """
  if not evaluate_every:
    return None
  if importlib.util.find_spec('ir_measures') is None:
    raise UserError(
      'TrainingSettings.evaluate_every needs ir_measures: pip install '
      "'gr_jax[baselines]', or set it to 0"
    )
  # Training needs no ir_measures.
  from gr_jax.evaluation import judging

  return judging.questions(Collection(folder, max_bad_records), 'dev')


def dev_hooks(model, settings, asked, texts):
  """What the training loop calls every `evaluate_every` steps.

  Args:
    model: Retriever.
    settings: of the run.
    asked: from `dev_questions`.
    texts: run_texts.Texts.

  Returns:
    (step, state) -> {'dev/R@10': ..., 'dev/uniqueness': ...}, as a tuple.
  """
  if asked is None:
    return ()
  from gr_jax.evaluation import protocol

  blank = [''] * len(texts.prepared.document_ids)

  def hook(step, state):
    del step
    params = state.all_params()
    index = build_index(
      model,
      params,
      texts.documents(params),
      settings.search.vector_type,
      texts.prepared.document_ids,
      blank,
      blank,
    )
    searcher = Searcher(
      index,
      model,
      params,
      texts.prepared.vocabulary(),
      texts.prepared.query_length,
      settings.search,
    )
    row = protocol.measure(
      'gr_jax', Generative(searcher), asked.queries, asked.judgements, 256
    )
    space = identifier_statistics(index.codes_NL, index.trie.code_sizes)
    return {
      **{f'dev/{name}': value for name, value in row.scores.means().items()},
      'dev/uniqueness': space.uniqueness,
      'dev/sequence_entropy': space.sequence_entropy,
    }

  return (hook,)
