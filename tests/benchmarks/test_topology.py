"""The programs of a pod, in miniature on 8 devices, and as they are."""

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))

import programs
import topology

from gr_jax.decoding.trie import Room, build_trie
from gr_jax.models.t5 import T5Config
from gr_jax.training.mesh import MeshSettings

T5 = T5Config(
  vocab_size=64,
  emb_dim=32,
  num_heads=2,
  head_dim=16,
  num_encoder_layers=1,
  mlp_dim=64,
  dtype='bfloat16',
)


@pytest.mark.soak
def test_a_miniature_of_training_compiles_for_8_devices():
  program = programs.Training(
    dataclasses.replace(T5, remat='full'),
    MeshSettings(data=2, fsdp=2, model=2),
    chunks=2,
    batch=16,
    query_length=4,
    document_length=8,
    documents=16,
    width=32,
  )
  found = topology.measured(program, jax.devices())
  # Moments lie where their parameters do.
  assert 2 * found['parameters'] > found['optimizer'] > found['parameters']
  held = found['parameters'] + found['optimizer']
  assert found['peak'] > held + found['temporary']
  one = dataclasses.replace(program, mesh=MeshSettings())
  with contextlib.ExitStack() as stack:
    _, held = one.lowered(stack, jax.devices()[:1])
  assert held['parameters'] > 3 * found['parameters']
  json.dumps(found)


@pytest.mark.mesh
def test_a_miniature_of_search_compiles_for_8_devices():
  program = programs.Search(
    T5,
    data=2,
    model=4,
    batch=4,
    query_length=4,
    documents=4096,
    width=32,
    beams=4,
    documents_scored=100,
  )
  found = topology.measured(program, jax.devices())
  # 1,024 float16 vectors a device, and the trie.
  assert found['index'] > 1024 * 32 * 2
  held = found['index'] + found['parameters']
  assert found['peak'] > held + found['temporary']
  assert '| miniature |' in topology.table({'miniature': found})


def test_shapes_of_tables_are_those_of_a_trie():
  codes_NL = np.random.default_rng(0).integers(0, 300, (500, 3))
  trie = build_trie(codes_NL, (300, 300, 300))
  room = Room.of_any(500, trie.code_sizes)
  assert room.holds(trie.room)
  described = programs.tables_of(room, trie.code_sizes)
  jax.tree.map(
    lambda table, shape: (
      np.testing.assert_equal(table.shape, shape.shape),
      np.testing.assert_equal(table.dtype, np.dtype(shape.dtype)),
    ),
    trie.tables(room),
    described,
  )


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_all_programs_compile_and_fit(tmp_path):
  """For the pod where libtpu is installed, else for 256 virtual devices."""
  output = tmp_path / 'topology.json'
  command = [sys.executable, topology.__file__, f'--output={output}']
  subprocess.run(command, check=True)
  report = json.loads(output.read_text())
  assert set(report['programs']) == set(programs.PROGRAMS)
  if 'virtual' not in report['compiled_for']:
    assert all(found['fits'] for found in report['programs'].values())
