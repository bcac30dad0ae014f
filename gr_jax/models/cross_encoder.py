"""A cross-encoder: one score for a query and a document read together.

Nogueira and Cho 2019 (arXiv 1901.04085): [CLS] query [SEP] document [SEP]
through BERT, a linear score of the first state. It is dear, as nothing of a
document can be computed before the query is known, and ranks better than two
vectors do: a teacher, and a filter of pseudo-queries.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from gr_jax.models import layers
from gr_jax.models.bert import BertConfig, BertEncoder
from gr_jax.models.encoder import POOLINGS, pool
from gr_jax.models.t5 import T5Config, T5Encoder
from gr_jax.objectives.localized import localized_contrastive_loss
from gr_jax.precision import widened
from gr_jax.types import NO_DOC, UserError, check_option


@dataclasses.dataclass(frozen=True)
class CrossEncoderConfig:
  """What scores a pair of texts.

  Attributes:
    encoder: of the pair. BERT is told which token is whose; T5 reads
      query </s> document </s>.
    pooling: what is scored of the states: the 'first', or their 'mean'.
    pooler: whether a dense layer with tanh comes before the score, as BERT's
      own pooler does.
    length: tokens of a pair at most; the document is cut to fit.
    in_batch: documents of other rows of the batch that each query is told
      from, besides its hard negatives.
  """

  encoder: BertConfig | T5Config = BertConfig()
  pooling: str = 'first'
  pooler: bool = True
  length: int = 512
  in_batch: int = 0

  def __post_init__(self):
    check_option('CrossEncoderConfig.pooling', self.pooling, POOLINGS)
    if self.length < 4:
      raise UserError(
        f'CrossEncoderConfig.length is 4 tokens or more, got {self.length}'
      )
    if self.in_batch < 0:
      raise UserError(
        f'CrossEncoderConfig.in_batch is 0 or more, got {self.in_batch}'
      )
    if self.reads_types and self.length > self.encoder.max_length:
      raise UserError(
        f'CrossEncoderConfig.length is {self.length}, the encoder has '
        f'{self.encoder.max_length} positions: set that many or fewer'
      )

  @property
  def reads_types(self) -> bool:
    """Whether the encoder is told which token is the query's."""
    return isinstance(self.encoder, BertConfig)

  @property
  def skipped(self) -> int:
    """Tokens of a document alone that are left out behind a query: [CLS]."""
    return int(self.reads_types)


def join_pairs(queries_BQ, documents_BD, skipped: int, length: int):
  """Puts a document's tokens behind those of its query, without a gap.

  Args:
    queries_BQ: int32 ids with special ones, padded with 0 at the end.
    documents_BD: the same of the documents.
    skipped: first tokens of a document that are left out.
    length: tokens of a pair at most. A document that does not fit loses its
      end, but for its last token, which ends the pair.

  Returns:
    tokens_BS padded with 0, S the smaller of `length` and what two full texts
    take, and [B] how many of them are the query's.
  """
  width = queries_BQ.shape[1] + documents_BD.shape[1] - skipped
  width = min(width, length)
  queries_B = jnp.sum(queries_BQ != layers.PAD_ID, axis=1, dtype=jnp.int32)
  documents_B = jnp.sum(documents_BD != layers.PAD_ID, axis=1, dtype=jnp.int32)
  total_B = queries_B + jnp.maximum(documents_B - skipped, 0)
  ends_B = jnp.minimum(total_B, width)[:, None]
  place_1S = jnp.arange(width)[None]
  of_document_BS = place_1S - queries_B[:, None] + skipped
  last_B1 = documents_B[:, None] - 1
  of_document_BS = jnp.where(place_1S == ends_B - 1, last_B1, of_document_BS)
  tokens_BS = jnp.where(
    place_1S < queries_B[:, None],
    _read(queries_BQ, jnp.broadcast_to(place_1S, of_document_BS.shape)),
    _read(documents_BD, of_document_BS),
  )
  return jnp.where(place_1S < ends_B, tokens_BS, layers.PAD_ID), queries_B


def _read(tokens_BX, places_BS):
  """Tokens at places, which are moved inside the row."""
  places_BS = jnp.clip(places_BS, 0, tokens_BX.shape[1] - 1)
  return jnp.take_along_axis(tokens_BX, places_BS, axis=1)


class CrossEncoder(nn.Module):
  """Scores pairs; its parameters are encoder, pooler and score.

  Attributes:
    config: sizes and kinds.
  """

  config: CrossEncoderConfig

  def setup(self):
    config = self.config
    kind = BertEncoder if config.reads_types else T5Encoder
    self.encoder = kind(config.encoder)
    if config.pooler:
      # As 'mlp' it would be cut along the mesh; it is small.
      self.pooler = self._dense(config.encoder.emb_dim)
    self.score = self._dense(1)
    self.dropout = nn.Dropout(config.encoder.dropout_rate)

  def _dense(self, features: int) -> layers.Dense:
    return layers.Dense(
      features=features,
      axes=('embed', 'width'),
      use_bias=True,
      kernel_init=nn.initializers.normal(0.02),
    )

  def __call__(self, tokens_BS, queries_B, *, deterministic: bool = True):
    """Scores pairs.

    Args:
      tokens_BS: int32 ids of query and document, as `join_pairs` gives them.
      queries_B: how many tokens of each row are the query's.
      deterministic: False applies dropout, with the rng named 'dropout'.

    Returns:
      [B] float32 scores: any numbers, higher ones for better documents.
    """
    mask_BS = layers.token_mask(tokens_BS)
    if self.config.reads_types:
      place_1S = jnp.arange(tokens_BS.shape[1])[None]
      types_BS = (place_1S >= queries_B[:, None]) & mask_BS
      states_BSE = self.encoder(
        tokens_BS, types_BS.astype(jnp.int32), deterministic=deterministic
      )
    else:
      states_BSE = self.encoder(tokens_BS, deterministic=deterministic)
    pooled_BE = pool(states_BSE, mask_BS, self.config.pooling)
    if self.config.pooler:
      pooled_BE = jnp.tanh(self.pooler(pooled_BE))
    pooled_BE = self.dropout(pooled_BE, deterministic=deterministic)
    return widened(self.score(pooled_BE))[:, 0]

  def loss(self, batch, deterministic: bool):
    """The localized contrastive loss of a batch of the loader.

    Args:
      batch: 'query_tokens' [B, Q], 'document_tokens' [B, D] and
        'document_index' [B] of the positives; 'negative_tokens' [B, H, D] and
        'negative_index' [B, H] where there are hard negatives.
      deterministic: False applies dropout.

    Returns:
      The mean over queries in nats, and metrics, as
      `objectives.localized.localized_contrastive_loss` has them.
    """
    documents_BCD, index_BC = self._candidates(batch)
    rows, candidates, _ = documents_BCD.shape
    queries_BQ = batch['query_tokens']
    queries_XQ = jnp.repeat(queries_BQ, candidates, axis=0)
    tokens_XS, queries_X = join_pairs(
      queries_XQ,
      documents_BCD.reshape(rows * candidates, -1),
      self.config.skipped,
      self.config.length,
    )
    tokens_XS = layers.constrain(tokens_XS, 'batch', 'length')
    scores_X = self(tokens_XS, queries_X, deterministic=deterministic)
    return localized_contrastive_loss(
      scores_X.reshape(rows, candidates), index_BC
    )

  def _candidates(self, batch):
    """[B, C, D] tokens of documents, each query's own first, and [B, C]."""
    own_BD, own_B = batch['document_tokens'], batch['document_index']
    tokens, index = [own_BD[:, None]], [own_B[:, None]]
    if 'negative_tokens' in batch:
      tokens.append(batch['negative_tokens'])
      index.append(batch['negative_index'])
    if self.config.in_batch >= own_B.size > 1:
      raise UserError(
        f'CrossEncoderConfig.in_batch is {self.config.in_batch}, a batch has '
        f'{own_B.size - 1} other rows: set that many or fewer'
      )
    for shift in range(1, self.config.in_batch + 1):
      tokens.append(jnp.roll(own_BD, shift, axis=0)[:, None])
      index.append(jnp.roll(own_B, shift)[:, None])
    index_BC = jnp.concatenate(index, axis=1)
    # What a query is told from is another document.
    same_BC = index_BC == own_B[:, None]
    same_BC &= jnp.arange(index_BC.shape[1])[None] > 0
    index_BC = jnp.where(same_BC, NO_DOC, index_BC)
    return jnp.concatenate(tokens, axis=1), index_BC
