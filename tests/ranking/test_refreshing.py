"""A run's own lists: what it finds, in its order, the same after a stop."""

import dataclasses
import functools
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax import run_lists
from gr_jax.data.loader import LoaderSettings
from gr_jax.data.ranked_lists import ListSettings
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.models.bert import BertConfig
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.listing import identifier_scores
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.objectives.distillation import DistillationSettings
from gr_jax.ranking.refreshing import RefreshedLists
from gr_jax.ranking.teacher_files import (
  TeacherRanking,
  damaged_files,
  ranking_line,
)
from gr_jax.retrieval.encoding import moved_vectors, project_vectors
from gr_jax.retrieval.from_vectors import found_by_identifiers
from gr_jax.retrieval.frozen_vectors import FrozenVectors
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.training.mesh import MeshSettings, active, make_mesh
from gr_jax.types import NO_DOC, UserError

DOCUMENTS, QUERIES, WIDTH = 30, 12, 8
RNG = np.random.default_rng(0)
FROZEN = FrozenVectors(
  RNG.normal(size=(DOCUMENTS, WIDTH)).astype(np.float32),
  {'labelled': RNG.normal(size=(QUERIES, WIDTH)).astype(np.float32)},
)
# The last two examples are of one query.
IDS = [f'q{number}' for number in [*range(QUERIES - 1), QUERIES - 2]]
FROZEN.queries['labelled'][-1] = FROZEN.queries['labelled'][-2]
ANSWERS = RNG.permutation(DOCUMENTS)[:QUERIES].astype(np.int32)
LISTS = ListSettings(lists=1, size=4, top=1, least=3, depth=10, refresh_every=4)


class Source:
  document_indices = ANSWERS

  def __len__(self):
    return QUERIES

  def examples(self, rows):
    return [
      types.SimpleNamespace(
        query_id=IDS[row],
        document_index=int(ANSWERS[row]),
        query_tokens=np.array([len('the query')]),
      )
      for row in rows
    ]


PREPARED = types.SimpleNamespace(
  document_ids=[f'd{number}' for number in range(DOCUMENTS)],
  sources={'labelled': Source()},
  manifest={'collection_sha256': 'a'},
  query_length=4,
  vocabulary=lambda: types.SimpleNamespace(
    encode=lambda text, length: [len(text)], decode=lambda tokens: 'the query'
  ),
)


@pytest.fixture(scope='module')
def opened():
  """A Retriever, and params of it as a function of a seed."""
  stack = T5Config(
    emb_dim=8, num_heads=2, head_dim=4, num_encoder_layers=0,
    num_decoder_layers=1, mlp_dim=16, dropout_rate=0.0,
  )  # fmt: skip
  encoder = BertConfig(
    vocab_size=16, emb_dim=WIDTH, num_heads=2, num_layers=1, mlp_dim=8
  )
  model = Retriever(
    RetrieverConfig(
      encoder=encoder,
      indexer=ResidualConfig(positions=2, codes=5),
      decoder=CodeDecoderConfig(stack=stack, correction=0.5),
      width=WIDTH,
      queue=8,
    )
  )
  tokens = np.ones((2, 3), np.int32)
  variables = jax.jit(
    functools.partial(
      model.init, temperature=1.0, noise=0.0, deterministic=True
    )
  )(
    jax.random.key(0),
    {
      'query_tokens': tokens,
      'document_tokens': tokens,
      'document_index': np.arange(2),
    },
  )
  codes_NL = np.random.default_rng(4).integers(0, 5, (DOCUMENTS, 2))
  codes_NL[7] = -1

  def params(seed):
    moved = jax.tree.map(
      lambda leaf: (
        leaf + 0.3 * np.random.default_rng(seed).normal(size=leaf.shape)
      ).astype(leaf.dtype),
      variables['params'],
    )
    table = {'table': jnp.asarray(codes_NL, jnp.int32)}
    means = jnp.zeros((DOCUMENTS, WIDTH), jnp.float16)
    return moved | {'identifiers': table, 'query_means': {'table': means}}

  return model, params


def test_identifiers_find_documents_in_the_order_of_their_scores(opened):
  model, params = opened
  queries_QE = FROZEN.queries['labelled']
  found_QC, first_QC = (
    found_by_identifiers(
      model, params(1), queries_QE, count, beams=DOCUMENTS, renormalised=False
    )
    for count in (DOCUMENTS, 5)
  )
  np.testing.assert_array_equal(first_QC, found_QC[:, :5])
  codes_NL = np.maximum(params(1)['identifiers']['table'], 0)

  def scores(model):
    queries = model.encode_pooled(queries_QE)
    codes_RL = jnp.tile(codes_NL, (QUERIES, 1))
    return identifier_scores(model, queries, codes_RL).sum(axis=-1)

  scores_QN = model.apply({'params': params(1)}, method=scores)
  scores_QN = np.asarray(scores_QN).reshape(QUERIES, DOCUMENTS)
  for scores_N, found_C in zip(scores_QN, found_QC, strict=True):
    # Document 7 has no identifier.
    assert set(range(DOCUMENTS)) - set(found_C) == {7}
    assert found_C[-1] == NO_DOC
    assert (np.diff(scores_N[found_C[:-1]]) < 1e-5).all()


def made(opened, folder, path='', **changes):
  """RefreshedLists, called as the loop does with parameters of each step."""
  model, params = opened
  settings = types.SimpleNamespace(
    seed=0,
    lists=ListSettings(**{**vars(LISTS), 'path': path, **changes}),
    loader=LoaderSettings(batch_size=8, rates={'labelled': 1.0}),
    search=SearchSettings(),
    teaching=DistillationSettings(),
  )
  lists = RefreshedLists(settings, model, PREPARED, FROZEN, folder / 'rankings')
  every = range(0, 100, settings.lists.refresh_every)

  def step(number):
    examples = np.random.default_rng(number).integers(0, QUERIES, 8)
    batch = {
      'source': np.zeros(8, np.int32),
      'example': examples.astype(np.int32),
      'document_index': ANSWERS[examples],
    }
    state = types.SimpleNamespace(
      step=number, all_params=lambda: params(number)
    )
    with active(make_mesh(MeshSettings(data=1), jax.devices()[:1])):
      if number in every:
        state = lists.begin((), None, state)
      _, given = lists.step(lambda *given: given, state, batch)
    return jax.device_get(given)

  return step


def write_rankings(path, rankings, text=''):
  """{query id: rows of documents, the best first} as a teacher's."""
  path.write_text(
    ''.join(
      ranking_line(
        TeacherRanking(
          name,
          tuple(f'd{document}' for document in documents),
          np.arange(0, -len(documents), -1, dtype=np.float32),
          text,
        )
      )
      for name, documents in rankings.items()
    )
  )


def dense(opened, seed):
  """[Q, N] dense scores under the parameters of a step."""
  model, params = opened
  vectors = FROZEN.queries['labelled'], FROZEN.documents
  return np.einsum(
    'QD,ND->QN', *(project_vectors(model, params(seed), v) for v in vectors)
  )


def test_lists_are_what_it_finds_in_the_order_of_its_vectors(opened, tmp_path):
  step = made(opened, tmp_path)
  by_vectors = set()
  for number in range(6):
    batch = step(number)
    assert batch['list_index'].shape == (8, 1, 4)
    # Parameters move with every step, rankings with every fourth.
    scores_QN = dense(opened, number // 4 * 4)
    for example, (index_M,), (scores_M,) in zip(
      batch['example'], batch['list_index'], batch['list_scores'], strict=True
    ):
      assert index_M[0] == ANSWERS[example]
      np.testing.assert_allclose(scores_M, scores_QN[example][index_M], 1e-5)
      assert (np.diff(scores_M[1:]) <= 0).all()
      answers = ANSWERS[[IDS[example] == name for name in IDS]]
      assert not set(index_M[1:]) & set(answers)
      others_N = np.argsort(-scores_QN[example])
      first = next(n for n in others_N if n not in answers)
      by_vectors.add(index_M[1] == first)
  assert by_vectors == {True}


@pytest.mark.parametrize('taught', [False, True])
@pytest.mark.parametrize('sampled', [0, 5])
def test_it_goes_on_with_the_lists_that_it_had(
  opened, tmp_path, sampled, taught
):
  path = ''
  if taught:
    path = tmp_path / 'r.jsonl'
    orders = np.random.default_rng(2).permuted(
      np.tile(np.arange(DOCUMENTS), (QUERIES - 1, 1)), axis=1
    )
    write_rankings(path, {f'q{n}': order for n, order in enumerate(orders)})
  again_with = functools.partial(
    made, opened, tmp_path, str(path), refresh_queries=sampled
  )
  step = again_with()
  checkpoints = tmp_path / 'checkpoints'
  whole = {}
  for number in range(14):
    # As the loop saves: behind step 5, and 7, whose state step 8 refreshes.
    if number in (6, 8):
      (checkpoints / f'step_{number:08d}').mkdir(parents=True)
    whole[number] = step(number)
  kept = sorted(path.name for path in (tmp_path / 'rankings').iterdir())
  assert kept == [f'refresh_{number:08d}' for number in (4, 8, 12)]
  files, damaged = damaged_files(tmp_path / 'rankings' / kept[0])
  assert files and not damaged
  shutil.rmtree(tmp_path / 'rankings' / kept[1])
  with pytest.raises(UserError, match=f'{kept[1]} should hold the rankings'):
    again_with()(11)
  for number in (6, 8):
    again = again_with()
    for later in range(number, number + 3):
      jax.tree.map(np.testing.assert_array_equal, again(later), whole[later])


def test_a_teacher_orders_what_was_found(opened, tmp_path):
  """By all that it ranked, where it ranked little of that."""
  places = np.argsort(-dense(opened, 0), axis=1)
  whole = np.random.default_rng(1).permutation(DOCUMENTS)
  rankings = {'q0': whole, 'q1': places[1, -6:]}
  path = tmp_path / 'r.jsonl'
  write_rankings(path, rankings)
  step = made(opened, tmp_path, str(path), size=12, depth=12)
  seen = {}
  for number in range(4):
    batch = step(number)
    seen |= zip(batch['example'].tolist(), batch['list_index'], strict=True)
  for example, (index_M,) in seen.items():
    others = [n for n in index_M[1:].tolist() if n != NO_DOC]
    if example > 1:
      assert (index_M == NO_DOC).all()
      continue
    order = rankings[IDS[example]].tolist()
    assert others == sorted(others, key=order.index)
    own = ANSWERS[example]
    if example == 1:
      assert others == [n for n in order if n != own]
    else:
      # Half of the depth, and more that identifiers find.
      assert set(places[0, :6]) - {own} <= set(others) < set(order)
  assert {0, 1} < seen.keys()


def test_other_texts_of_the_same_ids_are_refused(opened, tmp_path):
  """Also where they are cut down to what was found."""
  path = tmp_path / 'r.jsonl'
  write_rankings(path, {'q0': range(DOCUMENTS)}, text='the query')
  made(opened, tmp_path, str(path))(0)
  write_rankings(path, {'q0': range(DOCUMENTS)}, text='quite another text')
  with pytest.raises(UserError, match="'quite another text' as 'q0', which is"):
    made(opened, tmp_path, str(path))(0)


def test_half_of_the_depth_must_hold_a_list():
  with pytest.raises(UserError, match='half of it must be more than `least`'):
    ListSettings(depth=20, refresh_every=4)
  ListSettings(depth=20, least=9, refresh_every=4)


def test_documents_stand_where_the_index_ranks_them(opened, tmp_path):
  """Near their queries, with ranks_moved."""
  model, params = opened
  config = dataclasses.replace(model.config, ranks_moved=True, query_share=0.5)
  moved = model.clone(config=config)
  means = np.random.default_rng(5).normal(size=(DOCUMENTS, WIDTH))
  table = {'table': jnp.asarray(means, jnp.float16)}
  given = params(0) | {'query_means': table}
  step = made((moved, lambda seed: given), tmp_path)
  batch = step(0)
  queries_QD = project_vectors(moved, given, FROZEN.queries['labelled'])
  documents_ND = moved_vectors(
    moved, given, project_vectors(moved, given, FROZEN.documents)
  )
  scores_QN = queries_QD @ documents_ND.T
  for example, (index_M,), (scores_M,) in zip(
    batch['example'], batch['list_index'], batch['list_scores'], strict=True
  ):
    np.testing.assert_allclose(scores_M, scores_QN[example][index_M], 1e-4)


def test_several_processes_are_refused(monkeypatch):
  settings = types.SimpleNamespace(lists=LISTS)
  monkeypatch.setattr('gr_jax.processes.several', lambda: True)
  monkeypatch.setattr(run_lists.training_stages, 'stages', lambda *_: {})
  with pytest.raises(UserError, match='refresh_every is of one process'):
    run_lists.stages(None, settings, None, None)
