"""Sentence encoders as teachers, and as what finds candidates."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from gr_jax import processes
from gr_jax.data.vocabularies import Vocabulary, load_vocabulary
from gr_jax.models import weight_files
from gr_jax.models.encoder import Encoder
from gr_jax.models.import_weights import import_bert
from gr_jax.models.projection import unit_length
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.ranking.opening import check_vocabulary, open_run
from gr_jax.retrieval.encoding import encode_rows
from gr_jax.retrieval.exact import exact_top_k
from gr_jax.retrieval.program import encode_program
from gr_jax.retrieval.shards import encode_shards, joined
from gr_jax.types import Document, Query, document_text

_RUN = 'run:'
# Tokens of texts where published weights say nothing of them.
_QUERY_LENGTH, _DOCUMENT_LENGTH = 64, 256


@dataclasses.dataclass(frozen=True)
class TextEncoder:
  """Texts to unit vectors.

  Attributes:
    encode: [B, S] token ids (0 pads) -> [B, D]; jitted.
    vocabulary: texts to token ids.
    query_length: tokens of a query at most.
    document_length: tokens of a document at most.
    sha256: of the weights.
  """

  encode: Callable[[jax.Array], jax.Array]
  vocabulary: Vocabulary
  query_length: int
  document_length: int
  sha256: str

  def queries(self, texts: Sequence[str]) -> np.ndarray:
    """[B, D] vectors of texts as queries."""
    tokens = self.vocabulary.encode_batch(list(texts), self.query_length)
    return encode_rows(
      self.encode, tokens, self.query_length, lambda done, share: None
    )


def open_encoder(source: str) -> TextEncoder:
  """Opens a sentence encoder.

  Args:
    source: published weights of a BERT or MPNet (all-mpnet-base-v2, say, of a
      folder) with tokenizer.json beside them (a folder,
      'package:NAME' or 'hub:ORG/NAME@REVISION'), whose states are averaged; or
      'run:FOLDER' for what a run of gr_jax.train ranks by.
  """
  if source.startswith(_RUN):
    run = open_run(pathlib.Path(source.removeprefix(_RUN)), RetrieverConfig)
    encode = functools.partial(
      encode_program, Retriever(run.config), jax.device_put(run.params)
    )
    return TextEncoder(
      encode, run.vocabulary, run.query_length, run.document_length, run.sha256
    )
  config, params, provenance = import_bert(source)
  vocabulary = load_vocabulary(weight_files.locate(source))
  check_vocabulary(vocabulary, config.vocab_size, source)
  encode = functools.partial(_pooled, Encoder(config), jax.device_put(params))
  longest = min(_DOCUMENT_LENGTH, config.max_length)
  return TextEncoder(
    encode,
    vocabulary,
    min(_QUERY_LENGTH, longest),
    longest,
    provenance.sha256,
  )


@functools.partial(jax.jit, static_argnums=0)
def _pooled(model, params, tokens_BS):
  return unit_length(model.apply({'params': params}, tokens_BS).pooled_BE)


class DenseSearch:
  """Documents as vectors of one encoder, once `encode` was called.

  Attributes:
    name: how it was asked for, 'dense:SOURCE'.
    sha256: of the weights.
  """

  def __init__(
    self,
    name: str,
    encoder: TextEncoder,
    documents: Sequence[Document],
  ):
    """Joins encoder and texts.

    Args:
      name: how it was asked for.
      encoder: of documents and queries.
      documents: N, in the order of the corpus.
    """
    self.name, self.sha256 = name, encoder.sha256
    self._encoder, self._documents = encoder, documents
    self._documents_ND = None

  def encode(self, directory: pathlib.Path, inputs: str) -> None:
    """Encodes the documents; several processes call it and share them.

    Args:
      directory: keeps vectors, to go on with after an interruption.
      inputs: what they are of.
    """
    encoder = self._encoder

    def read_tokens(rows):
      texts = [document_text(self._documents[row]) for row in rows]
      length = encoder.document_length
      encoded = encoder.vocabulary.encode_batch(texts, length)
      return [np.asarray(ids, np.int32) for ids in encoded]

    paths = encode_shards(
      directory,
      encoder.encode,
      read_tokens,
      len(self._documents),
      encoder.document_length,
      inputs,
    )
    self._documents_ND = joined(paths)
    # No process may take the shards away before all have read them.
    processes.meet()

  def scores(
    self, queries: Sequence[Query], rows: Sequence[np.ndarray]
  ) -> list[np.ndarray]:
    """Inner products of queries with documents that were chosen."""
    queries_BD = self._queries(queries)
    return [
      np.einsum('CD,D->C', self._documents_ND[chosen], query_D)
      for query_D, chosen in zip(queries_BD, rows, strict=True)
    ]

  def find(self, queries: Sequence[Query], depth: int) -> np.ndarray:
    """[B, depth] rows of the nearest documents, NO_DOC past the last."""
    return exact_top_k(self._queries(queries), self._documents_ND, depth)[0]

  def _queries(self, queries: Sequence[Query]) -> np.ndarray:
    return self._encoder.queries([query.text for query in queries])
