"""The most likely queries of a document, by beam search without a trie."""

import functools

import jax
import jax.numpy as jnp

from gr_jax.querygen.rows import of_own_rows

_NEVER = -1e9


def beam_search(step, empty_cache, batch, config, settings):
  """The W best sequences of each document, in order.

  A sequence that has ended is kept with its log-probability over its length to
  the power of `length_penalty`; 2 W continuations are looked at in each step,
  so that W go on even where W end.

  Args:
    step: (tokens_RL so far, last_R, cache, position) -> ([R, V]
      log-probabilities, cache), R = B x W beams.
    empty_cache: rows -> cache whose leaves begin with them.
    batch: B.
    config: models.query_generator.GeneratorConfig.
    settings: SamplingSettings.

  Returns:
    [B, W, L] int32 tokens without start and end, padded with 0, and [B, W]
    float32 log-probabilities; nothing but padding where there are fewer.
  """
  width, length = settings.queries, settings.max_tokens
  grow = functools.partial(
    _grown, end=config.end, penalty=settings.length_penalty
  )

  def body(position, state):
    alive, ended, cache = state
    tokens_BWL, _, last_BW = alive
    log_probs_RV, cache = step(
      tokens_BWL.reshape(-1, length), last_BW.reshape(-1), cache, position
    )
    return of_own_rows(
      grow, alive, ended, cache, log_probs_RV, whole=(position,)
    )

  alive, ended = _beginning((batch, width), length, config.start)
  cache = empty_cache(batch * width)
  _, ended, _ = jax.lax.fori_loop(0, length, body, (alive, ended, cache))
  tokens_BWL, _, log_probs_BW = ended
  return tokens_BWL, log_probs_BW


def _grown(alive, ended, cache, log_probs_RV, position, end, penalty):
  """The state after a step.

  Args:
    alive: tokens, scores and last tokens of the sequences under way.
    ended: tokens, ranks and log-probabilities of the best that have ended.
    cache: with the step, of the sequences before it.
    log_probs_RV: of their next tokens.
    position: of these.
    end: token that ends a sequence.
    penalty: `length_penalty`.
  """
  tokens_BWL, scores_BW, _ = alive
  batch, width = scores_BW.shape
  totals_BWV = scores_BW[..., None] + log_probs_RV.reshape(batch, width, -1)
  size = totals_BWV.shape[-1]
  best_BX, places_BX = jax.lax.top_k(
    totals_BWV.reshape(batch, -1), min(2 * width, width * size)
  )
  parents_BX, next_BX = places_BX // size, places_BX % size
  ends_BX = next_BX == end
  grown_BXL = _of_beams(tokens_BWL, parents_BX)
  ended = _kept(
    ended,
    grown_BXL,
    jnp.where(ends_BX, best_BX, _NEVER),
    (position + 1.0) ** penalty,
  )
  open_BX = jnp.where(ends_BX, _NEVER, best_BX)
  scores_BW, chosen_BW = jax.lax.top_k(open_BX, width)
  last_BW = jnp.take_along_axis(next_BX, chosen_BW, axis=1)
  parents_BW = jnp.take_along_axis(parents_BX, chosen_BW, axis=1)
  tokens_BWL = _of_beams(grown_BXL, chosen_BW).at[:, :, position].set(last_BW)
  rows_R = (jnp.arange(batch)[:, None] * width + parents_BW).reshape(-1)
  cache = jax.tree.map(lambda x: x[rows_R], cache)
  return (tokens_BWL, scores_BW, last_BW), ended, cache


def _beginning(shape, length, start):
  """Sequences under way and ended ones before the first token."""
  # All beams are the same: one of them counts.
  first_W = jnp.where(jnp.arange(shape[1]) == 0, 0.0, _NEVER)
  none = jnp.zeros((*shape, length), jnp.int32)
  alive = (
    none,
    jnp.broadcast_to(first_W[None], shape),
    jnp.full(shape, start, jnp.int32),
  )
  return alive, (none, jnp.full(shape, _NEVER), jnp.full(shape, _NEVER))


def _kept(ended, tokens_BXL, log_probs_BX, length):
  """The W best of those that have ended and those that end now."""
  tokens_BWL, ranks_BW, log_probs_BW = ended
  # What holds a token that may not come takes the place of no empty one.
  ranks_BX = jnp.where(log_probs_BX > _NEVER / 2, log_probs_BX / length, _NEVER)
  ranks = jnp.concatenate([ranks_BW, ranks_BX], axis=1)
  tokens = jnp.concatenate([tokens_BWL, tokens_BXL], axis=1)
  log_probs = jnp.concatenate([log_probs_BW, log_probs_BX], axis=1)
  ranks_BW, chosen_BW = jax.lax.top_k(ranks, ranks_BW.shape[1])
  return (
    _of_beams(tokens, chosen_BW),
    ranks_BW,
    jnp.take_along_axis(log_probs, chosen_BW, axis=1),
  )


def _of_beams(values_BXL, chosen_BW):
  """[B, W, L] rows of some beams."""
  return jnp.take_along_axis(values_BXL, chosen_BW[..., None], axis=1)
