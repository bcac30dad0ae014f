"""How well a generator foretells queries that were written already."""

import functools

import jax
import jax.numpy as jnp

from gr_jax.models.query_generator import QueryGenerator, inputs_and_targets


@functools.partial(jax.jit, static_argnames='model')
def token_metrics(model: QueryGenerator, params, batch) -> dict:
  """Likelihood of queries, each token after the right ones before it.

  One position after the other, as queries are drawn: the scores of a whole
  vocabulary stand side by side for one token of each query alone.

  Args:
    model: the generator.
    params: of the model.
    batch: 'document_tokens' [B, S] and 'query_tokens' [B, W, L], as its `loss`
      takes them.

  Returns:
    {'token_loss': (nats, tokens), 'token_accuracy': (tokens that no other is
    likelier than, tokens)}, padding left out.
  """
  inputs_RL, targets_RL = inputs_and_targets(
    batch['query_tokens'], model.config.start
  )
  rows, length = targets_RL.shape
  apply = functools.partial(model.apply, {'params': params})
  read = apply(batch['document_tokens'], method='read')

  def foretold(cache, at):
    position, inputs_R, targets_R = at
    log_probs_RV, cache = apply(read, inputs_R, cache, position, method='step')
    found_R1 = jnp.take_along_axis(log_probs_RV, targets_R[:, None], axis=-1)
    right_R = jnp.argmax(log_probs_RV, axis=-1) == targets_R
    return cache, (found_R1[:, 0], right_R)

  _, (log_probs_LR, right_LR) = jax.lax.scan(
    foretold,
    apply(rows, length, method='empty_cache'),
    (jnp.arange(length), inputs_RL.T, targets_RL.T),
  )
  real_LR = targets_RL.T > 0
  count = jnp.sum(real_LR)
  return {
    'token_loss': (-jnp.sum(log_probs_LR, where=real_LR), count),
    'token_accuracy': (jnp.sum(right_LR, where=real_LR), count),
  }
