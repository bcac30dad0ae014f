"""The collapse guard: are identifiers of recent documents still apart?"""

import math

import jax
import numpy as np

from gr_jax.training import shares

# Collapse shows as a share of what uniform random identifiers would have.
_LEAST_UNIQUENESS = 0.8
# Late positions of long identifiers are healthy at .6: few documents are left
# to tell apart there.
_LEAST_ENTROPY = 0.5
# Documents that share one identifier, in units of what is likely by chance.
_LARGEST = 8
_DEAD = 0.05


def watch(usage, sizes):
  """Health of the identifiers given lately.

  Args:
    usage: the Flax state of indexers.usage.CodeUsage, as numpy arrays.
    sizes: codes of each position.

  Returns:
    {'name': value} for the log, and a list of warnings, each with a remedy.
  """
  share_LK = np.asarray(usage['share'])
  positions = [
    _entropy(share_K[:size]) / math.log(size) if size > 1 else 1.0
    for share_K, size in zip(share_LK, sizes, strict=True)
  ]
  dead = sum(
    int(np.sum(share_K[:size] * size < _DEAD))
    for share_K, size in zip(share_LK, sizes, strict=True)
  )
  values = {'code_entropy_least': min(positions), 'dead_codes': dead}
  warnings = []
  if min(positions) < _LEAST_ENTROPY:
    warnings.append(
      f'codes of position {int(np.argmin(positions))} have a normalised entropy'
      f' of {min(positions):.2f}: raise ObjectiveSettings.position_entropy, or'
      ' set UpkeepConfig.reseed_every'
    )
  documents_Q, first_Q = np.unique(usage['documents'], return_index=True)
  codes_QL = np.asarray(usage['codes'])[first_Q[documents_Q >= 0]]
  if len(codes_QL) < 2:
    return values, warnings
  _, buckets = np.unique(codes_QL, axis=0, return_counts=True)
  space = math.prod(sizes)
  count = len(codes_QL)
  uniqueness = len(buckets) / count
  # Distinct identifiers of `count` uniform draws; stable for a large space.
  expected = -space * math.expm1(count * math.log1p(-1 / max(space, 2)))
  values |= {
    'recent_uniqueness': uniqueness,
    'recent_entropy': _entropy(buckets / count)
    / math.log(min(count, max(space, 2))),
    'recent_largest': int(buckets.max()),
  }
  if uniqueness < _LEAST_UNIQUENESS * expected / count:
    warnings.append(
      f'{len(buckets):,} distinct identifiers for {count:,} recent documents '
      f'({expected:,.0f} by chance): raise ObjectiveSettings.density or '
      'TrainingSettings.noise'
    )
  if buckets.max() > _LARGEST * max(1.0, count / space):
    warnings.append(
      f'{buckets.max():,} of {count:,} recent documents share one identifier: '
      'raise ObjectiveSettings.density'
    )
  return values, warnings


def make_watch(sizes, report):
  """What the training loop calls when it logs.

  Args:
    sizes: codes of each position.
    report: told each warning.

  Returns:
    state -> {'name': value}.
  """

  def watch_state(state):
    usage = jax.device_get(shares.gathered(state.usage['usage']))
    values, warnings = watch(usage, sizes)
    for warning in warnings:
      report(f'warning: {warning}')
    return values

  return watch_state


def _entropy(shares):
  """Entropy in nats of shares that sum to about 1."""
  shares = np.asarray(shares, np.float64)
  shares = shares[shares > 0] / shares.sum()
  return float(-np.sum(shares * np.log(shares)))
