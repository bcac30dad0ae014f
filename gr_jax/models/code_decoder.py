"""The code decoder: P(z|q), one code position after another.

A T5 decoder stack over code positions. Its head is tied to the indexer's
codebooks: with r_t = h_q minus the codewords chosen so far and d_t what the
stack adds, the score of code k is -gamma |r_t + d_t - E_t,k|^2 up to what all
codes have in common. The stack's output starts at zero, so that the untrained
head ranks every prefix by the distance of the query to what it stands for, the
order that the contrast of prefixes trains. Raw scores are summed by RIPOR
(arXiv 2311.09134), tied and scaled heads are DGI's (arXiv 2603.10409); the
combination, and that decoding uses a share of d_t, is our reconstruction.
"""

import dataclasses
import functools
import math

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.indexers.interface import absent_codes
from gr_jax.models import layers
from gr_jax.models.t5 import T5Config
from gr_jax.models.t5_decoder import (
  DecoderCache,
  DecoderMemory,
  T5DecoderStack,
  empty_cache,
)
from gr_jax.models.untied_head import UntiedHead
from gr_jax.parameters import parameter


@dataclasses.dataclass(frozen=True)
class CodeDecoderConfig:
  """The decoder over code positions.

  Attributes:
    stack: sizes of the T5 decoder; `num_decoder_layers` of 0 leaves geometry
      alone.
    tied: whether the head is tied to the codebooks; an untied head must learn
      the geometry again.
    normalised: whether decoding sums log-probabilities, normalised over each
      position's codes, or raw scores (as RIPOR does). Training always
      normalises.
    correction: share of what the stack adds to a tied head's target that
      decoding uses; training uses all of it. On a frozen encoder's vectors the
      stack learns its training queries by heart. With 0 it is not run at all:
      the tied head alone decodes, in a third of the time.
    sharpness: gamma, what squared distances are multiplied with, at the start
      of training.
    attends_tokens: cross-attention to the states of the query's tokens (else
      to its vector alone, all that a frozen encoder's cache holds).
  """

  stack: T5Config = T5Config(
    emb_dim=128,
    num_heads=4,
    head_dim=32,
    num_encoder_layers=0,
    num_decoder_layers=2,
    mlp_dim=256,
  )
  tied: bool = True
  normalised: bool = False
  correction: float = 0.1
  sharpness: float = 20.0
  attends_tokens: bool = False

  @property
  def stack_decodes(self):
    """Whether the stack has a say in decoding."""
    return not self.tied or self.correction != 0


@flax.struct.dataclass
class DecodingState:
  """Beams under way; every leaf is [B, W, ...], or [B, 1, ...] when shared.

  Attributes:
    residuals_BWD: r_t, the query's vector minus the chosen codewords.
    stack: what the stack reads and remembers; None where it has no say.
  """

  residuals_BWD: jax.Array
  stack: 'StackState | None'


@flax.struct.dataclass
class StackState:
  """What the stack needs of beams under way, leaves as DecodingState's.

  Attributes:
    inputs_BWM: what it reads of query and residual.
    memory: keys and values of the cross-attentions.
    cache: keys and values of the self-attentions.
  """

  inputs_BWM: jax.Array
  memory: DecoderMemory
  cache: DecoderCache


class CodeDecoder(nn.Module):
  """Scores codes from a query and the codes before.

  Attributes:
    config: sizes and head.
    width: D, of queries and codewords.
    sizes: codes of each position.
  """

  config: CodeDecoderConfig
  width: int
  sizes: tuple[int, ...]

  def setup(self):
    stack = self.config.stack
    self.absent_LK = absent_codes(self.sizes)
    # Query, residual and last codeword each have a map into the stack.
    self.input_3DM = parameter(
      'input',
      nn.initializers.lecun_normal(batch_axis=(0,)),
      (3, self.width, stack.emb_dim),
      ('stack', 'width', 'embed'),
    )
    self.position_embedding_LM = parameter(
      'position_embedding',
      nn.initializers.normal(stddev=0.02),
      (len(self.sizes), stack.emb_dim),
      ('code_positions', 'embed'),
    )
    self.stack = T5DecoderStack(stack)
    kind = TiedHead if self.config.tied else UntiedHead
    self.code_head = kind(self.config, self.width, self.sizes)
    # The parameters of the head are the decoder's own.
    nn.share_scope(self, self.code_head)

  def __call__(
    self, encoding, codewords_BLD, codebooks_LKD, *, deterministic, share=1
  ):
    """Scores of all codes at all positions, each given the codes before.

    Args:
      encoding: models.retriever.QueryEncoding; one text's states may be read by
        several rows side by side.
      codewords_BLD: codewords of the target, hard or soft ("soft teacher
        forcing", DGI, arXiv 2603.10409).
      codebooks_LKD: the indexer's codebooks.
      deterministic: no dropout.
      share: of what the stack adds to a tied head's target, see
        CodeDecoderConfig.correction.

    Returns:
      [B, L, K] float32 scores; log_softmax gives log P(z_t | z_<t, q).
    """
    before_BLD = jnp.cumsum(codewords_BLD, axis=1) - codewords_BLD
    residuals_BLD = encoding.vectors_BD[:, None, :] - before_BLD
    previous_BLD = jnp.pad(codewords_BLD, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    from_query, from_residual, from_previous = self.input_3DM
    inputs_BLM = (
      (encoding.vectors_BD @ from_query)[:, None, :]
      + residuals_BLD @ from_residual
      + previous_BLD @ from_previous
      + self.position_embedding_LM[None]
    )
    hidden_BLM = self.stack(
      layers.constrain(inputs_BLM, 'batch', 'code_positions', 'embed'),
      encoding.states_BSE,
      encoding.mask_BS,
      deterministic=deterministic,
    )
    scores_BLK = self.code_head(hidden_BLM, residuals_BLD, codebooks_LKD, share)
    scores_BLK += self.absent_LK[None]
    return layers.constrain(scores_BLK, 'batch', 'code_positions', 'codes')

  def start(self, encoding, width):
    """The state of `width` beams a query before the first code.

    Args:
      encoding: models.retriever.QueryEncoding of B queries.
      width: W.

    Returns:
      DecodingState.
    """
    residuals_BWD = jnp.repeat(encoding.vectors_BD[:, None, :], width, axis=1)
    if not self.config.stack_decodes:
      return DecodingState(residuals_BWD, None)
    batch = encoding.vectors_BD.shape[0]
    from_query, from_residual, _ = self.input_3DM
    memory = self.stack.memory(encoding.states_BSE, encoding.mask_BS)
    cache = empty_cache(self.config.stack, batch * width, len(self.sizes))
    stack = StackState(
      inputs_BWM=residuals_BWD @ (from_query + from_residual),
      memory=jax.tree.map(lambda x: x[:, None], memory),
      cache=jax.tree.map(
        lambda x: x.reshape(batch, width, *x.shape[1:]), cache
      ),
    )
    return DecodingState(residuals_BWD, stack)

  def step(self, state, codes_BW, level, codebooks_LKD):
    """Scores of the codes at one position of every beam.

    Args:
      state: DecodingState.
      codes_BW: int32 codes chosen at `level` - 1; not read at level 0.
      level: int32 scalar, may be traced.
      codebooks_LKD: the indexer's codebooks.

    Returns:
      [B, W, K] float32 scores (log-probabilities if `normalised`), and the
      state to go on from.
    """
    batch, width = codes_BW.shape
    started = jnp.where(level > 0, 1.0, 0.0)
    codebook_KD = started * codebooks_LKD[jnp.maximum(level - 1, 0)]
    residuals_BWD = state.residuals_BWD - codebook_KD[codes_BW]
    hidden_R1M, stack = None, None
    if self.config.stack_decodes:
      hidden_R1M, stack = self._step_stack(
        state.stack, codes_BW, level, codebook_KD
      )
    scores_R1K = self.code_head(
      hidden_R1M,
      residuals_BWD.reshape(batch * width, 1, -1),
      codebooks_LKD[level][None],
      self.config.correction,
      jnp.reshape(level, 1),
    )
    scores_BWK = scores_R1K.reshape(batch, width, -1)
    scores_BWK = scores_BWK + jnp.asarray(self.absent_LK)[level][None, None]
    if self.config.normalised:
      scores_BWK = jax.nn.log_softmax(scores_BWK, axis=-1)
    return scores_BWK, DecodingState(residuals_BWD, stack)

  def _step_stack(self, state, codes_BW, level, codebook_KD):
    """[B x W, 1, M] what the stack says of the next code, and its new state."""
    batch, width = codes_BW.shape
    # Codewords go through the input maps as K rows, not as B x W vectors.
    _, from_residual, from_previous = self.input_3DM
    kept_BWM = state.inputs_BWM - (codebook_KD @ from_residual)[codes_BW]
    inputs_BWM = (
      kept_BWM
      + (codebook_KD @ from_previous)[codes_BW]
      + self.position_embedding_LM[level][None, None]
    )
    rows = batch * width
    hidden_RM, cache = self.stack.step(
      inputs_BWM.reshape(rows, -1),
      jax.tree.map(lambda x: x[:, 0], state.memory),
      jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), state.cache),
      level,
    )
    cache = jax.tree.map(lambda x: x.reshape(batch, width, *x.shape[1:]), cache)
    return hidden_RM[:, None], state.replace(inputs_BWM=kept_BWM, cache=cache)


class TiedHead(nn.Module):
  """Scores codes by the distance of their codewords to what is looked for.

  Attributes:
    config: CodeDecoderConfig.
    width: D.
    sizes: codes of each position.
  """

  config: CodeDecoderConfig
  width: int
  sizes: tuple[int, ...]

  def setup(self):
    self.output = layers.Dense(
      self.width, ('embed', 'width'), kernel_init=nn.initializers.zeros_init()
    )
    self.log_sharpness_L = parameter(
      'log_sharpness',
      nn.initializers.constant(math.log(self.config.sharpness)),
      (len(self.sizes),),
      ('code_positions',),
    )

  def __call__(
    self, hidden_BLM, residuals_BLD, codebooks_LKD, share=1, levels=slice(None)
  ):
    """Scores of the codes of some positions.

    Args:
      hidden_BLM: what the stack says at these positions; not read without a
        share of it.
      residuals_BLD: r_t.
      codebooks_LKD: the codebooks of these positions.
      share: of what the stack adds to r_t that is used.
      levels: which positions they are, all by default.

    Returns:
      [B, L, K] float32 scores.
    """
    log_L = self.log_sharpness_L
    if not self.config.normalised:
      # One gamma for all positions where raw scores are summed.
      log_L = jnp.full_like(log_L, jnp.mean(log_L))
    targets_BLD = residuals_BLD
    if share:
      targets_BLD += share * self.output(hidden_BLM)
    return tied_scores(targets_BLD, codebooks_LKD, jnp.exp(log_L)[levels])


def tied_scores(targets_BLD, codebooks_LKD, sharpness_L):
  """gamma_t (2 u_t . E_t,k - |E_t,k|^2) for targets u_t.

  That is gamma_t (|u_t|^2 - |u_t - E_t,k|^2), the nearest codeword first; what
  all codes of a position have in common is left out, so that the scores of an
  untrained head add up to the squared distance of the query to what the whole
  prefix stands for.

  Args:
    targets_BLD: what each position looks for.
    codebooks_LKD: codewords.
    sharpness_L: gamma of each position.

  Returns:
    [B, L, K] float32 scores.
  """
  # Large terms cancel: at the highest precision, as squared_distances does. Not
  # an einsum: that copies the targets to turn them around, at every step.
  exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
  products_BLK = jax.vmap(exact, (1, 0), 1)(
    targets_BLD, codebooks_LKD.swapaxes(1, 2)
  )
  squares_LK = jnp.sum(codebooks_LKD**2, axis=-1)
  return sharpness_L[None, :, None] * (2 * products_BLK - squares_LK[None])
