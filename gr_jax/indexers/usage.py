"""How codes were used lately: what balance and the collapse guard look at."""

import jax
import jax.numpy as jnp
from flax import linen as nn

# Of the moving average of use (DIGER, arXiv 2601.19711).
_DECAY = 0.99


def uniform_share(sizes):
  """[L, K] equal shares of use, 0 past a position's size."""
  sizes_L1 = jnp.asarray(sizes)[:, None]
  present_LK = jnp.arange(max(sizes))[None, :] < sizes_L1
  return present_LK / sizes_L1.astype(jnp.float32)


class CodeUsage(nn.Module):
  """Flax state 'usage': shares of use and the identifiers of recent batches.

  Attributes:
    sizes: codes of each position.
    queue: Q, how many recent documents are remembered; 0 for none.
  """

  sizes: tuple[int, ...]
  queue: int

  def setup(self):
    # Uniform until there is something else to say.
    self.share = self.variable(
      'usage', 'share', lambda: uniform_share(self.sizes)
    )
    self.codes = self.variable(
      'usage', 'codes', jnp.zeros, (self.queue, len(self.sizes)), jnp.int32
    )
    self.documents = self.variable(
      'usage', 'documents', lambda: jnp.full(self.queue, -1, jnp.int32)
    )

  def recent(self):
    """[L, K] moving average of use, [Q, L] codes, [Q] documents (-1: none)."""
    return self.share.value, self.codes.value, self.documents.value

  def update(self, codes_BL, documents_B):
    """Takes a batch into the average and to the front of the queue.

    Args:
      codes_BL: int32 identifiers of the global batch.
      documents_B: int32 document of each row.
    """
    if self.is_initializing() or not self.is_mutable_collection('usage'):
      return
    used_LK = jnp.mean(jax.nn.one_hot(codes_BL, max(self.sizes)), axis=0)
    self.share.value = _DECAY * self.share.value + (1 - _DECAY) * used_LK
    for queue, rows in ((self.codes, codes_BL), (self.documents, documents_B)):
      rows = rows.astype(jnp.int32)
      queue.value = jnp.concatenate([rows, queue.value])[: self.queue]
