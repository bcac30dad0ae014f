"""The retriever: encoder, semantic indexing module and code decoder in one."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning

from gr_jax.indexers.interface import CodeAssignment
from gr_jax.indexers.random_codes import RandomConfig, RandomIndexer
from gr_jax.indexers.residual import ResidualConfig, ResidualIndexer
from gr_jax.models.bert import BertConfig
from gr_jax.models.code_decoder import CodeDecoder, CodeDecoderConfig
from gr_jax.models.encoder import Encoder
from gr_jax.models.t5 import T5Config
from gr_jax.types import UserError

_INDEXERS = {ResidualConfig: ResidualIndexer, RandomConfig: RandomIndexer}


@dataclasses.dataclass(frozen=True)
class RetrieverConfig:
  """The parts of a retriever.

  Attributes:
    encoder: text encoder, shared by queries and documents.
    indexer: semantic indexing module; its type chooses the kind.
    decoder: code decoder.
    width: D, of document and query vectors.
    projection: whether a linear map stands between the encoder and the
      vectors; without it `width` is the encoder's own.
    pooling: 'mean' or 'first', of the encoder's states.
    indexer_gradient: share of the generation loss's gradient that reaches
      codes and codebooks; 0 leaves the indexer to the other criteria.
  """

  encoder: BertConfig | T5Config = BertConfig()
  indexer: ResidualConfig | RandomConfig = ResidualConfig()
  decoder: CodeDecoderConfig = CodeDecoderConfig()
  width: int = 384
  projection: bool = True
  pooling: str = 'mean'
  indexer_gradient: float = 0.1

  @property
  def positions(self):
    """L, codes of an identifier."""
    return self.indexer.positions

  @property
  def codes(self):
    """K, codes of a position."""
    return self.indexer.codes


@flax.struct.dataclass
class QueryEncoding:
  """What the decoder knows of a query.

  Attributes:
    vectors_BD: unit vectors.
    states_BSE: what the decoder attends to.
    mask_BS: which states are real.
  """

  vectors_BD: jax.Array
  states_BSE: jax.Array
  mask_BS: jax.Array


@flax.struct.dataclass
class RetrieverOutput:
  """What the objectives read of a training batch.

  Attributes:
    query_vectors_BD: unit vectors of the queries.
    document_vectors_BD: unit vectors of the documents.
    assignment: codes of the documents.
    targets_BLK: the sample of the codes, its gradient scaled.
    scores_BLK: the decoder's scores of all codes.
  """

  query_vectors_BD: jax.Array
  document_vectors_BD: jax.Array
  assignment: CodeAssignment
  targets_BLK: jax.Array
  scores_BLK: jax.Array


class Projection(nn.Module):
  """Linear map to unit vectors; it starts as the identity where it can.

  Attributes:
    width: D.
  """

  width: int

  @nn.compact
  def __call__(self, pooled_BE):
    def init(rng, shape, dtype):
      if shape[0] == shape[1]:
        return jnp.eye(shape[0], dtype=dtype)
      return nn.initializers.lecun_normal()(rng, shape, dtype)

    kernel_ED = partitioning.param_with_axes(
      'kernel',
      init,
      (pooled_BE.shape[-1], self.width),
      jnp.float32,
      axes=('embed', 'width'),
    )
    return unit_length(unit_length(pooled_BE.astype(jnp.float32)) @ kernel_ED)


class Retriever(nn.Module):
  """P(z|q), p(z|d) and the dense vectors of both, from one encoder.

  Attributes:
    config: the parts.
  """

  config: RetrieverConfig

  def setup(self):
    config = self.config
    self.encoder = Encoder(config.encoder, pooling=config.pooling)
    if config.projection:
      self.projection = Projection(config.width)
    elif config.width != config.encoder.emb_dim:
      raise UserError(
        f'without a projection RetrieverConfig.width is that of the encoder, '
        f'{config.encoder.emb_dim}, not {config.width}'
      )
    kind = _INDEXERS[type(config.indexer)]
    self.indexer = kind(config.indexer, config.width)
    self.decoder = CodeDecoder(
      config.decoder, config.width, config.positions, config.codes
    )

  def __call__(self, batch, *, temperature, noise, deterministic):
    """Vectors, codes and code scores of a training batch.

    Args:
      batch: 'query_tokens' [B, S] and 'document_tokens' [B, S] (0 pads), or
        'query_vectors' and 'document_vectors' [B, E] of a frozen encoder;
        'document_index' [B].
      temperature: tau of the Gumbel-softmax.
      noise: scale of the Gumbel noise.
      deterministic: no dropout.

    Returns:
      RetrieverOutput.
    """
    if 'query_tokens' in batch:
      queries = self.encode(batch['query_tokens'], deterministic)
      documents_BD = self.encode(
        batch['document_tokens'], deterministic
      ).vectors_BD
    else:
      queries = self.encode_pooled(batch['query_vectors'])
      documents_BD = self.project(batch['document_vectors'])
    assignment = self.indexer(
      documents_BD,
      batch['document_index'],
      temperature=temperature,
      noise=noise,
      rng=self.make_rng('dropout'),
    )
    share = self.config.indexer_gradient
    scores_BLK = self.decoder(
      queries,
      scale_gradient(assignment.codewords_BLD, share),
      scale_gradient(self.indexer.codebooks(), share),
      deterministic=deterministic,
    )
    return RetrieverOutput(
      query_vectors_BD=queries.vectors_BD,
      document_vectors_BD=documents_BD,
      assignment=assignment,
      targets_BLK=scale_gradient(assignment.sample_BLK, share),
      scores_BLK=scores_BLK,
    )

  def backbone(self, tokens_BS, deterministic=True):
    """The text encoder alone: models.encoder.EncoderOutput."""
    return self.encoder(tokens_BS, deterministic=deterministic)

  def project(self, pooled_BE):
    """[B, D] unit vectors from what the encoder pooled."""
    if not self.config.projection:
      return unit_length(pooled_BE.astype(jnp.float32))
    return self.projection(pooled_BE)

  def encode(self, tokens_BS, deterministic=True):
    """QueryEncoding of texts."""
    output = self.backbone(tokens_BS, deterministic)
    if not self.config.decoder.attends_tokens:
      return self.encode_pooled(output.pooled_BE)
    vectors_BD = self.project(output.pooled_BE)
    return QueryEncoding(vectors_BD, output.states_BSE, output.mask_BS)

  def encode_pooled(self, pooled_BE):
    """QueryEncoding of pooled vectors, for decoders that need no tokens."""
    vectors_BD = self.project(pooled_BE)
    mask_BS = jnp.ones((vectors_BD.shape[0], 1), bool)
    return QueryEncoding(vectors_BD, vectors_BD[:, None, :], mask_BS)

  def assign(self, vectors_BD, documents_B):
    """[B, L] int32 codes of documents, without noise.

    Args:
      vectors_BD: unit vectors from `project` or `encode`.
      documents_B: int32 numbers of the documents in the corpus.
    """
    return self.indexer.assign(vectors_BD, documents_B)

  def start(self, encoding, width):
    """The decoding state of `width` beams a query, see CodeDecoder.start."""
    return self.decoder.start(encoding, width)

  def decode(self, state, codes_BW, level):
    """Scores of the next code, see CodeDecoder.step."""
    return self.decoder.step(state, codes_BW, level, self.indexer.codebooks())


def unit_length(vectors):
  """Vectors of length 1 along the last axis; zeros stay zeros."""
  square = jnp.sum(vectors**2, axis=-1, keepdims=True)
  return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


def scale_gradient(x, share):
  """The value of `x`; its gradient times `share`."""
  fixed = jax.lax.stop_gradient(x)
  return fixed + share * (x - fixed)
