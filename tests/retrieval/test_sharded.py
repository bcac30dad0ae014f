"""A search over 8 devices finds what a search on one finds.

All numbers are small multiples of powers of two, so that sums are exact in any
order and equality is that of every bit.
"""

import contextlib
import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saved_index
import toy_retriever as toy
from jax.sharding import Mesh

from gr_jax.decoding import trie
from gr_jax.index.changes import Delete, Hide, Insert
from gr_jax.index.index import Index
from gr_jax.index.snapshot import Snapshot
from gr_jax.retrieval import placed, placed_shards, searcher, sharded
from gr_jax.retrieval.opening import open_searcher
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.retrieval.searcher import Searcher
from gr_jax.types import NO_DOC, UserError

pytestmark = pytest.mark.mesh

BATCH = 8
QUERIES = toy.make_texts(BATCH - 1, seed=5)
SIZES = (toy.CODES,) * toy.POSITIONS


class ExactModel(toy.ToyModel):
  """The same with rounded vectors."""

  def encode(self, params, tokens_BS):
    vectors_BD = super().encode(params, tokens_BS).vectors_BD
    return toy.Encoding(jnp.round(vectors_BD * 8) / 8)


def exact_params():
  """Codes 0 and 1 say the same: their scores are ties."""
  params = toy.make_params()
  codebooks = np.round(params['codebooks'] * 8) / 8
  codebooks[:, 1] = codebooks[:, 0]
  return {**params, 'codebooks': codebooks}


def mesh_of(data, model):
  devices = np.array(jax.devices()[: data * model])
  return Mesh(devices.reshape(data, model), ('data', 'model'))


def documents(count, seed, first=0):
  """Few distinct identifiers, of large buckets, and few distinct vectors."""
  rng = np.random.default_rng(seed)
  return Insert(
    [f'd{first + number}' for number in range(count)],
    ['title'] * count,
    ['text'] * count,
    [{'odd': bool(number % 2)} for number in range(count)],
    (np.array(SIZES) * rng.random((count, 3)) ** 3).astype(np.uint8),
    (rng.integers(-3, 4, (count, toy.WIDTH)) / 4).astype(np.float32),
  )


def index_of(count, seed=0):
  made = documents(count, seed)
  return Index.build(
    made.codes_NL,
    SIZES,
    made.vectors_ND,
    made.document_ids,
    made.titles,
    made.snippets,
    made.metadata,
  )


def searcher_over(index, mesh=None, spare=0, **changes):
  changes = {
    'batch_sizes': (BATCH,),
    'beams': 25,
    'documents_scored': 60,
    'generative_weight': 0.25,
  } | changes
  return Searcher(
    index,
    ExactModel(),
    exact_params(),
    toy.ToyVocabulary(),
    16,
    SearchSettings(**changes),
    spare,
    mesh,
  )


@pytest.fixture
def one_shape():
  """Tables of one shape, whatever is in them: compiling is the cost."""
  with contextlib.ExitStack() as stack:
    for module in (trie, placed, placed_shards, searcher):
      stack.enter_context(
        mock.patch.object(module, 'capacity', lambda size: 512)
      )
    yield


def assert_same(one, spread, where=None):
  """The same in all places; some of it, so that nothing is compared in vain."""

  def found(each):
    among = None
    if where is not None:
      # Always two of them: a program is compiled for a number of selections.
      among = [each.select(where=where), None, *[None] * (BATCH - 3)]
    return each.search_batch(QUERIES, 30, among)

  expected, got = found(one), found(spread)
  assert (expected.documents_BC[:, 0] != NO_DOC).any()
  for field in dataclasses.fields(expected):
    if field.name != 'code_scores_B':
      np.testing.assert_array_equal(
        getattr(got, field.name), getattr(expected, field.name), field.name
      )


@pytest.mark.parametrize('data, model', [(2, 4), (4, 2)])
def test_a_changing_index_answers_as_on_one_device(one_shape, data, model):
  snapshot, mesh = Snapshot.of(index_of(250)), mesh_of(data, model)
  one, spread = (
    searcher_over(snapshot, devices, spare=60) for devices in (None, mesh)
  )
  odd = {'odd': True}
  assert_same(one, spread, odd)
  for change in (
    Insert(*dataclasses.astuple(documents(50, 1, first=250))),
    Delete([f'd{number}' for number in range(60, 290, 7)]),
    Hide([f'd{number}' for number in range(61, 290, 7)]),
  ):
    snapshot = snapshot.apply(change)
    one.update(snapshot)
    spread.update(snapshot)
    assert_same(one, spread, odd)
  snapshot = Snapshot.of(snapshot.folded())
  one.update(snapshot)
  spread.update(snapshot)
  assert_same(one, spread, odd)


@pytest.mark.parametrize(
  'data, model, where', [(8, 1, None), (1, 8, {'odd': True})]
)
def test_a_static_index_answers_as_on_one_device(one_shape, data, model, where):
  mesh, answers = mesh_of(data, model), []
  program = sharded.sharded_program

  def keep(*args, **kwargs):
    answers.append(program(*args, **kwargs))
    return answers[-1]

  for count, changes in (
    (250, {}),
    # It ends in the middle of a bucket, and of one device's part of it.
    (250, {'documents_scored': 7}),
    (250, {'documents_scored': 400}),
    (250, {'dense_weight': 0.0}),
    # Fewer documents than devices.
    (3, {}),
    (1, {}),
  ):
    index = index_of(count, seed=count)
    one = searcher_over(index, **changes)
    with mock.patch.object(sharded, 'sharded_program', keep):
      spread = searcher_over(index, mesh, **changes)
    assert_same(one, spread, where)
  # Each device along 'data' answers its share of the queries.
  assert len(answers) == 6
  for leaf in jax.tree.leaves(answers):
    assert leaf.sharding.shard_shape(leaf.shape)[0] == BATCH // data


def test_a_saved_index_is_opened_on_a_mesh(tmp_path):
  texts = saved_index.save(tmp_path / 'index')[:7]
  # Which codes are allowed is known to no device alone.
  changes = {
    'batch_sizes': (7,),
    'renormalised': True,
    'generative_weight': 0.1,
  }
  one, spread = (
    open_searcher(tmp_path / 'index', changes=changes, mesh=mesh)
    for mesh in (None, mesh_of(4, 2))
  )
  np.testing.assert_allclose(
    spread.encode(texts), one.encode(texts), rtol=1e-5, atol=1e-6
  )
  found, expected = spread.search(texts, 5), one.search(texts, 5)
  for mine, theirs in zip(found, expected, strict=True):
    assert [hit.document_id for hit in mine] == [h.document_id for h in theirs]
    np.testing.assert_allclose(
      [hit.score for hit in mine], [hit.score for hit in theirs], rtol=1e-5
    )
    np.testing.assert_allclose(
      [hit.generative_score for hit in mine],
      [hit.generative_score for hit in theirs],
      rtol=1e-5,
      atol=1e-6,  # The logarithm of a certain code is 0.
    )


def bytes_on(device, tree):
  return sum(
    shard.data.nbytes
    for leaf in jax.tree.leaves(tree)
    for shard in leaf.addressable_shards
    if shard.device == device
  )


def test_each_device_holds_its_part_alone():
  snapshot, mesh = Snapshot.of(index_of(40_000)), mesh_of(2, 4)
  whole = placed.Placed(snapshot)
  parts = placed_shards.PlacedShards(mesh, snapshot)
  for name in ('tables', 'vectors'):
    for leaf in jax.tree.leaves(getattr(parts, name)):
      assert leaf.sharding.shard_shape(leaf.shape) == (1, *leaf.shape[1:])
      assert leaf.shape[0] == 4
    all_bytes = bytes_on(jax.devices()[0], getattr(whole, name))
    for device in mesh.devices.flat:
      held = bytes_on(device, getattr(parts, name))
      assert all_bytes / 4.4 < held < all_bytes / 3.6
  # Documents that follow each other, of each device along 'model'.
  column = mesh.devices[:, 2]
  rows = parts.vectors[0].addressable_shards
  held = [np.asarray(rows.data) for rows in rows if rows.device in column]
  assert len(held) == 2
  for vectors_PND in held:
    np.testing.assert_array_equal(
      vectors_PND[0, :10_000], snapshot.base.vectors_ND[20_000:30_000]
    )


def test_batches_are_raised_to_what_the_devices_share():
  assert sharded.divided_sizes((1, 8, 10), mesh_of(4, 2)) == (4, 8, 12)
  assert sharded.divided_sizes((1, 8), mesh_of(1, 8)) == (1, 8)


def test_other_meshes_are_refused():
  devices = np.array(jax.devices())
  with pytest.raises(UserError, match="should have the axes 'data' and 'mod"):
    searcher_over(index_of(20), Mesh(devices, ('data',)))


def test_few_queries_fill_no_batch_of_all_devices(monkeypatch):
  settings = SearchSettings(batch_sizes=(1, 64))
  spread, mesh = sharded.over_local_devices(settings)
  assert mesh.shape == {'data': 8, 'model': 1}
  assert sharded.divided_sizes(spread.batch_sizes, mesh) == (8, 64, 512)
  one = jax.local_devices()[:1]
  monkeypatch.setattr(jax, 'local_devices', lambda: one)
  assert sharded.over_local_devices(settings) == (settings, None)
