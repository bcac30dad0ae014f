"""Likelihood and accuracy of tokens, against every token written out."""

import dataclasses

import jax
import numpy as np
import pytest
from test_query_sampling import CONFIG, DOCUMENTS, V, model_and_params

from gr_jax.models.query_generator import QueryGenerator
from gr_jax.querygen.likelihood import token_metrics

# Of two documents; one query is missing, and all end in padding.
TARGETS = np.array(
  [[4, 5, 4, 3, 0], [1, 3, 0, 0, 0], [5, 5, 1, 3, 0], [0, 0, 0, 0, 0]],
  np.int32,
)


@pytest.mark.parametrize('start, pointer', [(2, True), (2, False), (0, True)])
def test_each_token_beside_all_others(start, pointer):
  model = QueryGenerator(
    dataclasses.replace(CONFIG, start=start, pointer=pointer)
  )
  _, params = model_and_params()
  inputs_RL = np.pad(TARGETS[:, :-1], ((0, 0), (1, 0)))
  inputs_RL[:3, 0] = start
  queries_RL = TARGETS
  if start:
    queries_RL = np.concatenate([inputs_RL[:, :1], TARGETS], axis=1)
  batch = {
    'document_tokens': DOCUMENTS,
    'query_tokens': queries_RL.reshape(2, 2, -1),
  }
  found = jax.device_get(token_metrics(model, params, batch))

  @jax.jit
  def log_probs(tokens_RL):
    return model.apply(
      {'params': params}, DOCUMENTS, inputs_RL, tokens_RL, method='log_probs'
    )

  log_probs_RLV = np.stack(
    [log_probs(np.full_like(TARGETS, token)) for token in range(V)], axis=-1
  )
  loss = right = count = 0
  for row, position in np.argwhere(TARGETS > 0):
    scores_V, target = log_probs_RLV[row, position], TARGETS[row, position]
    loss -= scores_V[target]
    right += target == np.argmax(scores_V)
    count += 1
  assert count == 10 and 0 < right < count
  assert found['token_accuracy'] == (right, count)
  assert found['token_loss'] == (pytest.approx(loss, rel=1e-5), count)
  # What training lowers.
  _, metrics = model.apply({'params': params}, batch, True, method='loss')
  assert metrics['token_loss'][0] == pytest.approx(loss, rel=1e-5)
