"""Whether settings, examples and vectors fit each other."""

from collections.abc import Mapping

import numpy as np

from gr_jax.data.prepared import PreparedData
from gr_jax.types import UserError, near_miss


def used_rates(prepared: PreparedData, rates: Mapping[str, float]) -> dict:
  """The rates of the sources that hold examples, in sorted order.

  A collection without labelled queries has an empty source of that name;
  what it would have got goes to the others. The door reports what is left
  out.

  Args:
    prepared: the examples.
    rates: how often each source is drawn from.

  Raises:
    UserError: for an unknown source, a bad rate, or nothing to draw from.
  """
  for name, rate in rates.items():
    if name not in prepared.sources:
      there = sorted(prepared.sources)
      raise UserError(
        f'rates: no source {name!r} was prepared; there are {there}'
        f'{near_miss(name, there)}'
      )
    if not (np.isfinite(rate) and rate >= 0):
      raise UserError(f'rates: {name!r} must be 0 or more, got {rate}')
  used = {
    name: float(rate)
    for name, rate in sorted(rates.items())
    if rate > 0 and len(prepared.sources[name])
  }
  if not used:
    raise UserError(
      f'rates: none of {dict(rates)} has examples in {prepared.directory}'
    )
  return used


def check_size(batch_size: int) -> int:
  """The size of a batch, refused when there is nothing in it."""
  if batch_size < 1:
    raise UserError(f'LoaderSettings.batch_size is 1 or more, got {batch_size}')
  return batch_size


def check_vectors(prepared: PreparedData, vectors) -> None:
  """Refuses vectors that are not those of the examples.

  Args:
    prepared: the examples.
    vectors: loader.Vectors.
  """
  if len(vectors.documents) != len(prepared.document_ids):
    raise UserError(
      f'vectors of {len(vectors.documents)} documents do not fit the '
      f'{len(prepared.document_ids)} prepared ones; encode them again'
    )
  for name, source in prepared.sources.items():
    if name in vectors.queries and len(vectors.queries[name]) != len(source):
      raise UserError(
        f'{len(vectors.queries[name])} vectors of {name!r} queries do not fit '
        f'the {len(source)} prepared ones; encode them again'
      )
