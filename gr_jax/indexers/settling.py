"""Gives a whole corpus its identifiers: each document the nearest with room."""

import math

import numpy as np


def capacity(documents, code_sizes, room):
  """Documents that one identifier takes.

  Args:
    documents: N.
    code_sizes: codes of each position; K^L is their product.
    room: in units of an even share N / K^L; 0 for any number.

  Returns:
    A number of documents, at least 1.
  """
  if not room:
    return documents
  return max(math.ceil(room * documents / math.prod(code_sizes)), 1)


def settle(codes_NWL, costs_NW, most):
  """Identifiers such that no identifier is asked for by more than it takes.

  Stable matching (Gale and Shapley, 1962), our reconstruction of balance over
  the whole ID space: each document asks for the nearest of its candidates, an
  identifier keeps the `most` documents that are nearest to it, and the others
  ask for their next. Nobody could be nearer to an identifier that holds a
  document further away. A document that nobody keeps gets its nearest all the
  same.

  Args:
    codes_NWL: int candidates of each document, the nearest first.
    costs_NW: their costs.
    most: documents that one identifier takes.

  Returns:
    [N, L] identifiers; the same input gives the same output.
  """
  documents, beams, _ = codes_NWL.shape
  names_NW = _names(codes_NWL)
  asks_N = np.zeros(documents, np.int64)
  rows_N = np.arange(documents)
  waiting_N = np.ones(documents, bool)
  while waiting_N.any():
    asking = rows_N[asks_N < beams]
    names = names_NW[asking, asks_N[asking]]
    order = np.lexsort((costs_NW[asking, asks_N[asking]], names))
    refused = asking[order][_places(names[order]) >= most]
    asks_N[refused] += 1
    waiting_N[:] = False
    waiting_N[refused] = asks_N[refused] < beams
  return codes_NWL[rows_N, np.where(asks_N < beams, asks_N, 0)]


def _names(codes_NWL):
  """[N, W] ints, equal where identifiers are."""
  flat_XL = codes_NWL.reshape(-1, codes_NWL.shape[-1])
  _, names_X = np.unique(flat_XL, axis=0, return_inverse=True)
  return names_X.reshape(codes_NWL.shape[:2])


def _places(names_X):
  """[X] how many of the same name stand before, names being in order."""
  first_X = np.append(True, names_X[1:] != names_X[:-1])
  starts_X = np.flatnonzero(first_X)
  return np.arange(len(names_X)) - np.repeat(
    starts_X, np.diff(np.append(starts_X, len(names_X)))
  )
