"""What scores the codes in benchmarks: random numbers, or a real decoder.

Both answer `functions(params, key)`, the start and the step of a beam search
for a batch of queries drawn with a key. `params` are an argument of the
compiled program, as a constant they would be folded into it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gr_jax.models.code_decoder import CodeDecoder, CodeDecoderConfig
from gr_jax.models.retriever import QueryEncoding
from gr_jax.models.t5 import T5Config

# Tokens of a query, which the decoder attends to.
_TOKENS = 32
_HEAD = 64

# (beams) -> state; (state, codes_BW, level) -> (scores_BWK, state).
Functions = tuple[
  Callable[[int], Any],
  Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]],
]


class RandomScores:
  """Log-softmax of uniform random numbers for every beam at every position."""

  params = None

  def __init__(self, sizes: Sequence[int], batch: int):
    """Keeps the shapes.

    Args:
      sizes: codes of each position, the same number at all.
      batch: B, queries.
    """
    self._codes = max(sizes)
    self._batch = batch

  def functions(self, params: None, key: jax.Array) -> Functions:
    """Start and step of a batch of queries."""
    del params

    def step(state, codes_BW, level):
      shape = (codes_BW.size, self._codes)
      logits = jax.random.uniform(jax.random.fold_in(key, level), shape)
      scores = jax.nn.log_softmax(logits)
      return scores.reshape(*codes_BW.shape, self._codes), state

    return lambda beams: jnp.zeros((self._batch, beams, 0)), step


class DecoderScores:
  """The project's code decoder, with random parameters.

  A T5 decoder stack with a cache of keys and values, that attends to the
  encoded tokens of the query; those are drawn, there is no encoder. The head
  is the default one, tied to codebooks.
  """

  def __init__(self, sizes: Sequence[int], batch: int, layers: int, width: int):
    """Draws the parameters.

    Args:
      sizes: codes of each position.
      batch: B, queries.
      layers: of the stack.
      width: of its states, the query's tokens and vector and the codewords;
        6 layers of 512 are the decoder stack of t5.1.0.small.
    """
    heads = max(width // _HEAD, 1)
    stack = T5Config(
      emb_dim=width,
      num_heads=heads,
      head_dim=width // heads,
      num_encoder_layers=0,
      num_decoder_layers=layers,
      mlp_dim=4 * width,
      mlp_activations=('relu',),
    )
    config = CodeDecoderConfig(stack=stack, attends_tokens=True)
    self._decoder = CodeDecoder(config, width, tuple(sizes))
    self._shape = batch, width
    self.params = jax.jit(self._draw)(jax.random.key(0))

  def functions(self, params: Any, key: jax.Array) -> Functions:
    """Start and step of a batch of queries."""
    decoder, encoding = params['decoder'], self._encoding(key)

    def apply(method, *arguments):
      return self._decoder.apply({'params': decoder}, *arguments, method=method)

    def step(state, codes_BW, level):
      return apply('step', state, codes_BW, level, params['codebooks'])

    return lambda beams: apply('start', encoding, beams), step

  def _draw(self, key):
    """Parameters of the decoder, and codebooks."""
    (batch, width), sizes = self._shape, self._decoder.sizes
    for_decoder, for_output, for_codebooks = jax.random.split(key, 3)
    shape = (len(sizes), max(sizes), width)
    codebooks_LKD = jax.random.normal(for_codebooks, shape) / width**0.5
    params = self._decoder.init(
      for_decoder,
      self._encoding(key),
      jnp.zeros((batch, len(sizes), width)),
      codebooks_LKD,
      deterministic=True,
    )['params']
    # It starts at zero, as if the stack said nothing.
    kernel = params['output']['kernel']
    params['output']['kernel'] = (
      jax.random.normal(for_output, kernel.shape) / width**0.5
    )
    return {'decoder': params, 'codebooks': codebooks_LKD}

  def _encoding(self, key):
    """What an encoder would say of a batch of queries."""
    batch, width = self._shape
    states_BSE = jax.random.normal(key, (batch, _TOKENS, width))
    vectors_BD = states_BSE.mean(axis=1)
    vectors_BD /= jnp.linalg.norm(vectors_BD, axis=-1, keepdims=True)
    mask_BS = jnp.ones((batch, _TOKENS), bool)
    return QueryEncoding(vectors_BD, states_BSE, mask_BS)
