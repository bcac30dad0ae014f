"""Static identifiers from numbers: they say nothing of a document's text."""

import hashlib
import math

import numpy as np

from gr_jax.types import UserError


def number_identifiers(config, document_ids, seed):
  """Identifiers of the documents of a corpus, without a look at their texts.

  Args:
    config: StaticConfig of a kind that numbers.
    document_ids: the collection's ids, in the corpus's order.
    seed: of 'random'.

  Returns:
    [N, L] int32 codes.

  Raises:
    UserError: the space is too small for kinds that tell all documents apart.
  """
  count, sizes = len(document_ids), config.code_sizes
  if config.kind == 'random':
    generator = np.random.default_rng(seed)
    columns = [generator.integers(0, codes, count) for codes in sizes]
    return np.stack(columns, axis=1).astype(np.int32)
  if config.kind == 'hash':
    return np.array([_digest(i, sizes) for i in document_ids], np.int32)
  if math.prod(sizes) < count or (config.kind == 'atomic' and len(sizes) > 1):
    wanted = (
      f'positions = 1 and codes = {count} or more'
      if config.kind == 'atomic'
      else f'positions and codes for {count} identifiers or more'
    )
    raise UserError(
      f"StaticConfig.kind = '{config.kind}' needs {wanted}, got "
      f'{len(sizes)} positions of {config.codes}'
    )
  return np.stack(np.unravel_index(np.arange(count), sizes), axis=1).astype(
    np.int32
  )


def _digest(document_id, sizes):
  """The codes of a document's id: parts of its SHA-256, modulo the sizes."""
  stream = b''.join(
    hashlib.sha256(f'{block}:{document_id}'.encode()).digest()
    for block in range(-(-len(sizes) // 4))
  )
  return [
    int.from_bytes(stream[8 * t : 8 * t + 8], 'big') % codes
    for t, codes in enumerate(sizes)
  ]
