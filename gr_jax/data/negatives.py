"""Hard negatives of a batch, drawn from those that were found beforehand."""

from collections.abc import Mapping

import numpy as np

from gr_jax.data.prepared import PreparedData
from gr_jax.types import NO_DOC, UserError


class HardNegatives:
  """Adds H documents to each row of a batch, other ones in every epoch."""

  def __init__(
    self,
    prepared: PreparedData,
    candidates: Mapping[str, np.ndarray],
    documents: np.ndarray | None,
    count: int,
    rows: np.ndarray,
  ):
    """Joins candidates with what is read of them.

    Args:
      prepared: the examples.
      candidates: source to [examples, C] document numbers, NO_DOC for none.
      documents: [N, E] vectors that stand in for tokens, None for tokens.
      count: H.
      rows: places in the whole batch of those that are read.

    Raises:
      UserError: more are asked for than were kept.
    """
    for name, kept in candidates.items():
      if count > kept.shape[1]:
        raise UserError(
          f'LoaderSettings.hard_negatives is {count}, of each {name!r} query '
          f'{kept.shape[1]} are kept: set that many or fewer'
        )
    self._prepared = prepared
    self._names = sorted(prepared.sources)
    self._candidates = candidates
    self._documents = documents
    self._count = count
    self._rows = rows

  def __call__(
    self, batch: dict[str, np.ndarray], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """The batch with 'negative_index' and vectors or tokens of negatives.

    Args:
      batch: from the loader.
      rng: of the batch's place in the order.

    Returns:
      'negative_index' int32 [B, H] (NO_DOC where a query has fewer; what
      stands there is to be left out) and 'negative_vectors' [B, H, E] or
      'negative_tokens' [B, H, S] besides what there was.
    """
    width = next(iter(self._candidates.values())).shape[1]
    found_BC = np.empty((len(batch['source']), width), np.int32)
    for number in np.unique(batch['source']):
      rows = batch['source'] == number
      kept = self._candidates[self._names[number]]
      found_BC[rows] = kept[batch['example'][rows]]
    # A random order with the missing last.
    random_BC = rng.random((self._rows[-1] + 1, width))[self._rows]
    order_BC = np.argsort(random_BC + (found_BC < 0), axis=1)
    drawn_BH = np.take_along_axis(found_BC, order_BC[:, : self._count], axis=1)
    read_BH = np.where(drawn_BH == NO_DOC, 0, drawn_BH)
    return {**batch, 'negative_index': drawn_BH, **self._read(read_BH)}

  def _read(self, documents_BH: np.ndarray) -> dict[str, np.ndarray]:
    """What the model reads of documents."""
    if self._documents is not None:
      return {'negative_vectors': np.asarray(self._documents[documents_BH])}
    length = self._prepared.document_length
    tokens = np.zeros((documents_BH.size, length), np.int32)
    texts = self._prepared.document_tokens(documents_BH.reshape(-1))
    for row, ids in enumerate(texts):
      tokens[row, : len(ids)] = ids
    return {'negative_tokens': tokens.reshape(*documents_BH.shape, length)}
