"""The model that T5X is given, without T5X: its loss, state and predictions."""

import dataclasses

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from flax.linen import partitioning

from gr_jax.data.loader import LoaderSettings
from gr_jax.data.ranked_lists import ListSettings
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.objectives.weighted_sum import ObjectiveSettings, only
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.run_settings import RunSettings
from gr_jax.schedule import Schedule
from gr_jax.t5x.contract import RetrieverModel
from gr_jax.t5x.identifiers import CurrentTrie, read_identifiers
from gr_jax.t5x.run import axis_rules
from gr_jax.training.initial import make_state
from gr_jax.training.mesh import RULES
from gr_jax.training.stages import stage_objective, stage_optimizers
from gr_jax.training.state import TrainingSettings
from gr_jax.training.step import make_step
from gr_jax.types import NO_DOC, UserError

T5 = T5Config(
  vocab_size=20,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  num_encoder_layers=1,
  num_decoder_layers=1,
  mlp_dim=16,
)
SETTINGS = RunSettings(
  'runs/test',
  model=RetrieverConfig(
    encoder=T5,
    indexer=ResidualConfig(positions=2, codes=4),
    decoder=CodeDecoderConfig(
      stack=dataclasses.replace(T5, num_decoder_layers=0)
    ),
    width=8,
    queue=8,
  ),
  training=TrainingSettings(
    steps=20,
    dense_fraction=0.0,
    settled_fraction=0.0,
    train_encoder=True,
    noise=Schedule(0.5, kind='constant'),
  ),
  # All criteria take long to compile, and are tested elsewhere.
  objective=only(ObjectiveSettings(), 'generation', 'bottleneck', 'density'),
  search=SearchSettings(beams=4),
)
DOCUMENTS = 12
IDENTIFIERS = np.random.default_rng(0).integers(0, 4, (DOCUMENTS, 2))


def batch():
  keys = jax.random.split(jax.random.key(0))
  tokens = [jax.random.randint(key, (6, 5), 1, 20) for key in keys]
  return {
    'query_tokens': tokens[0],
    'document_tokens': tokens[1],
    'document_index': jnp.arange(6),
  }


@pytest.fixture(scope='module')
def model():
  return RetrieverModel(SETTINGS, DOCUMENTS, 'codes')


@pytest.fixture(scope='module')
def variables(model):
  return flax.core.freeze(model.get_initial_variables(None, {}))


def test_what_trains_is_real_and_every_leaf_names_its_axes(variables):
  params = traverse_util.flatten_dict(flax.core.unfreeze(variables['params']))
  assert all(leaf.dtype == jnp.float32 for leaf in params.values())
  assert not {path[0] for path in params} & {'identifiers', 'query_means'}
  assert variables['frozen']['identifiers']['table'].shape == (DOCUMENTS, 2)
  known = dict(axis_rules())
  for name in ('params', 'frozen', 'usage'):
    leaves = traverse_util.flatten_dict(flax.core.unfreeze(variables[name]))
    axes = traverse_util.flatten_dict(
      flax.core.unfreeze(partitioning.get_axis_names(variables[f'{name}_axes']))
    )
    assert leaves.keys() == axes.keys()
    for path, leaf in leaves.items():
      assert len(axes[path]) == leaf.ndim
      assert set(axes[path]) <= {*known, None}
  codebooks = variables['params_axes']['indexer']['codebooks_axes']
  assert codebooks.names == ('code_positions', 'codes', 'embed')


def test_rules_are_those_of_our_mesh():
  mine = axis_rules()
  assert [name for name, _ in mine] == [name for name, _ in RULES]
  assert dict(mine)['batch'] == 'data'
  assert dict(mine)['codes'] == 'model'
  assert dict(mine)['embed'] is None


def test_training_is_that_of_our_step_with_dropout_and_noise(model, variables):
  training = SETTINGS.training
  optimizer = stage_optimizers(training)['codes']
  params = variables['params']
  mutables = flax.core.freeze({k: variables[k] for k in ('frozen', 'usage')})
  whole = {
    **flax.core.unfreeze(params),
    **flax.core.unfreeze(mutables['frozen']),
  }
  copy = jax.tree.map(jnp.copy, whole)
  usage = jax.tree.map(jnp.copy, flax.core.unfreeze(mutables['usage']))
  ours = make_state(copy, usage, optimizer, train_encoder=True)
  step = make_step(
    model.module,
    optimizer=optimizer,
    settings=training,
    objective_settings=stage_objective(SETTINGS.objective, 'codes'),
    upkeep=None,
    seed=SETTINGS.seed,
  )

  @jax.jit
  def theirs(params, state, mutables, step):
    """What T5X's trainer does, with the rng that ours gives it."""
    key = jax.random.fold_in(jax.random.key(SETTINGS.seed), step)
    (_, (metrics, mutables)), grads = jax.value_and_grad(
      model.loss_fn, has_aux=True
    )(params, {**batch(), 'step': step}, jax.random.split(key, 1)[0], mutables)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, mutables, metrics

  state = optimizer.init(params)
  for number in range(3):
    params, state, mutables, metrics = theirs(
      params, state, mutables, jnp.int32(number)
    )
    ours, measured = step(ours, batch())
    for name, average in metrics.items():
      total, count = measured[name]
      np.testing.assert_allclose(
        average.compute(), total / count, rtol=1e-5, atol=1e-6, err_msg=name
      )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    (ours.params, ours.usage),
    (flax.core.unfreeze(params), flax.core.unfreeze(mutables['usage'])),
  )


def test_evaluation_draws_nothing_and_changes_nothing(model, variables):
  evaluate = jax.jit(model.eval_fn)
  losses = [
    evaluate(variables['params'], {**batch(), 'step': step}, variables)[0]
    for step in (0, 0, 19)
  ]
  assert losses[0] == losses[1] != losses[2]


@pytest.fixture(scope='module')
def found(variables):
  identifiers = IDENTIFIERS.copy()
  identifiers[3] = -1
  model = RetrieverModel(SETTINGS, DOCUMENTS, 'settled', places=7)
  frozen = variables['frozen'].copy(
    {'identifiers': {'table': jnp.asarray(identifiers, jnp.int32)}}
  )
  answer = jax.jit(model.predict_batch_with_aux)(
    variables['params'], batch(), None, variables.copy({'frozen': frozen})
  )
  return jax.device_get(answer), identifiers


def test_predictions_are_documents_by_the_score_of_their_identifiers(found):
  (documents_BC, aux), identifiers = found
  assert documents_BC.shape == (6, 7)
  for row, documents in enumerate(documents_BC):
    real = documents[documents != NO_DOC]
    assert len(set(real)) == len(real) > 0
    assert 3 not in real
    np.testing.assert_array_equal(
      aux['codes'][row, : len(real)], identifiers[real]
    )
    assert (np.diff(aux['scores'][row, : len(real)]) <= 0).all()


def test_scores_are_log_probabilities_of_the_documents_identifiers(
  model, variables
):
  score = jax.jit(
    lambda frozen: model.score_batch(
      variables['params'], batch(), False, {'frozen': frozen}
    )
  )

  def scores(identifiers):
    table = jnp.asarray(identifiers, jnp.int32)
    return score(variables['frozen'].copy({'identifiers': {'table': table}}))

  all_scores = [
    scores(np.tile([a, b], (DOCUMENTS, 1))) for a in range(4) for b in range(4)
  ]
  # Over all identifiers they are a distribution.
  np.testing.assert_allclose(np.exp(all_scores).sum(axis=0), 1, rtol=1e-5)
  numbers_B = IDENTIFIERS[:6] @ [4, 1]
  np.testing.assert_allclose(
    scores(IDENTIFIERS), np.asarray(all_scores)[numbers_B, np.arange(6)], 1e-5
  )


def test_the_trie_follows_identifiers_that_move():
  trie = CurrentTrie((4, 4))
  tables = jax.jit(trie.tables)
  for codes in (IDENTIFIERS, IDENTIFIERS[::-1].copy()):
    built = jax.device_get(tables(codes.astype(np.int32)))
    documents = built.documents[: built.count]
    assert sorted(documents) == list(range(DOCUMENTS))
    columns = built.columns[:, : built.count].T
    np.testing.assert_array_equal(columns, codes[documents])
  with pytest.raises(Exception, match='name an index'):
    jax.block_until_ready(tables(np.full((DOCUMENTS, 2), -1, np.int32)))


@pytest.mark.parametrize(
  'changed, stage, told',
  [
    ({}, 'code', "one of .*did you mean 'codes'"),
    (
      {'loader': LoaderSettings(hard_negatives=2)},
      'codes',
      'hard_negatives = 0',
    ),
    (
      {'training': dataclasses.replace(SETTINGS.training, accumulate=2)},
      'codes',
      'accumulate = 1',
    ),
  ],
)
def test_what_t5x_cannot_do_is_refused(changed, stage, told):
  settings = dataclasses.replace(SETTINGS, **changed)
  with pytest.raises(UserError, match=told):
    RetrieverModel(settings, DOCUMENTS, stage)


def distilling():
  """Settings of a run that follows the rankings of a teacher."""
  return dataclasses.replace(
    SETTINGS,
    trained_run='runs/before',
    lists=ListSettings('rankings', lists=1, size=3),
    training=dataclasses.replace(
      SETTINGS.training, settled_fraction=1.0, settled_rounds=0
    ),
    objective=dataclasses.replace(SETTINGS.objective, distillation=1.0),
  )


def test_a_teacher_is_not_dropped_for_batches_without_its_lists(variables):
  model = RetrieverModel(distilling(), DOCUMENTS, 'settled')
  mutables = flax.core.freeze({k: variables[k] for k in ('frozen', 'usage')})
  arguments = variables['params'], {**batch(), 'step': 0}
  with pytest.raises(UserError, match='prepared_batches'):
    model.loss_fn(*arguments, jax.random.key(0), mutables)
  # Queries that are evaluated have none.
  shapes = jax.eval_shape(model.eval_fn, *arguments, variables)
  assert 'distillation' not in shapes[1]


def test_lists_that_a_run_ranks_anew_are_refused():
  settings = dataclasses.replace(
    distilling(),
    lists=ListSettings(refresh_every=5),
    training=dataclasses.replace(distilling().training, train_encoder=False),
  )
  with pytest.raises(UserError, match='refresh_every = 0 for T5X'):
    RetrieverModel(settings, DOCUMENTS, 'settled')


def test_tables_of_identifiers_are_checked(tmp_path):
  ids = [f'd{number}' for number in range(DOCUMENTS)]
  path = tmp_path / 'codes.npy'
  np.save(path, IDENTIFIERS)
  found = read_identifiers(str(path), ids, (4, 4))
  np.testing.assert_array_equal(found, IDENTIFIERS)
  with pytest.raises(UserError, match='expected'):
    read_identifiers(str(path), ids[1:], (4, 4))
  with pytest.raises(UserError, match='outside'):
    read_identifiers(str(path), ids, (4, 3))
