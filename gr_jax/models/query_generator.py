"""Query generation: a document in, the tokens of queries that it answers out.

doc2query (Nogueira et al. 2019, arXiv 1904.08375) and DSI-QG (Zhuang et al.
2022, arXiv 2206.10128) train a T5 for it. Here the encoder may be a sentence
encoder too, with a decoder that is new; small models then have to copy rare
words, for which there is a pointer (See et al. 2017, arXiv 1704.04368).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from gr_jax.models import layers
from gr_jax.models.bert import BertConfig
from gr_jax.models.encoder import Encoder
from gr_jax.models.projection import unit_length
from gr_jax.models.t5 import T5Config
from gr_jax.models.t5_decoder import DecoderCache, DecoderMemory, empty_cache
from gr_jax.models.t5_text import T5TextDecoder
from gr_jax.objectives.pointer import (
  mixed_log_probs,
  token_log_probs,
  writing_loss,
)
from gr_jax.parameters import parameter
from gr_jax.types import UserError, check_range

# Width of the pointer's own attention.
_POINTER_WIDTH = 64
# What the score of a place that goes on begins with, for the same token before.
_FOLLOWING = 4.0


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
  """The parts of a query generator.

  Attributes:
    encoder: reads the document.
    decoder: sizes of the T5 decoder that writes queries; its vocabulary is the
      encoder's, and its width too where token vectors are taken from there.
    pointer: whether it can also copy tokens of the document.
    pointer_follows: whether the pointer also compares the last token written
      with the one before each place of the document, so that it goes on where
      it copied (our addition): a word of several pieces is one run of them.
    train_encoder: whether the encoder trains too.
    queries_per_document: W, queries of a document that a training batch has,
      which share its encoding.
    start: token that a query is written after; 0 for T5, [CLS] for BERT.
    end: token that ends a query; 1 for T5, [SEP] for BERT.
    head_parts: parts of a query's positions whose scores of the whole
      vocabulary are made one after the other while training, to keep less.
  """

  encoder: BertConfig | T5Config = BertConfig()
  decoder: T5Config = T5Config(
    vocab_size=30522,
    emb_dim=384,
    num_heads=6,
    head_dim=64,
    num_encoder_layers=0,
    num_decoder_layers=3,
    mlp_dim=1024,
    logits_via_embedding=True,
  )
  pointer: bool = True
  pointer_follows: bool = True
  train_encoder: bool = False
  queries_per_document: int = 4
  start: int = 101
  end: int = 102
  head_parts: int = 1

  def __post_init__(self):
    if self.decoder.vocab_size != self.encoder.vocab_size:
      raise UserError(
        'GeneratorConfig: the decoder writes tokens of the encoder: set '
        f'T5Config.vocab_size = {self.encoder.vocab_size} (it is '
        f'{self.decoder.vocab_size})'
      )
    tokens = self.encoder.vocab_size
    check_range(
      self,
      {
        'queries_per_document': (1, math.inf),
        'head_parts': (1, math.inf),
        'start': (0, tokens),
        'end': (1, tokens),
      },
    )


@struct.dataclass
class ReadDocuments:
  """What a decoder needs of B documents.

  Attributes:
    memory: keys and values of the cross-attentions.
    keys_BSP: what the pointer attends to, None without.
    tokens_BS: int32 tokens of the documents, 0 where there is nothing to copy.
  """

  memory: DecoderMemory
  keys_BSP: jax.Array | None
  tokens_BS: jax.Array


def example_batch() -> dict:
  """A batch of any size, for the shapes of parameters."""
  tokens_BS = jnp.ones((1, 4), jnp.int32)
  return {'document_tokens': tokens_BS, 'query_tokens': tokens_BS[:, None]}


def inputs_and_targets(queries_BWL, start: int):
  """[R, L] tokens that are read, and those written after them, 0 for none.

  Args:
    queries_BWL: int32 tokens of queries, padded with 0.
    start: of GeneratorConfig; where it is not 0 all queries begin with it.
  """
  tokens_RL = queries_BWL.reshape(-1, queries_BWL.shape[-1])
  if start:
    # [CLS] is written already.
    return tokens_RL, jnp.pad(tokens_RL[:, 1:], ((0, 0), (0, 1)))
  return jnp.pad(tokens_RL[:, :-1], ((0, 0), (1, 0))), tokens_RL


class QueryGenerator(nn.Module):
  """P(query | document), token by token.

  Without a pointer and with a T5 as its encoder it is a T5: parameters of
  models.t5_text.T5 fit, the token table once for each of both sides.

  Attributes:
    config: the parts.
  """

  config: GeneratorConfig

  def setup(self):
    config = self.config
    self.encoder = Encoder(config.encoder)
    decoder = config.decoder
    is_t5 = isinstance(config.encoder, T5Config)
    self.token_embedder = layers.Embed(
      decoder.vocab_size,
      decoder.emb_dim,
      dtype=decoder.dtype,
      stddev=1.0 if is_t5 else decoder.emb_dim**-0.5,
    )
    self.decoder = T5TextDecoder(decoder)
    if config.pointer:
      dtype = decoder.dtype
      self.pointer_query = layers.Dense(
        _POINTER_WIDTH, ('embed', 'kv'), dtype=dtype
      )
      self.pointer_key = layers.Dense(
        _POINTER_WIDTH, ('embed', 'kv'), dtype=dtype
      )
      self.pointer_gate = layers.Dense(
        1, ('embed', None), use_bias=True, dtype=dtype
      )
      if config.pointer_follows:
        self.pointer_token = layers.Dense(
          _POINTER_WIDTH, ('embed', 'kv'), dtype=dtype
        )
        self.pointer_strength = parameter(
          'pointer_strength',
          nn.initializers.constant(_FOLLOWING),
          (1,),
          (None,),
        )

  def loss(self, batch, deterministic):
    """Mean negative log-likelihood of the queries of documents.

    Args:
      batch: 'document_tokens' [B, S] and 'query_tokens' [B, W, L] int32, padded
        with 0; a document with fewer than W queries has rows of 0.
      deterministic: no dropout.

    Returns:
      The loss in nats a token, and metrics, {'name': (total, count)}.
    """
    inputs_RL, targets_RL = inputs_and_targets(
      batch['query_tokens'], self.config.start
    )
    log_probs_RL = self.log_probs(
      batch['document_tokens'], inputs_RL, targets_RL, deterministic
    )
    return writing_loss(log_probs_RL, targets_RL)

  def log_probs(
    self, documents_BS, inputs_RL, targets_RL, deterministic=True
  ) -> jax.Array:
    """[R, L] float32 log-probability of each token given those before.

    Args:
      documents_BS: tokens of documents.
      inputs_RL: tokens before each, the start first; R = B x W queries, those
        of a document side by side.
      targets_RL: tokens that are written.
      deterministic: no dropout.
    """
    states_BSE, mask_BS = self._encoded(documents_BS, deterministic)
    embedded_RLM = self.token_embedder(inputs_RL)
    states_RLM = self.decoder(
      embedded_RLM,
      states_BSE,
      mask_BS,
      deterministic=deterministic,
    )
    written_RL = token_log_probs(
      self._for_head(states_RLM),
      self._head(),
      targets_RL,
      self.config.head_parts,
    )
    if not self.config.pointer:
      return written_RL
    copies_BWLS, gate_RL = self._point(
      states_RLM,
      embedded_RLM,
      self._pointer_keys(states_BSE, documents_BS),
      self._copied(documents_BS),
    )
    batch, width, length, _ = copies_BWLS.shape
    same_BWLS = (
      self._copied(documents_BS)[:, None, None, :]
      == targets_RL.reshape(batch, width, length)[..., None]
    )
    copied_BWL = jnp.sum(copies_BWLS, axis=-1, where=same_BWLS)
    return mixed_log_probs(
      written_RL, copied_BWL.reshape(gate_RL.shape), gate_RL
    )

  def read(self, documents_BS) -> ReadDocuments:
    """What `step` needs of documents, made once."""
    states_BSE, mask_BS = self._encoded(documents_BS, deterministic=True)
    keys_BSP = None
    if self.config.pointer:
      keys_BSP = self._pointer_keys(states_BSE, documents_BS)
    memory = self.decoder.memory(states_BSE, mask_BS)
    return ReadDocuments(memory, keys_BSP, self._copied(documents_BS))

  def empty_cache(self, rows: int, length: int) -> DecoderCache:
    """A cache for queries of `length` tokens."""
    return empty_cache(self.config.decoder, rows, length)

  def step(self, read, tokens_R, cache, position):
    """Log-probabilities of the next token.

    Args:
      read: ReadDocuments of B documents.
      tokens_R: int32 tokens at `position`; R = B x W queries, those of a
        document side by side.
      cache: of the positions before, from `empty_cache`.
      position: int32 scalar, may be traced.

    Returns:
      [R, V] float32 log-probabilities, and the cache with this position.
    """
    embedded_RM = self.token_embedder(tokens_R)
    states_RM, cache = self.decoder.step(
      embedded_RM, read.memory, cache, position
    )
    scores_RV = jnp.dot(
      self._for_head(states_RM),
      self._head(),
      preferred_element_type=jnp.float32,
    )
    # As log_softmax has it, XLA joins the product with what follows on CPU, and
    # the head takes more than twice as long.
    written_RV = scores_RV - jax.nn.logsumexp(scores_RV, axis=-1, keepdims=True)
    if not self.config.pointer:
      return written_RV, cache
    copies_BW1S, gate_R1 = self._point(
      states_RM[:, None], embedded_RM[:, None], read.keys_BSP, read.tokens_BS
    )
    copies_BWS = copies_BW1S[:, :, 0]
    scattered_BWV = jax.vmap(
      lambda copies_WS, tokens_S: (
        jnp.zeros((len(copies_WS), written_RV.shape[-1]))
        .at[:, tokens_S]
        .add(copies_WS)
      )
    )(copies_BWS, read.tokens_BS)
    copied_RV = scattered_BWV.reshape(written_RV.shape)
    return mixed_log_probs(written_RV, copied_RV, gate_R1), cache

  def _encoded(self, documents_BS, deterministic):
    """States of the documents' tokens, and which are text."""
    config = self.config
    output = self.encoder(
      documents_BS, deterministic=deterministic or not config.train_encoder
    )
    states_BSE = output.states_BSE
    if not config.train_encoder:
      states_BSE = jax.lax.stop_gradient(states_BSE)
    return states_BSE, output.mask_BS

  def _copied(self, documents_BS):
    """The documents' tokens without those that mark beginning and end."""
    marks = (documents_BS == self.config.start) | (
      documents_BS == self.config.end
    )
    return jnp.where(marks, 0, documents_BS)

  def _pointer_keys(self, states_BSE, documents_BS):
    """[B, S, P] what the pointer compares of each place, and of that before."""
    keys_BSP = self.pointer_key(states_BSE)
    if not self.config.pointer_follows:
      return keys_BSP
    before_BS = jnp.pad(documents_BS[:, :-1], ((0, 0), (1, 0)))
    before_BSP = self._followed(self.token_embedder(before_BS))
    return jnp.concatenate([keys_BSP, before_BSP], axis=-1)

  def _followed(self, embedded):
    """[..., P] directions of tokens; those of one token are the same."""
    directions = unit_length(self.pointer_token(embedded))
    return directions.astype(self.config.decoder.dtype)

  def _point(self, states_RLM, embedded_RLM, keys_BSP, tokens_BS):
    """[B, W, L, S] shares of tokens to copy, [R, L] log-odds of writing."""
    batch = keys_BSP.shape[0]
    length = states_RLM.shape[1]
    queries_RLP = self.pointer_query(states_RLM)
    if self.config.pointer_follows:
      strength = self.pointer_strength[0] * _POINTER_WIDTH**0.5
      last_RLP = self._followed(embedded_RLM) * strength.astype(
        states_RLM.dtype
      )
      queries_RLP = jnp.concatenate([queries_RLP, last_RLP], axis=-1)
    queries_BWLP = queries_RLP.reshape(batch, -1, length, keys_BSP.shape[-1])
    scores_BWLS = jnp.einsum(
      'BWLP,BSP->BWLS',
      queries_BWLP,
      keys_BSP,
      preferred_element_type=jnp.float32,
    )
    bias_BS = jnp.where(tokens_BS > 0, 0.0, layers.HIDDEN)
    scores_BWLS = scores_BWLS * _POINTER_WIDTH**-0.5
    shares_BWLS = jax.nn.softmax(scores_BWLS + bias_BS[:, None, None])
    gate_RL1 = self.pointer_gate(states_RLM).astype(jnp.float32)
    return shares_BWLS, gate_RL1[..., 0]

  def _for_head(self, states):
    """Decoder states as the head takes them."""
    decoder = self.config.decoder
    if decoder.logits_via_embedding and isinstance(
      self.config.encoder, T5Config
    ):
      # T5's tied table has unit variance.
      return states * decoder.emb_dim**-0.5
    return states

  def _head(self):
    """[M, V] the output head."""
    if self.config.decoder.logits_via_embedding:
      return self.token_embedder.embedding.T.astype(self.config.decoder.dtype)
    return self.decoder.head().astype(self.config.decoder.dtype)
