"""Retrievers that score the documents that a teacher has ranked."""

import flax.struct
import jax
import jax.numpy as jnp

from gr_jax.models.cached_gradients import CachingRetriever
from gr_jax.models.retriever import Retriever, RetrieverOutput
from gr_jax.objectives.distillation import DistillationSettings, RankedLists
from gr_jax.types import NO_DOC


@flax.struct.dataclass
class ListedOutput(RetrieverOutput):
  """What the objectives read of a batch with lists.

  Attributes:
    lists: the decoder's scores of the lists' documents.
  """

  lists: RankedLists | None = None


class _Listing:
  """What scores lists, of any retriever."""

  def _with_optional(self, outputs, batch, queries, pooled_BE, temperature):
    outputs = super()._with_optional(
      outputs, batch, queries, pooled_BE, temperature
    )
    if 'list_index' not in batch:
      # As those that are evaluated.
      return outputs
    fields = {
      name: getattr(outputs, name)
      for name in RetrieverOutput.__dataclass_fields__
    }
    return ListedOutput(**fields, lists=scored_lists(self, batch, queries))


class ListingRetriever(_Listing, Retriever):
  """A retriever that scores lists; parameters are those of Retriever.

  Attributes:
    teaching: how the objective follows the lists.
  """

  teaching: DistillationSettings = DistillationSettings()


class ListingCachingRetriever(_Listing, CachingRetriever):
  """The same, encoding in chunks.

  Attributes:
    teaching: how the objective follows the lists.
  """

  teaching: DistillationSettings = DistillationSettings()


def listing(model, teaching):
  """The same retriever, scoring lists.

  Args:
    model: Retriever or CachingRetriever.
    teaching: DistillationSettings.
  """
  settings = {'settled': model.settled, 'teaching': teaching}
  if isinstance(model, CachingRetriever):
    return ListingCachingRetriever(
      model.config, chunks=model.chunks, **settings
    )
  return ListingRetriever(model.config, **settings)


def scored_lists(retriever, batch, queries):
  """All documents of all lists, in one pass of the decoder over their codes.

  Scores are those that decoding adds up. A list's documents have the
  identifiers that they were given last; the gradient reaches codewords, decoder
  and query, and no vector of a document.

  Args:
    retriever: ListingRetriever, bound.
    batch: 'list_index' [B, P, M] int32 documents of P lists a query in the
      teacher's order, the positive first, NO_DOC where a list is shorter, and
      'list_scores' [B, P, M] the teacher's scores; 'list_vectors' [B, P, M, E]
      of a frozen encoder where dense scores are looked at too.
    queries: models.retriever.QueryEncoding of the B queries.

  Returns:
    objectives.distillation.RankedLists of B x P lists.
  """
  index_BPM = batch['list_index']
  batch_size, lists, length = index_BPM.shape
  numbers_R = jnp.where(index_BPM == NO_DOC, 0, index_BPM).reshape(-1)
  codes_RL = retriever.identifiers(numbers_R)
  # A document without an identifier has no score.
  real_R = (index_BPM.reshape(-1) != NO_DOC) & (codes_RL[:, 0] >= 0)
  codes_RL = jnp.maximum(codes_RL, 0)
  scores_RL = identifier_scores(retriever, queries, codes_RL)
  rows = batch_size * lists, length
  dense_BM = None
  if 'list_vectors' in batch:
    vectors_BXE = batch['list_vectors'].reshape(batch_size, lists * length, -1)
    dense_BX = jnp.einsum(
      'BD,BXD->BX', queries.vectors_BD, retriever.project(vectors_BXE)
    )
    dense_BM = dense_BX.reshape(rows)
  return RankedLists(
    scores_BML=scores_RL.reshape(*rows, -1),
    codes_BML=codes_RL.reshape(*rows, -1),
    teacher_BM=batch['list_scores'].reshape(rows),
    real_BM=real_R.reshape(rows),
    dense_BM=dense_BM,
    teaching=retriever.teaching,
  )


def identifier_scores(retriever, queries, codes_RL):
  """[R, L] float32 scores of given codes, as beam search would add them up.

  Args:
    retriever: Retriever, bound.
    queries: models.retriever.QueryEncoding of B queries.
    codes_RL: int32 codes; R = B x M identifiers, M of a query side by side.
  """
  config = retriever.config.decoder
  count = len(codes_RL) // len(queries.vectors_BD)
  vectors_RD = jnp.repeat(queries.vectors_BD, count, axis=0)
  codebooks_LKD = retriever.indexer.codebooks()
  codewords_RLD = jax.vmap(
    lambda table_KD, codes_R: table_KD[codes_R], (0, 1), 1
  )(codebooks_LKD, codes_RL)
  scores_RLK = retriever.decoder(
    queries.replace(vectors_BD=vectors_RD),
    codewords_RLD,
    codebooks_LKD,
    deterministic=True,
    share=config.correction,
  )
  if config.normalised:
    scores_RLK = jax.nn.log_softmax(scores_RLK, axis=-1)
  return jnp.take_along_axis(scores_RLK, codes_RL[..., None], axis=-1)[..., 0]
