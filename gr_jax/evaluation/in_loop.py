"""Evaluation while training: index the corpus as it is now, search dev."""

from gr_jax.evaluation import judging, protocol
from gr_jax.evaluation.generative import Generative
from gr_jax.evaluation.identifiers import identifier_statistics
from gr_jax.retrieval.building import build_index
from gr_jax.retrieval.searcher import Searcher


def dev_hook(model, settings, asked: judging.Questions, texts):
  """A hook of the training loop.

  Args:
    model: Retriever.
    settings: of the run.
    asked: queries and judgements of the dev split.
    texts: run_folder.Texts.

  Returns:
    (step, state) -> {'dev/R@10': ..., 'dev/uniqueness': ...}.
  """
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

  return hook
