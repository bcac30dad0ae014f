"""Identifiers of the corpus where T5X decodes: given ones, and their trie."""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from gr_jax.decoding.trie import Room, TrieTables, build_trie
from gr_jax.types import UserError


def read_identifiers(
  path: str, document_ids: Sequence[str], sizes: Sequence[int]
) -> np.ndarray:
  """[N, L] int32 identifiers of a corpus.

  Args:
    path: a .npy file of [N, L] codes in corpus order, or the folder of an
      index of the same corpus.
    document_ids: of the corpus, N.
    sizes: codes of each position.

  Raises:
    UserError: for those of another corpus or model.
  """
  if path.endswith('.npy'):
    codes_NL = np.load(path, allow_pickle=False)
  else:
    from gr_jax.index.reader import load_index

    index = load_index(pathlib.Path(path))
    if list(index.document_ids) != list(document_ids):
      raise UserError(
        f'{path} is of other documents ({len(index)}) than those that were '
        f'prepared ({len(document_ids)}): index the same corpus'
      )
    codes_NL = index.codes_NL
  wanted = (len(document_ids), len(sizes))
  if codes_NL.shape != wanted:
    raise UserError(
      f'{path} holds identifiers {list(codes_NL.shape)}, expected '
      f'{list(wanted)}: one of {wanted[1]} codes for each document'
    )
  codes_NL = codes_NL.astype(np.int32)
  if (codes_NL < 0).any() or (codes_NL >= np.asarray(sizes)).any():
    raise UserError(f'{path} holds codes outside of the sizes {tuple(sizes)}')
  return codes_NL


class CurrentTrie:
  """The trie of identifiers that a program is given as an array.

  Identifiers move while a program does not: the host builds the trie when the
  program runs, and again when they have moved.
  """

  def __init__(self, sizes: Sequence[int]):
    self._sizes = tuple(sizes)
    self._built: tuple[np.ndarray, TrieTables] | None = None

  def tables(self, codes_NL: jax.Array) -> TrieTables:
    """The tables of a trie with room for any identifiers.

    Args:
      codes_NL: identifiers, may be traced; a row of -1 is a document that has
        none, which is not found.
    """
    none = np.zeros(codes_NL.shape, np.int32)
    shapes = jax.eval_shape(lambda: self._tables(none))
    return jax.pure_callback(self._kept, shapes, codes_NL)

  def _kept(self, codes_NL) -> TrieTables:
    codes_NL = np.asarray(codes_NL)
    if self._built is None or not np.array_equal(self._built[0], codes_NL):
      self._built = codes_NL, self._tables(codes_NL)
    return self._built[1]

  def _tables(self, codes_NL: np.ndarray) -> TrieTables:
    known = np.flatnonzero((codes_NL >= 0).all(axis=1))
    if not len(known):
      raise UserError(
        'no document has an identifier yet, as none has while codes move: '
        'evaluate with gr_jax.t5x.evaluator, or name an index or a table '
        '(IDENTIFIERS)'
      )
    trie = build_trie(codes_NL[known], self._sizes)
    tables = trie.host_tables(Room.of_any(len(codes_NL), self._sizes))
    documents = np.zeros_like(tables.documents)
    documents[: len(trie)] = known[trie.documents]
    return TrieTables(**{**vars(tables), 'documents': documents})
