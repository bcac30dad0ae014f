"""What an index ranks by and identifiers code: documents near their queries."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_retriever import batch, config, initial, outputs, usage

from gr_jax.indexers.product import ProductConfig
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.indexers.sampling import SamplingConfig
from gr_jax.indexers.static import StaticConfig
from gr_jax.indexers.tables import TABLES
from gr_jax.indexers.upkeep import UpkeepConfig
from gr_jax.models.retriever import Retriever
from gr_jax.objectives.uncertainty import LEAST, weigh_by_uncertainty
from gr_jax.objectives.weighted_sum import ObjectiveSettings, objective, only
from gr_jax.types import UserError


def unit(seed, rows=4, width=8):
  vectors = jax.random.normal(jax.random.key(seed), (rows, width))
  return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize('share', [0.0, 0.25, 1.0])
@pytest.mark.parametrize(
  'indexer', [ResidualConfig(3, 5), StaticConfig('random', 3, 5)]
)
def test_a_document_is_ranked_between_itself_and_its_queries(share, indexer):
  model = Retriever(
    config(query_share=share, indexer=indexer, ranks_moved=True)
  )
  params = dict(initial(model)['params'])
  means = np.array(unit(1, rows=3), np.float16)
  means[1] = 0  # No query asks for the second document.
  if share:
    params['query_means'] = {'table': jnp.asarray(means)}
  else:
    assert 'query_means' not in params
  vectors = unit(2)
  found = model.apply(
    {'params': params}, vectors, jnp.array([0, 1, 2, -1]), method='moved'
  )
  for row, document in ((0, 0), (2, 2)):
    mixed = (1 - share) * vectors[row] + share * means[document]
    mixed = mixed / jnp.linalg.norm(mixed)
    np.testing.assert_allclose(found[row], mixed, atol=1e-3)
  # Without a query, and new to the model: by its own vector alone.
  for row in (1, 3):
    np.testing.assert_allclose(found[row], vectors[row], atol=1e-6)


def test_fixed_identifiers_need_no_queries_where_the_index_does_not_either():
  """The table is as long as the corpus and as wide as its vectors."""
  model = Retriever(config(indexer=StaticConfig('random', 3, 5)))
  params = initial(model)['params']
  assert model.config.query_share and 'query_means' not in params
  found = model.apply(
    {'params': params}, unit(2), jnp.arange(4), method='moved'
  )
  np.testing.assert_array_equal(found, unit(2))


def test_codes_are_assigned_to_what_is_coded():
  model = Retriever(config(query_share=1.0))
  params = dict(initial(model)['params'])
  vectors = unit(2)
  params['query_means'] = {'table': jnp.asarray(vectors[::-1], jnp.float16)}

  def assign(numbers):
    return model.apply(
      {'params': params}, vectors, jnp.asarray(numbers), method='assign'
    )

  known, new = assign([0, 1, 2, 3]), assign([-1] * 4)
  np.testing.assert_array_equal(known, new[::-1])
  assert np.any(known != new)


@pytest.mark.parametrize(
  'indexer', [ResidualConfig(3, 5), StaticConfig('rq_kmeans', 3, 5)]
)
def test_a_document_keeps_the_identifier_it_has(indexer):
  model = Retriever(config(indexer=indexer))
  params = dict(initial(model)['params'])
  table = jnp.array([[4, 0, 1], [-1, -1, -1], [2, 3, 0]], jnp.int32)
  params['identifiers'] = {'table': table}

  def assign(numbers):
    return model.apply(
      {'params': params}, unit(2), jnp.asarray(numbers), method='assign'
    )

  found, new = assign([0, 1, 2, -1]), assign([-1] * 4)
  np.testing.assert_array_equal(found[0], table[0])
  np.testing.assert_array_equal(found[2], table[2])
  # One that has none is as good as new.
  np.testing.assert_array_equal(found[1], new[1])
  np.testing.assert_array_equal(found[3], new[3])


def test_settled_identifiers_train_their_codewords_alone():
  model = Retriever(config())
  params = dict(initial(model)['params'])
  codes = jnp.array([[4, 0, 1], [3, 3, 3], [2, 3, 0], [1, 1, 1]], jnp.int32)
  params['identifiers'] = {'table': codes}
  settings = only(ObjectiveSettings(), 'quantised')

  def found(params, settled):
    return outputs(model.clone(settled=settled), params, batch(), noise=9.0)

  def loss(books, settled):
    changed = {**params, 'indexer': {'codebooks': books}}
    out = found(changed, settled)
    return objective(out, jnp.arange(4), (5, 5, 5), settings, 0.5)[0]

  assignment = found(params, True).assignment
  np.testing.assert_array_equal(assignment.codes_BL, codes)
  assert np.any(found(params, False).assignment.codes_BL != codes)
  gradient = jax.grad(loss)(params['indexer']['codebooks'], True)
  moved = np.max(np.abs(gradient), axis=-1) > 0
  used = np.zeros((3, 5), bool)
  used[np.arange(3), codes] = True
  np.testing.assert_array_equal(moved, used)


@pytest.mark.parametrize(
  'indexer', [ResidualConfig(3, 5), StaticConfig('random', 3, 5)]
)
def test_an_index_needs_no_tables(indexer):
  model = Retriever(config(indexer=indexer))
  params = initial(model)['params']
  searched = {k: v for k, v in params.items() if k not in TABLES}
  assert len(searched) < len(params)
  arguments = unit(2), jnp.full(4, -1)
  np.testing.assert_array_equal(
    *(
      model.apply({'params': p}, *arguments, method='assign')
      for p in (params, searched)
    )
  )


@pytest.mark.parametrize(
  'indexer',
  [
    ResidualConfig(2, (5, 3)),
    ProductConfig(2, (5, 3)),
    StaticConfig('rq_kmeans', 2, (5, 3)),
  ],
)
@pytest.mark.parametrize('longer', [1.0, 3.0])
def test_a_new_document_gets_the_identifier_that_scores_as_it_would(
  indexer, longer
):
  """More beams than identifiers: what is taken is the best of all.

  Those trained with score q . zhat - |zhat|^2 / 2, the half of the mean square
  less than q . d on average; new ones are to score 4 % of that square less.
  """
  model = Retriever(config(indexer=indexer, assign_beams=16))
  params = dict(initial(model)['params'])
  found = {'params': params}
  books = model.apply(found, method=lambda m: m.indexer.codebooks())
  params['indexer'] = {
    **params['indexer'], 'codebooks': longer * params['indexer']['codebooks']
  }  # fmt: skip
  identifiers = np.stack(np.divmod(np.arange(15), 3), axis=1)
  vectors = np.asarray(unit(2), np.float64)
  stands = longer * np.asarray(books, np.float64)
  stands = stands[0][identifiers[:, 0]] + stands[1][identifiers[:, 1]]
  square = np.mean(np.sum(stands**2, -1))
  np.testing.assert_allclose(
    model.apply(found, identifiers, method='mean_square'), square, rtol=1e-5
  )
  # Over the unit queries of an even design: both ways along each axis.
  queries = np.concatenate([np.eye(8), -np.eye(8)])
  scores = queries @ stands.T - np.sum(stands**2, -1) / 2 + square / 2
  scores += 0.04 * square
  errors = (scores[:, None] - (queries @ vectors.T)[:, :, None]) ** 2
  best = identifiers[errors.mean(0).argmin(-1)]
  codes = model.apply(found, unit(2), square, method='assign_new')
  np.testing.assert_array_equal(codes, best)


UNCERTAIN = config(
  indexer=ResidualConfig(
    3, 5, sampling=SamplingConfig(noise='uncertainty', uncertain=0.7)
  )
)


def test_the_learned_noise_takes_the_place_of_the_schedule():
  model = Retriever(UNCERTAIN)
  assert model.config.learns_noise and not config().learns_noise
  assert not config(indexer=StaticConfig('random', 3, 5)).learns_noise
  params = initial(model)['params']
  assert float(params['learned_noise']['scale']) == pytest.approx(0.7)

  def samples(noise, scale):
    changed = {**params, 'learned_noise': {'scale': jnp.float32(scale)}}
    found = outputs(model, changed, batch(), noise=noise)
    return np.asarray(found.assignment.sample_BLK)

  np.testing.assert_array_equal(samples(0.0, 3.0), samples(9.0, -3.0))
  assert np.any(samples(0.0, 3.0) != samples(0.0, 1e-9))


def test_the_scale_of_the_noise_learns_from_generation_alone():
  model = Retriever(UNCERTAIN)
  params = initial(model)['params']
  settings = only(ObjectiveSettings(), 'generation')

  @jax.jit
  def gradient(params):
    def loss(params):
      out = outputs(model, params, batch())
      return objective(out, jnp.arange(4), (5, 5, 5), settings, 0.5)

    return jax.grad(loss, has_aux=True, allow_int=True)(params)

  found, metrics = gradient(params)
  total, count = metrics['generation']
  assert metrics['uncertainty'][0] == pytest.approx(0.7)
  alone = jax.grad(lambda s: weigh_by_uncertainty(total / count, {}, s, 3)[0])
  assert found['learned_noise']['scale'] == pytest.approx(
    float(alone(0.7)), rel=1e-4
  )


def test_the_noise_falls_as_the_loss_falls():
  def step(scale, loss):
    slope = jax.grad(lambda s: weigh_by_uncertainty(loss, {}, s, 3)[0])(scale)
    return scale - 0.02 * slope, scale

  losses = jnp.concatenate([jnp.full(200, 6.0), jnp.linspace(6.0, 0.3, 400)])
  last, scales = jax.lax.scan(step, 0.7, losses)
  # It first goes to where it belongs, then down with the loss.
  assert scales[199] == pytest.approx(np.sqrt(6 / 3) - LEAST, abs=0.02)
  assert np.all(np.diff(scales[220:]) < 0)
  assert last == pytest.approx(np.sqrt(0.3 / 3) - LEAST, abs=0.1)


@pytest.mark.parametrize('reads, reconstructs', [(True, False), (False, True)])
def test_what_optional_criteria_read_is_there_when_asked_for(
  reads, reconstructs
):
  model = Retriever(config(reads_queries=reads, reconstructs=reconstructs))
  params = initial(model)['params']
  found = outputs(model, params, batch())
  assert (found.query_probs_BLK is not None) == reads
  assert (found.reconstruction is not None) == reconstructs
  if reads:
    np.testing.assert_allclose(
      jnp.sum(found.query_probs_BLK, axis=-1), 1, rtol=1e-5
    )
  else:
    pooled_BE, rebuilt_BE = found.reconstruction
    assert pooled_BE.shape == rebuilt_BE.shape
    np.testing.assert_allclose(
      pooled_BE,
      model.apply(
        {'params': params}, batch()['document_tokens'], method='backbone'
      ).pooled_BE,
      atol=1e-6,
    )


def test_mined_negatives_are_read_as_documents_are():
  model = Retriever(config())
  params = initial(model)['params']
  tokens = batch()['document_tokens']
  plain = outputs(model, params, batch())
  assert plain.negatives == ()
  more = {
    'negative_index': jnp.array([[5, 6], [7, 8]] * 2),
    'negative_tokens': jnp.stack([tokens, tokens[::-1]], axis=1),
  }
  found = outputs(model, params, batch() | more)
  vectors_XD, documents_X = found.negatives
  np.testing.assert_array_equal(documents_X, [5, 6, 7, 8, 5, 6, 7, 8])
  np.testing.assert_allclose(
    vectors_XD[::2], plain.document_vectors_BD, atol=1e-5
  )
  np.testing.assert_allclose(
    vectors_XD[1::2], plain.document_vectors_BD[::-1], atol=1e-5
  )


def test_upkeep_is_kept_in_mind_only_where_it_is_on():
  assert set(usage(Retriever(config()))) == {'usage'}
  upkeep = UpkeepConfig(average=0.9, reseed_every=5)
  model = Retriever(dataclasses.replace(config(), upkeep=upkeep))
  assert set(usage(model)) == {'usage', 'upkeep'}


@pytest.mark.parametrize('changes', [{'assign_beams': 0}, {'room': -1.0}])
def test_what_gives_identifiers_is_checked(changes):
  with pytest.raises(UserError, match=next(iter(changes))):
    config(**changes)
