"""The code decoder: one position at a time equals all at once, and geometry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr_jax.models.code_decoder import (
  CodeDecoder,
  CodeDecoderConfig,
  tied_scores,
)
from gr_jax.models.retriever import QueryEncoding
from gr_jax.models.t5 import T5Config

BATCH, WIDTH, POSITIONS, CODES, BEAMS = 2, 6, 4, 5, 3
SIZES = (CODES,) * POSITIONS


def stack(layers=2):
  return T5Config(
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=0,
    num_decoder_layers=layers,
    mlp_dim=16,
  )


def encoding():
  vectors = jax.random.normal(jax.random.key(0), (BATCH, WIDTH))
  states = jax.random.normal(jax.random.key(1), (BATCH, 7, WIDTH))
  mask = jnp.arange(7)[None, :] < jnp.array([[7], [4]])
  return QueryEncoding(vectors, states, mask)


def codebooks():
  return jax.random.normal(jax.random.key(2), (POSITIONS, CODES, WIDTH))


def codewords(codes_BL):
  return jnp.stack(
    [codebooks()[t][codes_BL[:, t]] for t in range(POSITIONS)], axis=1
  )


def decoder_and_params(random=True, **config):
  config = {'correction': 1.0, **config}
  decoder = CodeDecoder(CodeDecoderConfig(**config), WIDTH, SIZES)
  codes = jnp.zeros((BATCH, POSITIONS), jnp.int32)
  params = decoder.init(
    jax.random.key(3),
    encoding(),
    codewords(codes),
    codebooks(),
    deterministic=True,
  )['params']
  if random:
    # The output map starts at zero, which would hide the stack.
    # numpy's: jax would compile a program for each shape.
    rng = np.random.default_rng(4)
    params = jax.tree.map(
      lambda leaf: leaf + np.float32(0.3 * rng.normal(size=leaf.shape)), params
    )
  return decoder, {'params': params}


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('normalised', [True, False])
@pytest.mark.parametrize('layers', [0, 2])
def test_steps_equal_the_parallel_pass(tied, normalised, layers):
  decoder, variables = decoder_and_params(
    stack=stack(layers), tied=tied, normalised=normalised
  )
  codes_BWL = jax.random.randint(
    jax.random.key(5), (BATCH, BEAMS, POSITIONS), 0, CODES
  )
  state = decoder.apply(variables, encoding(), BEAMS, method='start')
  stepped = []
  for level in range(POSITIONS):
    previous = codes_BWL[:, :, max(level - 1, 0)]
    scores, state = decoder.apply(
      variables,
      state,
      previous,
      jnp.int32(level),
      codebooks(),
      method='step',
    )
    stepped.append(scores)
  for beam in range(BEAMS):
    expected = decoder.apply(
      variables,
      encoding(),
      codewords(codes_BWL[:, beam]),
      codebooks(),
      deterministic=True,
    )
    if normalised:
      expected = jax.nn.log_softmax(expected)
    found = jnp.stack([scores[:, beam] for scores in stepped], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_without_correction_prefixes_are_ranked_by_their_distance():
  decoder, variables = decoder_and_params(stack=stack(), correction=0.0)
  codes_BWL = jax.random.randint(
    jax.random.key(5), (BATCH, BEAMS, POSITIONS), 0, CODES
  )
  state = decoder.apply(variables, encoding(), BEAMS, method='start')
  sharpness = np.exp(np.mean(variables['params']['log_sharpness']))
  total, prefix = np.zeros((BATCH, BEAMS)), np.zeros((BATCH, BEAMS, WIDTH))
  query = np.asarray(encoding().vectors_BD)[:, None]
  for level in range(POSITIONS):
    previous = codes_BWL[:, :, max(level - 1, 0)]
    scores, state = decoder.apply(
      variables,
      state,
      previous,
      jnp.int32(level),
      codebooks(),
      method='step',
    )
    chosen = np.asarray(codes_BWL[:, :, level])
    total += np.take_along_axis(np.asarray(scores), chosen[..., None], 2)[
      ..., 0
    ]
    prefix += np.asarray(codebooks())[level][chosen]
    distance = np.sum((query - prefix) ** 2, axis=-1)
    expected = sharpness * (np.sum(query**2, axis=-1) - distance)
    np.testing.assert_allclose(total, expected, rtol=1e-3, atol=1e-3)


def test_the_untrained_tied_head_is_the_nearest_codeword():
  decoder, variables = decoder_and_params(random=False, stack=stack())
  codes = jnp.array([[1, 2, 3, 4], [0, 4, 2, 1]])
  scores = decoder.apply(
    variables, encoding(), codewords(codes), codebooks(), deterministic=True
  )
  for b in range(BATCH):
    residual = np.asarray(encoding().vectors_BD[b])
    for t in range(POSITIONS):
      distances = np.sum((np.asarray(codebooks()[t]) - residual) ** 2, axis=-1)
      # Up to what all codes of a position have in common.
      found = np.asarray(scores[b, t]) - 20.0 * np.sum(residual**2)
      np.testing.assert_allclose(found, -20.0 * distances, rtol=1e-4, atol=1e-3)
      residual = residual - np.asarray(codebooks()[t])[codes[b, t]]


def test_a_position_does_not_see_its_own_or_later_codes():
  decoder, variables = decoder_and_params(stack=stack())

  def apply(codes):
    return decoder.apply(
      variables, encoding(), codewords(codes), codebooks(), deterministic=True
    )

  base = jnp.zeros((BATCH, POSITIONS), jnp.int32)
  changed = apply(base.at[:, 2].set(4))
  np.testing.assert_allclose(
    changed[:, :3], apply(base)[:, :3], rtol=1e-5, atol=1e-5
  )
  assert np.any(np.abs(changed[:, 3] - apply(base)[:, 3]) > 1e-3)


def test_padding_of_the_query_is_not_read():
  decoder, variables = decoder_and_params(stack=stack())
  seen = encoding()
  noise = jnp.where(seen.mask_BS[..., None], 0.0, 9.0)
  codes = jnp.ones((BATCH, POSITIONS), jnp.int32)
  results = [
    decoder.apply(
      variables,
      seen.replace(states_BSE=states),
      codewords(codes),
      codebooks(),
      deterministic=True,
    )
    for states in (seen.states_BSE, seen.states_BSE + noise)
  ]
  np.testing.assert_allclose(*results, atol=1e-6)


def test_tied_scores_are_scaled_squared_distances():
  targets = jax.random.normal(jax.random.key(6), (2, POSITIONS, WIDTH))
  sharpness = jnp.arange(1.0, POSITIONS + 1)
  scores = tied_scores(targets, codebooks(), sharpness)
  distances = np.sum(
    (np.asarray(targets)[:, :, None] - np.asarray(codebooks())[None]) ** 2, -1
  )
  shared = np.sum(np.asarray(targets) ** 2, axis=-1, keepdims=True)
  np.testing.assert_allclose(
    scores,
    np.asarray(sharpness)[None, :, None] * (shared - distances),
    rtol=1e-4,
    atol=1e-3,
  )


def test_tied_scores_are_as_exact_on_an_accelerator_as_on_a_cpu():
  """A CPU computes in float32 whatever it is asked for: read the program."""
  targets = jnp.ones((2, POSITIONS, WIDTH))
  traced = jax.make_jaxpr(tied_scores)(
    targets, codebooks(), jnp.ones(POSITIONS)
  )
  (product,) = (e for e in traced.eqns if e.primitive.name == 'dot_general')
  assert set(product.params['precision']) == {jax.lax.Precision.HIGHEST}
