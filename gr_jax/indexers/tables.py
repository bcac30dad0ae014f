"""What is known of each document of the corpus trained on, as a parameter."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.parameters import constrain, parameter

# Parameters that are tables, by the name of their module: search needs none.
TABLES = ('identifiers', 'query_means')


class DocumentTable(nn.Module):
  """A row for each document: it is read, and never trained.

  Attributes:
    width: numbers of a row.
    dtype: of the numbers.
    missing: what stands in the row of a document that has none.
    columns: logical axis of a row.
  """

  width: int
  dtype: Any
  missing: int
  columns: str = 'width'

  @nn.compact
  def __call__(self, documents_B):
    """Rows of documents; where there is no table, all are missing.

    Args:
      documents_B: int32 numbers in the corpus trained on, -1 for another.

    Returns:
      [B, width] rows.
    """
    # As long as the corpus, which the model's settings do not know.
    if self.has_variable('params', 'table'):
      table_NX = self.get_variable('params', 'table')
    elif not self.is_initializing():
      # An index carries none: what it is given is new to the model.
      # What follows from it alone takes XLA a second to work out beforehand.
      rows = jnp.full((len(documents_B), self.width), self.missing, self.dtype)
      return jax.lax.optimization_barrier(rows)
    else:
      table_NX = parameter(
        'table',
        nn.initializers.constant(self.missing),
        (1, self.width),
        ('rows', self.columns),
        self.dtype,
      )
    places_B = jnp.clip(documents_B, 0, len(table_NX) - 1)
    rows_BX = constrain(table_NX[places_B], 'batch', 'width')
    return jnp.where(documents_B[:, None] >= 0, rows_BX, self.missing)
