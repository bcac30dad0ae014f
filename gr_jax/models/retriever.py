"""The retriever: encoder, semantic indexing module and code decoder in one."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.indexers.candidates import ASIDE, LONGER, scored_alike
from gr_jax.indexers.interface import CodeAssignment, given, stand_for
from gr_jax.indexers.neural import NeuralConfig, NeuralIndexer
from gr_jax.indexers.product import ProductConfig, ProductIndexer
from gr_jax.indexers.residual import ResidualConfig, ResidualIndexer
from gr_jax.indexers.static import StaticConfig, StaticIndexer
from gr_jax.indexers.tables import DocumentTable
from gr_jax.indexers.uncertainty import LearnedNoise
from gr_jax.indexers.upkeep import CodebookUpkeep, UpkeepConfig
from gr_jax.indexers.usage import CodeUsage
from gr_jax.models import layers
from gr_jax.models.bert import BertConfig
from gr_jax.models.code_decoder import CodeDecoder, CodeDecoderConfig
from gr_jax.models.encoder import Encoder
from gr_jax.models.projection import Projection, scale_gradient, unit_length
from gr_jax.models.t5 import T5Config
from gr_jax.types import UserError, check_range

_INDEXERS = {
  ResidualConfig: ResidualIndexer,
  ProductConfig: ProductIndexer,
  NeuralConfig: NeuralIndexer,
  StaticConfig: StaticIndexer,
}
IndexerConfig = ResidualConfig | ProductConfig | NeuralConfig | StaticConfig


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
    query_share: share of the mean vector of a document's training queries,
      besides its own, in what its identifier codes where that is learned; a
      document without them, as one that is new, is coded by its own vector
      alone. Our reconstruction of bottleneck-minimal indexing (arXiv
      2405.10974) for codes that learn.
    ranks_moved: whether an index also ranks documents there. It pays where each
      has training queries (docs/experiments.md, 16), and harms where some have
      none or are to be inserted: those that were moved stand before them.
    assign_beams: W, identifiers that are looked at for a document that is
      given one: the nearest of W beams, or the next that has room.
    room: documents that an identifier takes while identifiers are given to the
      whole corpus, in units of an even share (N / K^L), and at least one; 0
      for any number.
    reads_queries: whether the indexer is also read on the queries, for the
      criteria of agreement.
    reconstructs: whether a linear map back to the encoder's output is trained,
      for the autoencoding criterion.
    upkeep: what happens to codebooks besides their gradient steps.
    queue: Q, recent documents whose identifiers balance looks at besides the
      batch's; 0 for none.
  """

  encoder: BertConfig | T5Config = BertConfig()
  indexer: IndexerConfig = ResidualConfig()
  decoder: CodeDecoderConfig = CodeDecoderConfig()
  width: int = 384
  projection: bool = True
  pooling: str = 'mean'
  indexer_gradient: float = 0.0
  query_share: float = 0.25
  ranks_moved: bool = False
  assign_beams: int = 16
  room: float = 2.0
  reads_queries: bool = False
  reconstructs: bool = False
  upkeep: UpkeepConfig = UpkeepConfig()
  queue: int = 2048

  def __post_init__(self):
    check_range(self, {'assign_beams': (1, jnp.inf), 'room': (0, jnp.inf)})
    if not self.projection and self.width != self.encoder.emb_dim:
      raise UserError(
        f'without a projection RetrieverConfig.width is that of the encoder, '
        f'{self.encoder.emb_dim}, not {self.width}'
      )

  @property
  def positions(self):
    """L, codes of an identifier."""
    return self.indexer.positions

  @property
  def code_sizes(self):
    """Codes of each position."""
    return self.indexer.code_sizes

  @property
  def learns_noise(self):
    """Whether the scale of the Gumbel noise is a parameter."""
    sampling = getattr(self.indexer, 'sampling', None)
    return sampling is not None and sampling.noise == 'uncertainty'


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
    coded_vectors_BD: what the identifiers of the documents code.
    assignment: codes of the documents.
    targets_BLK: the sample of the codes, its gradient scaled.
    scores_BLK: the decoder's scores of all codes.
    queue_codes: [Q, L] identifiers of recent documents, and [Q] which
      documents they are, -1 for none.
    queue_vectors: [Q, D] what those stand for by now, and [Q] the documents.
    negatives: [X, D] unit vectors of mined hard negatives, and [X] which
      documents they are; nothing without.
    query_probs_BLK: code probabilities of the queries, if they are read.
    reconstruction: the encoder's output for the documents and what the vectors
      tell of it, both [B, E], if it is reconstructed.
    uncertainty: s, the learned scale of the noise, if it is learned.
  """

  query_vectors_BD: jax.Array
  document_vectors_BD: jax.Array
  coded_vectors_BD: jax.Array
  assignment: CodeAssignment
  targets_BLK: jax.Array
  scores_BLK: jax.Array
  queue_codes: tuple[jax.Array, jax.Array]
  queue_vectors: tuple[jax.Array, jax.Array]
  negatives: tuple[jax.Array, ...] = ()
  query_probs_BLK: jax.Array | None = None
  reconstruction: tuple[jax.Array, jax.Array] | None = None
  uncertainty: jax.Array | None = None


class Retriever(nn.Module):
  """P(z|q), p(z|d) and the dense vectors of both, from one encoder.

  Attributes:
    config: the parts.
    settled: while training, whether documents keep the identifiers they have,
      as those of static kinds do anyway.
  """

  config: RetrieverConfig
  settled: bool = False

  def setup(self):
    config = self.config
    self.encoder = Encoder(config.encoder, pooling=config.pooling)
    if config.projection:
      self.projection = Projection(config.width)
    self.indexer = _INDEXERS[type(config.indexer)](config.indexer, config.width)
    self.identifiers = DocumentTable(config.positions, jnp.int32, -1)
    learned = not isinstance(config.indexer, StaticConfig)
    self.moves = config.query_share and (learned or config.ranks_moved)
    if self.moves:
      self.query_means = DocumentTable(config.width, jnp.float16, 0, 'means')
    self.usage = CodeUsage(config.code_sizes, config.queue)
    self.decoder = CodeDecoder(config.decoder, config.width, config.code_sizes)
    self._setup_optional()

  def _setup_optional(self):
    """The parts that only some criteria and some upkeep of codebooks need."""
    config = self.config
    if config.upkeep.active:
      self.upkeep = CodebookUpkeep(config.upkeep, max(config.code_sizes))
    if config.reconstructs:
      self.reconstruction = layers.Dense(
        config.encoder.emb_dim, ('width', 'embed')
      )
    if config.learns_noise:
      self.learned_noise = LearnedNoise(config.indexer.sampling.uncertain)

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
    queries, pooled_BE = self._read(batch, deterministic)
    documents_BD = self.project(pooled_BE)
    numbers_B = batch['document_index']
    _, queue_codes_QL, queue_documents_Q = self.usage.recent()
    coded_BD = self.moved(documents_BD, numbers_B)
    codebooks_LKD = self.indexer.codebooks()
    assignment = given(self.identifiers(numbers_B), codebooks_LKD)
    if not self.settled and not isinstance(self.config.indexer, StaticConfig):
      assignment = self._identify(coded_BD, temperature, noise)
    self.usage.update(assignment.codes_BL, numbers_B)
    share = self.config.indexer_gradient
    scores_BLK = self.decoder(
      queries,
      scale_gradient(assignment.codewords_BLD, share),
      scale_gradient(codebooks_LKD, share),
      deterministic=deterministic,
    )
    queue_QD = stand_for(codebooks_LKD, queue_codes_QL)
    outputs = RetrieverOutput(
      query_vectors_BD=queries.vectors_BD,
      document_vectors_BD=documents_BD,
      coded_vectors_BD=coded_BD,
      assignment=assignment,
      targets_BLK=scale_gradient(assignment.sample_BLK, share),
      scores_BLK=scores_BLK,
      queue_codes=(queue_codes_QL, queue_documents_Q),
      queue_vectors=(queue_QD, queue_documents_Q),
    )
    return self._with_optional(outputs, batch, queries, pooled_BE, temperature)

  def _identify(self, coded_BD, temperature, noise):
    """The CodeAssignment of vectors, drawn anew."""
    if self.config.learns_noise:
      noise = self.learned_noise.scaled(temperature)
    usage_LK, rng = self.usage.recent()[0], self.make_rng('dropout')
    return self.indexer(
      coded_BD, temperature=temperature, noise=noise, usage_LK=usage_LK, rng=rng
    )

  def _read(self, batch, deterministic):
    """QueryEncoding, and [B, E] what the encoder pooled of the documents."""
    if 'query_tokens' not in batch:
      queries = self.encode_pooled(batch['query_vectors'])
      return queries, batch['document_vectors']
    queries = self.encode(batch['query_tokens'], deterministic)
    documents = self.backbone(batch['document_tokens'], deterministic)
    return queries, documents.pooled_BE

  def _with_optional(self, outputs, batch, queries, pooled_BE, temperature):
    """The outputs with what only some criteria read."""
    config = self.config
    if config.upkeep.active:
      assignment = outputs.assignment
      self.upkeep(assignment.coded_BLX, assignment.codes_BL)
    if 'negative_index' in batch:
      documents_X = batch['negative_index'].reshape(-1)
      outputs = outputs.replace(negatives=(self._negatives(batch), documents_X))
    if config.reads_queries:
      codes = self.indexer(
        queries.vectors_BD,
        temperature=temperature,
        noise=0.0,
        usage_LK=self.usage.recent()[0],
        rng=self.make_rng('dropout'),
      )
      outputs = outputs.replace(query_probs_BLK=codes.probs_BLK)
    if config.reconstructs:
      rebuilt_BE = self.reconstruction(outputs.document_vectors_BD)
      outputs = outputs.replace(reconstruction=(pooled_BE, rebuilt_BE))
    if config.learns_noise:
      outputs = outputs.replace(uncertainty=self.learned_noise())
    return outputs

  def _negatives(self, batch):
    """[X, D] unit vectors of mined negatives, read without dropout."""
    if 'negative_tokens' in batch:
      tokens_BHS = batch['negative_tokens']
      tokens_XS = tokens_BHS.reshape(-1, tokens_BHS.shape[-1])
      pooled_XE = self.backbone(tokens_XS).pooled_BE
    else:
      vectors_BHE = batch['negative_vectors']
      pooled_XE = vectors_BHE.reshape(-1, vectors_BHE.shape[-1])
    return self.project(pooled_XE)

  def moved(self, vectors_BD, documents_B):
    """[B, D] unit vectors of documents, moved to their queries.

    Args:
      vectors_BD: as `assign` takes them.
      documents_B: the same.
    """
    if not self.moves:
      return vectors_BD
    means_BD = self.query_means(documents_B).astype(vectors_BD.dtype)
    share_B1 = self.config.query_share * jnp.any(means_BD, -1, keepdims=True)
    return unit_length((1 - share_B1) * vectors_BD + share_B1 * means_BD)

  def backbone(self, tokens_BS, deterministic=True):
    """The text encoder alone: models.encoder.EncoderOutput."""
    return self.encoder(tokens_BS, deterministic=deterministic)

  def project(self, pooled_BE):
    """[B, D] unit vectors from what the encoder pooled."""
    if not self.config.projection:
      return unit_length(pooled_BE)
    return self.projection(pooled_BE)

  def encode(self, tokens_BS, deterministic=True):
    """QueryEncoding of texts."""
    output = self.backbone(tokens_BS, deterministic)
    encoding = self.encode_pooled(output.pooled_BE)
    if not self.config.decoder.attends_tokens:
      return encoding
    return QueryEncoding(encoding.vectors_BD, output.states_BSE, output.mask_BS)

  def encode_pooled(self, pooled_BE):
    """QueryEncoding of pooled vectors, for decoders that need no tokens."""
    vectors_BD = self.project(pooled_BE)
    mask_BS = jnp.ones((vectors_BD.shape[0], 1), bool)
    return QueryEncoding(vectors_BD, vectors_BD[:, None, :], mask_BS)

  def assign(self, vectors_BD, documents_B):
    """[B, L] int32 codes of documents: those they have, or the nearest.

    Args:
      vectors_BD: unit vectors from `project` or `encode`.
      documents_B: int32 numbers of the documents in the corpus trained on, -1
        for a document that is new to the model.
    """
    known_BL = self.identifiers(documents_B)
    nearest_BWL, _ = self.candidates(vectors_BD, documents_B)
    return jnp.where(known_BL >= 0, known_BL, nearest_BWL[:, 0])

  def candidates(self, vectors_BD, documents_B):
    """Identifiers that a document could have, without noise.

    Args:
      vectors_BD: as `assign` takes them.
      documents_B: the same.

    Returns:
      [B, W, L] int32 identifiers, the nearest first, and [B, W] their costs.
    """
    coded_BD = self.moved(vectors_BD, documents_B)
    return self.indexer.candidates(coded_BD, self.config.assign_beams)

  def mean_square(self, codes_XL):
    """Mean |zhat|^2 of what identifiers stand for."""
    quantised_XD = stand_for(self.indexer.codebooks(), codes_XL)
    return jnp.mean(jnp.sum(quantised_XD**2, axis=-1))

  def assign_new(self, vectors_BD, square):
    """[B, L] int32 codes of documents that come after training.

    Nearest is not enough: codewords that have learned to be found stand for
    vectors longer than documents' own, all about as long, and scores by
    distance count the length. The nearest identifiers of vectors as long as
    those and longer are looked at, and the one that scores as the document
    would, a little less for all queries, is taken: `candidates.scored_alike`
    and `candidates.ASIDE`; our reconstruction.

    Args:
      vectors_BD: unit vectors from `project` or `encode`.
      square: mean |zhat|^2 of the identifiers trained with.
    """
    found = [
      self.indexer.candidates(
        jnp.sqrt(longer * square) * vectors_BD, self.config.assign_beams
      )
      for longer in LONGER
    ]
    found = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *found)
    codebooks_LKD = self.indexer.codebooks()
    return scored_alike(vectors_BD, *found, codebooks_LKD, ASIDE * square)

  def start(self, encoding, width):
    """The decoding state of `width` beams a query, see CodeDecoder.start."""
    return self.decoder.start(encoding, width)

  def decode(self, state, codes_BW, level):
    """Scores of the next code, see CodeDecoder.step."""
    return self.decoder.step(state, codes_BW, level, self.indexer.codebooks())
