"""Queries drawn from a generator: top-k, nucleus, temperature, or a beam.

All sequences of a batch grow by one token at a time over a key/value cache
until each has ended. What a document is given depends on the seed, its id and
the shape of the program alone: rows share no randomness.
"""

import dataclasses
import functools
import math

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.querygen.beam_search import beam_search
from gr_jax.querygen.repeats import repeating_tokens
from gr_jax.querygen.rows import of_own_rows
from gr_jax.types import UserError, check_option, check_range

_NEVER = -1e9
# Halvings of an interval of log-probabilities that find the nucleus.
_HALVINGS = 40


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
  """How queries are drawn.

  Attributes:
    queries: W, drawn for each document in one pass.
    method: 'sample' (independent draws) or 'beam' (the W best).
    temperature: scores are divided by it; small ones draw what is likely.
    top_k: tokens that are drawn from, the most likely ones; 0 for all.
    top_p: of these, the fewest that hold as much probability (nucleus sampling,
      Holtzman et al. 2019, arXiv 1904.09751); 1 for all.
    max_tokens: of a query, its end included.
    min_tokens: of a query before its end.
    length_penalty: of a beam: its log-probability is divided by its length to
      this power.
    no_repeat_ngram: n-grams of so many tokens are written once in a query, its
      prefix apart; 0 lets them repeat. Where no other token may come, they do.
  """

  queries: int = 10
  method: str = 'sample'
  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 0.9
  max_tokens: int = 24
  min_tokens: int = 2
  length_penalty: float = 1.0
  no_repeat_ngram: int = 0

  def __post_init__(self):
    check_option('SamplingSettings.method', self.method, ('sample', 'beam'))
    check_range(
      self,
      {
        'queries': (1, math.inf),
        'temperature': (1e-3, math.inf),
        'top_k': (0, math.inf),
        'top_p': (1e-6, 1 + 1e-9),
        'max_tokens': (self.min_tokens + 1, math.inf),
        'min_tokens': (0, math.inf),
        'length_penalty': (0, math.inf),
        'no_repeat_ngram': (0, math.inf),
      },
    )


@flax.struct.dataclass
class _Drawn:
  """Sequences under way.

  Attributes:
    tokens_RL: int32 tokens so far, the start left out, 0 past the end.
    log_probs_R: float32 sum of their log-probabilities.
    ended_R: which have ended.
    last_R: int32 tokens to go on from.
    cache: of the decoder.
    position: of the next token.
  """

  tokens_RL: jax.Array
  log_probs_R: jax.Array
  ended_R: jax.Array
  last_R: jax.Array
  cache: object
  position: jax.Array


@functools.partial(
  jax.jit, static_argnames=('model', 'settings', 'prefix', 'never')
)
def draw(model, params, documents_BS, keys_B, settings, prefix=(), never=()):
  """Queries of a batch of documents.

  Args:
    model: models.query_generator.QueryGenerator.
    params: of the model.
    documents_BS: int32 tokens of documents, padded with 0.
    keys_B: random keys, one a document; not read for a beam.
    settings: SamplingSettings.
    prefix: tokens that every query begins with, as the name of a language.
    never: tokens that no query has, as the one for what a vocabulary lacks.

  Returns:
    [B, W, L] int32 tokens of queries without start and end, padded with 0, and
    [B, W] float32 log-probabilities; of a beam the best first.

  Raises:
    UserError: the prefix leaves no room for a query.
  """
  if len(prefix) + settings.min_tokens >= settings.max_tokens:
    raise UserError(
      f'a prefix of {len(prefix)} tokens leaves none of '
      f'SamplingSettings.max_tokens = {settings.max_tokens} for a query'
    )
  config = model.config
  apply = functools.partial(model.apply, {'params': params})
  read = apply(documents_BS, method='read')
  batch, width = documents_BS.shape[0], settings.queries

  def step(tokens_RL, last_R, cache, position):
    log_probs_RV, cache = apply(read, last_R, cache, position, method='step')
    # Brought together once: to look for a nucleus sums them many times.
    log_probs_RV = nn.with_logical_constraint(log_probs_RV, ('batch', None))
    size = log_probs_RV.shape[-1]
    never_RV = _never(
      tokens_RL, position, size, config, settings, prefix, never
    )
    return jnp.where(never_RV, _NEVER, log_probs_RV), cache

  def empty_cache(rows):
    return apply(rows, settings.max_tokens, method='empty_cache')

  if settings.method == 'beam':
    return beam_search(step, empty_cache, batch, config, settings)
  keys_R = jax.vmap(
    lambda key: jax.vmap(functools.partial(jax.random.fold_in, key))(
      jnp.arange(width)
    )
  )(keys_B).reshape(-1)
  drawn = _sample(step, empty_cache(batch * width), keys_R, config, settings)
  shape = batch, width
  return drawn.tokens_RL.reshape(*shape, -1), drawn.log_probs_R.reshape(shape)


def _sample(step, cache, keys_R, config, settings):
  """Sequences drawn until all have ended."""
  rows = len(keys_R)

  def body(drawn):
    position = drawn.position
    log_probs_RV, cache = step(
      drawn.tokens_RL, drawn.last_R, drawn.cache, position
    )
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys_R, position)
    uniform_R = jax.vmap(jax.random.uniform)(keys)
    chosen_R = chosen_tokens(log_probs_RV, uniform_R, settings)
    gained_R1 = jnp.take_along_axis(log_probs_RV, chosen_R[:, None], axis=-1)
    ended_R = drawn.ended_R | (chosen_R == config.end)
    return _Drawn(
      tokens_RL=drawn.tokens_RL.at[:, position].set(
        jnp.where(ended_R, 0, chosen_R)
      ),
      log_probs_R=drawn.log_probs_R
      + jnp.where(drawn.ended_R, 0.0, gained_R1[:, 0]),
      ended_R=ended_R,
      last_R=jnp.where(ended_R, config.end, chosen_R),
      cache=cache,
      position=position + 1,
    )

  def going_on(drawn):
    return (drawn.position < settings.max_tokens) & ~jnp.all(drawn.ended_R)

  return jax.lax.while_loop(
    going_on,
    body,
    _Drawn(
      tokens_RL=jnp.zeros((rows, settings.max_tokens), jnp.int32),
      log_probs_R=jnp.zeros(rows),
      ended_R=jnp.zeros(rows, bool),
      last_R=jnp.full(rows, config.start, jnp.int32),
      cache=cache,
      position=jnp.int32(0),
    ),
  )


def _never(tokens_RL, position, size, config, settings, prefix, never):
  """[1, V] or [R, V] bool, the tokens that must not come here.

  Padding, the start and what is named never come, the end not before there is
  a query, and last of all nothing else; a prefix is forced, and n-grams may be
  forbidden that were written before.
  """
  tokens_V = jnp.arange(size)
  never_V = (tokens_V == 0) | ((tokens_V == config.start) & (tokens_V > 0))
  never_V = never_V.at[jnp.asarray(never, jnp.int32)].set(True)
  ends_V = tokens_V == config.end
  early = position < settings.min_tokens + len(prefix)
  last = position == settings.max_tokens - 1
  never_V = never_V | (early & ends_V) | (last & ~ends_V)
  if prefix:
    forced = jnp.asarray(prefix)[jnp.minimum(position, len(prefix) - 1)]
    never_V = jnp.where(position < len(prefix), tokens_V != forced, never_V)
  never_1V = never_V[None]
  if not settings.no_repeat_ngram:
    return never_1V
  never_RV = never_1V | repeating_tokens(
    tokens_RL, position, settings.no_repeat_ngram, len(prefix), size
  )
  return jnp.where(
    jnp.all(never_RV, axis=-1, keepdims=True), never_1V, never_RV
  )


def chosen_tokens(log_probs_RV, uniform_R, settings):
  """Tokens drawn by inverting the distribution that the settings leave.

  Temperature comes first, then top-k, then the nucleus of what is left, as in
  `transformers`.

  Args:
    log_probs_RV: of all tokens.
    uniform_R: draws from [0, 1).
    settings: SamplingSettings.

  Returns:
    [R] int32 tokens.
  """
  scores_RV = log_probs_RV / settings.temperature
  if settings.top_k:
    # Best first: their order is that of their ranks.
    k = min(settings.top_k, scores_RV.shape[-1])
    scores_RK, tokens_RK = of_own_rows(
      functools.partial(jax.lax.top_k, k=k), scores_RV
    )
    probs_RK = jax.nn.softmax(scores_RK)
    before_RK = jnp.cumsum(probs_RK, axis=-1) - probs_RK
    kept_RK = jnp.where(before_RK < settings.top_p, probs_RK, 0.0)
    places_R = _inverted(kept_RK, uniform_R)
    return jnp.take_along_axis(tokens_RK, places_R[:, None], axis=-1)[:, 0]
  probs_RV = jax.nn.softmax(scores_RV)
  if settings.top_p < 1:
    probs_RV = jnp.where(in_nucleus(probs_RV, settings.top_p), probs_RV, 0.0)
  return _inverted(probs_RV, uniform_R)


def in_nucleus(probs_RV, top_p):
  """[R, V] bool: the fewest tokens that hold a share `top_p`, with all ties.

  Found by halving an interval of thresholds: no sorting of the vocabulary.

  Args:
    probs_RV: probabilities.
    top_p: share, below 1.
  """

  def halve(_, interval):
    low_R1, high_R1 = interval
    middle_R1 = (low_R1 + high_R1) / 2
    kept_R1 = jnp.sum(
      probs_RV, axis=-1, where=probs_RV >= middle_R1, keepdims=True
    )
    enough_R1 = kept_R1 >= top_p
    return (
      jnp.where(enough_R1, middle_R1, low_R1),
      jnp.where(enough_R1, high_R1, middle_R1),
    )

  highest_R1 = jnp.max(probs_RV, axis=-1, keepdims=True)
  low_R1, _ = jax.lax.fori_loop(
    0, _HALVINGS, halve, (jnp.zeros_like(highest_R1), highest_R1)
  )
  return probs_RV >= low_R1


def _inverted(weights_RK, uniform_R):
  """[R] int32 places drawn in proportion to weights."""
  # Sums of parallel scans need not rise: a place without weight may stand above
  # all before it, and the last below another.
  sums_RK = jnp.where(weights_RK > 0, jnp.cumsum(weights_RK, axis=-1), 0.0)
  wanted_R = uniform_R * jnp.max(sums_RK, axis=-1)
  return jnp.argmax(sums_RK > wanted_R[:, None], axis=-1).astype(jnp.int32)
