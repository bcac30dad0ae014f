"""What is drawn, against all sequences of a small model written out."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gr_jax.models.bert import BertConfig
from gr_jax.models.query_generator import GeneratorConfig, QueryGenerator
from gr_jax.models.t5 import T5Config
from gr_jax.querygen import sampling
from gr_jax.querygen.sampling import SamplingSettings, chosen_tokens, draw
from gr_jax.types import UserError

V, START, END = 6, 2, 3
CONFIG = GeneratorConfig(
  encoder=BertConfig(
    vocab_size=V, emb_dim=8, num_heads=2, num_layers=1, mlp_dim=8, max_length=8
  ),
  decoder=T5Config(
    vocab_size=V, emb_dim=8, num_heads=2, head_dim=4, num_encoder_layers=0,
    num_decoder_layers=1, mlp_dim=8, logits_via_embedding=True,
  ),
  start=START,
  end=END,
)  # fmt: skip
DOCUMENTS = np.array([[2, 4, 5, 1, 3], [2, 1, 3, 0, 0]], np.int32)
KEYS = jax.random.split(jax.random.key(7), 2)
LENGTH = 3


@functools.cache
def model_and_params():
  model = QueryGenerator(CONFIG)
  batch = {
    'document_tokens': DOCUMENTS,
    'query_tokens': DOCUMENTS[:, None],
  }
  shapes = jax.eval_shape(
    lambda key: model.init(key, batch, True, method='loss'), jax.random.key(0)
  )
  random = np.random.default_rng(1)
  return model, jax.tree.map(
    lambda leaf: random.standard_normal(leaf.shape, np.float32),
    shapes['params'],
  )


def drawn(documents_BS, keys_B, prefix=(), never=(), **settings):
  settings = SamplingSettings(
    **{'max_tokens': LENGTH, 'min_tokens': 1} | settings
  )
  found = draw(
    *model_and_params(), documents_BS, keys_B, settings, prefix, never
  )
  return jax.device_get(found)


@functools.cache
def every_sequence(longest=LENGTH):
  """{sequence: [B, L] log-probabilities of its tokens and its end}.

  Of 1 to L - 1 tokens.
  """
  model, params = model_and_params()
  words = [v for v in range(1, V) if v not in (START, END)]
  sequences = [
    words_
    for length in range(1, longest)
    for words_ in itertools.product(words, repeat=length)
  ]
  rows_XL = np.zeros((len(sequences), longest + 1), np.int32)
  for row, sequence in zip(rows_XL, sequences, strict=True):
    row[: len(sequence) + 2] = [START, *sequence, END]
  rows_RL = np.concatenate([rows_XL, rows_XL])

  @jax.jit
  def log_probs(params):
    return model.apply(
      {'params': params},
      DOCUMENTS,
      rows_RL[:, :-1],
      rows_RL[:, 1:],
      method='log_probs',
    )

  log_probs_RL = np.where(rows_RL[:, 1:] > 0, log_probs(params), 0.0)
  totals_BX = log_probs_RL.reshape(2, len(sequences), -1)
  return dict(zip(sequences, totals_BX.transpose(1, 0, 2), strict=True))


def kept(probs, settings):
  """The distribution that settings leave of one, by sorting."""
  probs = probs ** (1 / settings.temperature)
  probs = probs / probs.sum()
  order = np.argsort(-probs)
  if settings.top_k:
    order = order[: settings.top_k]
  before = np.cumsum(probs[order]) / probs[order].sum()
  before = np.concatenate([[0], before[:-1]])
  order = order[before < settings.top_p]
  left = np.zeros_like(probs)
  left[order] = probs[order]
  return left / left.sum()


@pytest.mark.parametrize(
  'settings',
  [
    {'top_p': 1.0},
    {'top_p': 0.8},
    {'top_p': 0.05},
    {'top_p': 1.0, 'temperature': 0.5},
    {'top_p': 0.7, 'temperature': 2.0},
    {'top_p': 1.0, 'top_k': 3},
    {'top_p': 0.6, 'top_k': 5, 'temperature': 1.5},
    {'top_p': 1.0, 'top_k': 1000},
  ],
)
def test_tokens_have_the_shares_that_settings_leave(settings):
  settings = SamplingSettings(**settings)
  probs_V = np.random.default_rng(0).dirichlet(np.full(20, 0.5))
  # All quantiles in place of draws: frequencies are exact to one of them.
  count = 4000
  uniform_R = (jnp.arange(count) + 0.5) / count
  rows_RV = jnp.tile(jnp.log(jnp.asarray(probs_V, jnp.float32)), (count, 1))
  chosen_R = jax.jit(functools.partial(chosen_tokens, settings=settings))(
    rows_RV, uniform_R
  )
  shares_V = np.bincount(chosen_R, minlength=20) / count
  np.testing.assert_allclose(
    shares_V, kept(probs_V, settings), atol=1.5 / count
  )


def test_what_has_no_weight_is_never_drawn():
  """Sums of a parallel scan do not rise strictly."""
  scores_RV = jax.random.normal(jax.random.key(0), (16, 30000)) * 4
  probs_RV = jax.nn.softmax(scores_RV)
  weights_RV = jnp.where(sampling.in_nucleus(probs_RV, 0.9), probs_RV, 0.0)
  sums_RV = np.cumsum(np.asarray(weights_RV, np.float64), axis=-1)
  found = jax.jit(sampling._inverted)
  for share in (0.0, 0.3, 0.5, 1 - 2**-23):
    # Next to where a run of places without weight stands.
    near_R = sums_RV[np.arange(16), np.argmax(sums_RV > share, axis=-1)]
    for uniform in (near_R / sums_RV[:, -1], np.full(16, share)):
      uniform_R = jnp.clip(jnp.asarray(uniform, jnp.float32), 0, 1 - 2**-23)
      places_R = found(weights_RV, uniform_R)
      assert (np.asarray(weights_RV)[np.arange(16), places_R] > 0).all()


@pytest.mark.parametrize('settings', [{'top_p': 1.0}, {'top_k': 2}])
def test_queries_have_the_frequencies_of_their_probabilities(settings):
  assert_frequencies(SamplingSettings(temperature=1.3, **settings))


def assert_frequencies(rules, longest=LENGTH):
  """Draws, and counts each sequence of up to `longest` - 1 tokens."""
  width = 4000
  rules = dataclasses.replace(
    rules, queries=width, max_tokens=longest, min_tokens=1
  )
  tokens_BWL, log_probs_BW = jax.device_get(
    draw(*model_and_params(), DOCUMENTS, KEYS, rules)
  )
  for document in range(2):
    chances = sequence_chances(document, rules)
    assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
    counts = dict.fromkeys(chances, 0)
    for row, log_prob in zip(
      tokens_BWL[document], log_probs_BW[document], strict=True
    ):
      sequence = tuple(int(t) for t in row if t)
      counts[sequence] += 1
      # The model's own probability, whatever the rules.
      expected = every_sequence(longest)[sequence][document].sum()
      assert log_prob == pytest.approx(expected, rel=1e-4, abs=1e-4)
    often = [s for s, chance in chances.items() if chance * width >= 5]
    observed = [counts[s] for s in often]
    expected = [chances[s] * width for s in often]
    rest = width - sum(expected)
    if rest > 1:
      observed.append(width - sum(observed))
      expected.append(rest)
    expected = np.array(expected) * sum(observed) / sum(expected)
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def repeats(sequence, n):
  """Whether its last n tokens stand in a sequence before."""
  grams = [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]
  return n > 0 and len(grams) > 0 and grams[-1] in grams[:-1]


def sequence_chances(document, rules):
  """{sequence: chance to be drawn} by the rules at each position."""
  found = every_sequence(rules.max_tokens)
  words = sorted({s[0] for s in found})

  def choices(prefix):
    """(token, chance) at a position: END first not before a word."""
    probs = np.zeros(V)
    for word in words:
      longer = (*prefix, word)
      if len(longer) < rules.max_tokens and not repeats(
        longer, rules.no_repeat_ngram
      ):
        probs[word] = np.exp(found[longer][document][len(prefix)])
    if prefix:
      probs[END] = np.exp(found[prefix][document][len(prefix)])
    return kept(probs, rules)

  chances = {}
  for sequence in found:
    chance = 1.0
    for place, token in enumerate((*sequence, END)):
      chance *= choices(sequence[:place])[token]
    if chance > 0:
      chances[sequence] = chance
  return chances


@pytest.mark.parametrize('penalty', [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_sequences(penalty):
  width = 9
  tokens_BWL, log_probs_BW = drawn(
    DOCUMENTS, KEYS, queries=width, method='beam', length_penalty=penalty
  )
  for document in range(2):
    totals = {s: v[document].sum() for s, v in every_sequence().items()}
    best = sorted(totals, key=lambda s: -totals[s] / (len(s) + 1) ** penalty)[
      :width
    ]
    found = [tuple(int(t) for t in r if t) for r in tokens_BWL[document]]
    assert found == best
    np.testing.assert_allclose(
      log_probs_BW[document], [totals[s] for s in best], rtol=1e-4
    )


def test_a_document_is_given_the_same_whatever_stands_beside_it():
  settings = {'queries': 5, 'top_p': 1.0}
  tokens_BWL, log_probs_BW = drawn(DOCUMENTS, KEYS, **settings)
  turned_BWL, turned_BW = drawn(DOCUMENTS[::-1], KEYS[::-1], **settings)
  np.testing.assert_array_equal(turned_BWL[::-1], tokens_BWL)
  # A processor may round the last bit of a row otherwise in another place.
  np.testing.assert_allclose(turned_BW[::-1], log_probs_BW, rtol=1e-6)
  twice_BWL, _ = drawn(DOCUMENTS[[0, 0]], KEYS[jnp.array([0, 0])], **settings)
  np.testing.assert_array_equal(twice_BWL, tokens_BWL[[0, 0]])
  # Another key, other draws; fewer queries are the first of them.
  other_BWL, _ = drawn(DOCUMENTS, KEYS[::-1], **settings)
  assert (other_BWL != tokens_BWL).any()
  fewer_BWL, _ = drawn(DOCUMENTS, KEYS, **settings | {'queries': 2})
  np.testing.assert_array_equal(fewer_BWL, tokens_BWL[:, :2])


@pytest.mark.parametrize('method', ['sample', 'beam'])
def test_a_prefix_begins_every_query(method):
  tokens_BWL, _ = drawn(DOCUMENTS, KEYS, queries=3, method=method, prefix=(5,))
  assert (tokens_BWL[:, :, 0] == 5).all()
  assert (tokens_BWL[:, :, 1] > 0).all()
  with pytest.raises(UserError, match='prefix of 2 tokens leaves none'):
    drawn(DOCUMENTS, KEYS, queries=3, method=method, prefix=(5, 5))


@pytest.mark.parametrize('method', ['sample', 'beam'])
def test_some_tokens_are_in_no_query(method):
  asked = {'queries': 8, 'method': method, 'top_p': 1.0}
  assert (drawn(DOCUMENTS, KEYS, **asked)[0] == 4).any()
  tokens_BWL, _ = drawn(DOCUMENTS, KEYS, never=(4,), **asked)
  assert set(tokens_BWL.ravel()) == {0, 1, 5}


def test_queries_have_their_least_and_their_most_tokens():
  settings = SamplingSettings(
    queries=200, max_tokens=6, min_tokens=4, top_p=1.0
  )
  found_BWL, _ = draw(*model_and_params(), DOCUMENTS, KEYS, settings)
  tokens_BWL = np.asarray(found_BWL)
  lengths_BW = (tokens_BWL > 0).sum(axis=-1)
  assert set(lengths_BW.ravel()) == {4, 5}
  assert not np.isin(tokens_BWL, (START, END)).any()


def test_settings_refuse_what_cannot_be():
  for wrong in (
    {'method': 'greedy'}, {'top_p': 0.0}, {'temperature': 0.0},
    {'min_tokens': 24},
  ):  # fmt: skip
    with pytest.raises(UserError, match=r'SamplingSettings|must be at'):
      dataclasses.replace(SamplingSettings(), **wrong)
