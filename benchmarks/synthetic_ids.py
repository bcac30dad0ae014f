"""Synthetic identifiers with a known skew."""

import numpy as np


def make_codes(
  kind: str, skew: float, documents: int, positions: int, codes: int, seed: int
) -> np.ndarray:
  """Draws the identifiers of a corpus.

  Args:
    kind: 'even' spaces identifiers equally; 'independent' draws each position
      alone; 'hierarchical' has each prefix order the codes anew, so that the
      codes of a position are used evenly while whole identifiers are not.
    skew: exponent of the Zipf distribution of the codes; 0 is uniform.
    documents: N.
    positions: L.
    codes: K.
    seed: of the draw.

  Returns:
    [N, L] int64 codes.
  """
  if kind == 'even':
    numbers_N = np.arange(documents) * (codes**positions // documents)
    powers = codes ** np.arange(positions)[::-1]
    return (numbers_N[:, None] // powers[None, :]) % codes
  rng = np.random.default_rng(seed)
  weights_K = np.arange(1, codes + 1) ** -skew
  shares_K = np.cumsum(weights_K / weights_K.sum())
  drawn_NL = np.searchsorted(shares_K[:-1], rng.random((documents, positions)))
  if kind == 'independent':
    # Which code is how frequent differs from position to position.
    orders = [rng.permutation(codes) for _ in range(positions)]
    return np.stack(
      [order[drawn_NL[:, at]] for at, order in enumerate(orders)], axis=1
    )
  assert kind == 'hierarchical', kind
  codes_NL = np.empty_like(drawn_NL)
  prefix_N = np.zeros(documents, np.uint64)
  for at in range(positions):
    # A shift by a hash of the prefix stands for an order of its own.
    shift_N = (prefix_N >> np.uint64(33)) % np.uint64(codes)
    codes_NL[:, at] = (drawn_NL[:, at] + shift_N.astype(np.int64)) % codes
    step_N = codes_NL[:, at].astype(np.uint64) + np.uint64(at + 1)
    prefix_N = (prefix_N ^ step_N) * np.uint64(0x9E3779B97F4A7C15)
    prefix_N ^= prefix_N >> np.uint64(29)
  return codes_NL


def entropy(counts: np.ndarray, outcomes: float) -> float:
  """Entropy of counts over that of `outcomes` equally likely ones."""
  shares = counts[counts > 0] / counts.sum()
  return float(-np.sum(shares * np.log(shares)) / np.log(outcomes) + 0.0)
