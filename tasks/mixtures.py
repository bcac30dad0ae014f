"""Mixtures of the query sources of a collection, with rates from gin."""

from collections.abc import Mapping

import seqio

from gr_jax.types import UserError, near_miss


def register_mixture(
  name: str, task_names: Mapping[str, str], rates: Mapping[str, float]
) -> seqio.Mixture:
  """Registers a mixture, in place of an earlier one of its name.

  Args:
    name: of the mixture.
    task_names: registered Tasks by source, as `tasks.beir.register` names
      them.
    rates: how often each source is drawn from, relative to each other;
      `LoaderSettings.rates` of the same run.

  Returns:
    The mixture.

  Raises:
    UserError: for a rate of a source that has no Task.
  """
  for source in rates:
    if source not in task_names:
      raise UserError(
        f'rates: no Task of {source!r}; there are {sorted(task_names)}'
        f'{near_miss(source, task_names)}'
      )
  if name in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.remove(name)
  return seqio.MixtureRegistry.add(
    name,
    [
      (task_names[source], rate)
      for source, rate in sorted(rates.items())
      if rate > 0
    ],
  )
