"""A cross-encoder ready to score texts, whatever it was trained by."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gr_jax.data.vocabularies import Vocabulary
from gr_jax.models.cross_encoder import CrossEncoder
from gr_jax.retrieval.encoding import padded_batches
from gr_jax.types import Document, UserError, document_text


class Ranker:
  """Scores pairs of a query and a document.

  Attributes:
    sha256: of the weights.
  """

  def __init__(
    self,
    model: CrossEncoder,
    params: Mapping[str, Any],
    vocabulary: Vocabulary,
    sha256: str,
    query_length: int,
    document_length: int,
  ):
    """Brings the parameters to the device.

    Args:
      model: the cross-encoder.
      params: of the model.
      vocabulary: that it was trained with.
      sha256: of the parameters.
      query_length: tokens of a query at most, with special ones.
      document_length: the same of a document alone; a pair is cut at
        CrossEncoderConfig.length besides.
    """
    config = model.config
    self.sha256 = sha256
    self._program = functools.partial(_scores, model, jax.device_put(params))
    self._vocabulary = vocabulary
    self._query_length = min(query_length, config.length)
    self._document_length = document_length
    self._config = config

  def scores(
    self,
    queries: Sequence[str],
    documents: Sequence[Document],
    show: Callable[[int, float], None] = lambda done, share: None,
  ) -> np.ndarray:
    """Scores pairs.

    What a pair gets depends on the others by rounding alone: they decide
    which pairs share a batch.

    Args:
      queries: X texts.
      documents: one for each query.
      show: told how many pairs are done, and their share of the work.

    Returns:
      [X] float32, higher ones for better documents.

    Raises:
      UserError: for a score that is not finite.
    """
    query_tokens = self._tokens(queries, self._query_length)
    document_tokens = self._tokens(
      [document_text(document) for document in documents],
      self._document_length,
    )
    config = self._config
    pairs = [
      join_pair(query, document, config.skipped, config.length)
      for query, document in zip(query_tokens, document_tokens, strict=True)
    ]
    scores_X = np.zeros(len(pairs), np.float32)
    if not pairs:
      return scores_X
    lengths_X = np.array([len(query) for query in query_tokens], np.int32)
    longest = min(
      config.length,
      self._query_length + self._document_length - config.skipped,
    )
    done = 0
    for chosen, tokens_BS, share in padded_batches(pairs, longest):
      queries_B = np.resize(lengths_X[chosen], len(tokens_BS))
      found_B = self._program(jnp.asarray(tokens_BS), jnp.asarray(queries_B))
      scores_X[chosen] = np.asarray(found_B)[: len(chosen)]
      done += len(chosen)
      show(done, share)
    if not np.isfinite(scores_X).all():
      raise UserError(
        'the cross-encoder gives scores that are no numbers: its training '
        'diverged, or its weights are damaged'
      )
    return scores_X

  def _tokens(self, texts: Sequence[str], length: int) -> list[list[int]]:
    """Token ids of texts, each of which is tokenised once."""
    distinct = list(dict.fromkeys(texts))
    encoded = self._vocabulary.encode_batch(distinct, length)
    ids = dict(zip(distinct, encoded, strict=True))
    return [ids[text] for text in texts]


def join_pair(
  query: Sequence[int], document: Sequence[int], skipped: int, length: int
) -> list[int]:
  """One pair, as models.cross_encoder.join_pairs joins many.

  Args:
    query: token ids with special ones.
    document: the same of the document.
    skipped: first tokens of the document that are left out.
    length: tokens of the pair at most.

  Returns:
    The ids; of a document that does not fit the last token ends them.
  """
  pair = [*query, *document[skipped:]]
  return pair if len(pair) <= length else [*pair[: length - 1], document[-1]]


@functools.partial(jax.jit, static_argnums=0)
def _scores(model, params, tokens_BS, queries_B):
  return model.apply({'params': params}, tokens_BS, queries_B)
