"""The programs of a pod, as shapes: one step of training, one search."""

import contextlib
import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gr_jax.decoding.sharded import PARTS, QUERIES, Shards
from gr_jax.decoding.trie import (
  SCANNED_ROWS,
  WORD_BITS,
  Room,
  TrieTables,
  capacity,
  code_type,
)
from gr_jax.indexers.residual import ResidualConfig
from gr_jax.indexers.tables import TABLES
from gr_jax.models.cached_gradients import caching
from gr_jax.models.code_decoder import CodeDecoderConfig
from gr_jax.models.retriever import Retriever, RetrieverConfig
from gr_jax.models.t5 import T5Config
from gr_jax.models.t5_sizes import t5_config
from gr_jax.objectives.weighted_sum import ObjectiveSettings
from gr_jax.retrieval.fusion import Weights
from gr_jax.retrieval.sharded import sharded_program
from gr_jax.training.initial import init_params, make_state
from gr_jax.training.memory import device_bytes
from gr_jax.training.mesh import (
  MeshSettings,
  active,
  make_mesh,
  replicated,
  shardings_for,
)
from gr_jax.training.optimizer import OptimizerSettings, make_optimizer
from gr_jax.training.state import TrainingSettings
from gr_jax.training.step import make_step

CHIPS = 256
# Passages of MS MARCO.
DOCUMENTS = 8_841_823


class Program(Protocol):
  """What can be lowered without an array.

  Attributes:
    encoder: sizes, dtype and remat of the text encoder.
  """

  encoder: T5Config

  def lowered(self, stack: contextlib.ExitStack, devices: list) -> tuple:
    """The lowered program, and the bytes a device holds of its arguments."""
    ...

  def described(self) -> dict:
    """Its sizes, as JSON data."""
    ...


def retriever(encoder: T5Config, width: int) -> Retriever:
  """A retriever of eight codes out of 256.

  Args:
    encoder: the text encoder; the code decoder computes in its dtype.
    width: D, of vectors.
  """
  stack = dataclasses.replace(
    CodeDecoderConfig().stack, dtype=encoder.dtype, remat=encoder.remat
  )
  return Retriever(
    RetrieverConfig(
      encoder=encoder,
      indexer=ResidualConfig(positions=8, codes=256),
      decoder=CodeDecoderConfig(stack=stack),
      width=width,
    )
  )


@dataclasses.dataclass(frozen=True)
class Training:
  """A step that trains all parts, the text encoder included.

  Attributes:
    encoder: sizes, dtype and remat of the text encoder.
    mesh: how the devices are arranged.
    chunks: TrainingSettings.encoder_chunks.
    batch: rows, of the whole mesh.
    query_length: tokens.
    document_length: tokens.
    documents: of the corpus.
    width: D, of vectors.
    optimizer: OptimizerSettings.name.
  """

  encoder: T5Config
  mesh: MeshSettings
  chunks: int = 1
  batch: int = 2048
  query_length: int = 32
  document_length: int = 192
  documents: int = DOCUMENTS
  width: int = 768
  optimizer: str = 'adamw'

  def described(self) -> dict:
    """Its sizes, as JSON data."""
    return dataclasses.asdict(self)

  def lowered(self, stack, devices) -> tuple:
    """The lowered step, and the bytes a device holds of its arguments."""
    mesh = stack.enter_context(active(make_mesh(self.mesh, devices)))
    model = retriever(self.encoder, self.width)
    settings = TrainingSettings(
      train_encoder=True,
      encoder_chunks=self.chunks,
      optimizer=OptimizerSettings(name=self.optimizer),
    )
    optimizer = make_optimizer(settings.optimizer, settings.steps)
    state = self._state(model, optimizer, mesh)
    step = make_step(
      caching(model, self.chunks) if self.chunks > 1 else model,
      optimizer=optimizer,
      settings=settings,
      objective_settings=ObjectiveSettings(),
      upkeep=None,
      seed=0,
    )
    held = {
      'parameters': device_bytes((state.params, state.frozen)),
      'optimizer': device_bytes(state.opt_state),
    }
    return step.lower(state, self._batch(mesh)), held

  def _state(self, model, optimizer, mesh):
    """Shapes of the state, each with where it lies."""
    params, axes, usage = jax.eval_shape(
      lambda: init_params(model, 0, self.documents)
    )
    state = jax.eval_shape(
      lambda params, usage: make_state(params, usage, optimizer, True),
      params,
      usage,
    )
    return jax.tree.map(_placed, state, shardings_for(mesh, axes, state))

  def _batch(self, mesh):
    """Shapes of a batch, its rows over 'data' and 'fsdp'."""
    rows = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))
    shapes = {
      'query_tokens': (self.batch, self.query_length),
      'document_tokens': (self.batch, self.document_length),
      'document_index': (self.batch,),
    }
    return {
      name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=rows)
      for name, shape in shapes.items()
    }


@dataclasses.dataclass(frozen=True)
class Search:
  """A batch of queries against an index, cut over the devices.

  Attributes:
    encoder: sizes and dtype of the text encoder.
    data: devices that share the queries.
    model: devices that share the documents.
    batch: queries.
    query_length: tokens.
    documents: of the index.
    width: D, of vectors.
    beams: W.
    documents_scored: for a query.
    parameters: dtype that the model's parameters are kept in.
  """

  encoder: T5Config
  data: int = 16
  model: int = 16
  batch: int = 256
  query_length: int = 32
  documents: int = DOCUMENTS
  width: int = 768
  beams: int = 100
  documents_scored: int = 1000
  parameters: str = 'float32'

  def described(self) -> dict:
    """Its sizes, as JSON data."""
    return dataclasses.asdict(self)

  def lowered(self, stack, devices) -> tuple:
    """The lowered search, and the bytes a device holds of its arguments."""
    del stack  # shard_map carries its mesh: nothing is entered.
    grid = np.array(devices).reshape(self.data, self.model)
    # The Searcher's devices are of one process yet; its program may have more.
    mesh = Mesh(grid, (QUERIES, PARTS))
    model = retriever(self.encoder, self.width)
    sizes = model.config.code_sizes
    params, _, _ = jax.eval_shape(lambda: init_params(model, 0, 1))
    params = jax.tree.map(
      lambda x: _placed(
        jax.ShapeDtypeStruct(x.shape, self.parameters), replicated(mesh)
      ),
      {name: module for name, module in params.items() if name not in TABLES},
    )
    along_parts = NamedSharding(mesh, PartitionSpec(PARTS))
    own = -(-self.documents // self.model)

    def parted(shape):
      whole = jax.ShapeDtypeStruct((self.model, *shape.shape), shape.dtype)
      return _placed(whole, along_parts)

    tables, first, vectors = jax.tree.map(
      parted,
      (
        tables_of(Room.of_any(own, sizes), sizes),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((capacity(own), self.width), jnp.float16),
      ),
    )
    scalar = _placed(jax.ShapeDtypeStruct((), jnp.int32), replicated(mesh))
    queries = jax.ShapeDtypeStruct(
      (self.batch, self.query_length),
      jnp.int32,
      sharding=NamedSharding(mesh, PartitionSpec(QUERIES)),
    )
    weight = _placed(jax.ShapeDtypeStruct((), jnp.float32), replicated(mesh))
    index = Shards((tables,), (first,)), (vectors,)
    lowered = sharded_program.lower(
      model,
      params,
      *index,
      queries,
      scalar,
      Weights(*(weight,) * 4),
      (None,),
      mesh=mesh,
      fusion='log_linear',
      length=len(sizes),
      width=self.beams,
      candidates=capacity(self.documents_scored),
      k=capacity(100),
    )
    held = {'parameters': device_bytes(params), 'index': device_bytes(index)}
    return lowered, held


def shallower(program: Program, layers: int) -> Program:
  """The same with an encoder of few layers, to see what each adds."""
  encoder = dataclasses.replace(program.encoder, num_encoder_layers=layers)
  return dataclasses.replace(program, encoder=encoder)


def tables_of(room: Room, code_sizes: tuple[int, ...]) -> TrieTables:
  """Shapes of the tables of a trie on a device.

  Args:
    room: of the tables.
    code_sizes: codes of each position.
  """
  code, length = code_type(code_sizes), len(code_sizes)

  def shape(dtype, *sizes):
    return jax.ShapeDtypeStruct(sizes, dtype)

  return TrieTables(
    columns=shape(code, length, room.rows),
    documents=shape(jnp.int32, room.rows),
    count=shape(jnp.int32),
    wide_nodes=shape(jnp.int32, length, room.rows // SCANNED_ROWS + 1),
    child_offsets=shape(jnp.int32, room.wide + 1),
    child_codes=shape(code, room.children),
    child_starts=shape(jnp.int32, room.children),
    bitmap_rows=shape(jnp.int32, room.wide),
    bitmaps=shape(
      jnp.uint32, room.bitmaps, math.ceil(max(code_sizes) / WORD_BITS)
    ),
  )


def _placed(shape, sharding) -> Any:
  return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def _t5(size: str, remat: str = 'none') -> T5Config:
  return dataclasses.replace(t5_config(size, dtype='bfloat16'), remat=remat)


PROGRAMS: dict[str, Program] = {
  'train base, data 256': Training(_t5('base'), MeshSettings()),
  'train xl, fsdp 64 x model 4, 4 chunks': Training(
    _t5('xl', 'full'), MeshSettings(fsdp=64, model=4), chunks=4
  ),
  'train xxl, fsdp 64 x model 4, 4 chunks': Training(
    _t5('xxl', 'full'), MeshSettings(fsdp=64, model=4), chunks=4
  ),
  'search base, data 16 x model 16': Search(_t5('base')),
  'search xl, data 16 x model 16': Search(_t5('xl')),
  'search xxl, data 16 x model 16': Search(_t5('xxl'), parameters='bfloat16'),
}
