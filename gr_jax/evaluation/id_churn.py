"""What became of the identifiers since an earlier index."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from gr_jax.checksums import file_sha256
from gr_jax.evaluation.prefixes import prefix_tree
from gr_jax.index import manifest
from gr_jax.index.index import Index
from gr_jax.index.reader import load_index
from gr_jax.index.texts import TextTable
from gr_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class IdTable:
  """Which document has which identifier.

  Attributes:
    codes_NL: the identifiers.
    document_ids: the collection's ids.
  """

  codes_NL: np.ndarray
  document_ids: Sequence[str]


def read_id_table(path: pathlib.Path) -> IdTable:
  """Reads an index, or one version of it that is still there.

  Args:
    path: the folder of an index, or of a version inside one (v000001).
  """
  if not (path / manifest.NAME).is_file():
    index = load_index(path)
    return IdTable(index.codes_NL, index.document_ids)
  checksum = file_sha256(path / manifest.NAME)
  try:
    # An old version has no checksum of its manifest: CURRENT names another.
    manifest.read_manifest(path, checksum, verify=False)
    codes_NL = np.load(path / 'codes.npy', mmap_mode='r', allow_pickle=False)
    offsets = np.load(path / 'document_ids_offsets.npy', allow_pickle=False)
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} should be a version of an index, its files are damaged: compare '
      'with another'
    ) from error
  return IdTable(codes_NL, TextTable.open(path / 'document_ids.txt', offsets))


def version_of(index: Index) -> int:
  """The number of a saved index's version."""
  return int(index.directory.name.removeprefix('v'))


def matched_rows(
  new_ids: Sequence[str], old_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Rows of the documents that are in both, in the order of the new ones."""
  old_rows = {name: row for row, name in enumerate(old_ids)}
  old_N = np.fromiter(
    (old_rows.get(name, -1) for name in new_ids), np.int64, len(new_ids)
  )
  new_M = np.flatnonzero(old_N >= 0)
  return new_M, old_N[new_M]


def _pairs(counts: np.ndarray) -> float:
  """Pairs of documents within groups of these sizes."""
  counts = counts.astype(np.float64)
  return float(np.sum(counts * (counts - 1)) / 2)


def grouping_agreement(
  new_N: np.ndarray, old_N: np.ndarray
) -> dict[str, float | None]:
  """Whether the same documents are together, whatever the groups are called.

  The adjusted Rand index (Hubert and Arabie 1985): agreement of pairs of
  documents, 0 for groups drawn at random with these sizes, 1 for the same
  groups.

  Args:
    new_N: number of each document's group.
    old_N: the same before.

  Returns:
    'adjusted_rand', and 'kept_pairs': of the pairs that were together, the
    share that still is; None where there are no pairs to compare.
  """
  joint = new_N.astype(np.int64) * (int(old_N.max()) + 1) + old_N
  together = _pairs(np.unique(joint, return_counts=True)[1])
  new_pairs = _pairs(np.bincount(new_N))
  old_pairs = _pairs(np.bincount(old_N))
  every = len(new_N) * (len(new_N) - 1) / 2
  expected = new_pairs * old_pairs / every if every else 0.0
  best = (new_pairs + old_pairs) / 2
  informative = best > expected
  return {
    'adjusted_rand': (together - expected) / (best - expected)
    if informative
    else None,
    'kept_pairs': together / old_pairs if old_pairs else None,
  }


def churn(new: IdTable, old: IdTable) -> dict[str, object]:
  """Compares the identifiers of the documents that are in both.

  Args:
    new: the index that is reported.
    old: an earlier one, possibly of another length or other code sizes.

  Returns:
    Counts of 'matched', 'new' and 'removed' documents, 'changed' (share of
    the matched whose whole ID differs), 'positions' and 'prefixes' with the
    share that differs, and for prefixes the agreement of their groups.
  """
  new_M, old_M = matched_rows(new.document_ids, old.document_ids)
  if not len(new_M):
    raise UserError(
      'the index to compare with should hold some of the same documents, it '
      'holds none of them: name an index of the same corpus'
    )
  new_ML, old_ML = new.codes_NL[new_M], old.codes_NL[old_M]
  positions = min(new_ML.shape[1], old_ML.shape[1])
  new_tree, old_tree = prefix_tree(new_ML), prefix_tree(old_ML)
  other_M = np.zeros(len(new_M), bool)
  by_position, by_prefix = [], []
  for position in range(positions):
    differs_M = new_ML[:, position] != old_ML[:, position]
    other_M |= differs_M
    by_position.append(
      {'position': position, 'changed': float(differs_M.mean())}
    )
    by_prefix.append(
      {
        'length': position + 1,
        'changed': float(other_M.mean()),
        **grouping_agreement(
          new_tree.members(position + 1), old_tree.members(position + 1)
        ),
      }
    )
  same_length = new_ML.shape[1] == old_ML.shape[1]
  return {
    'matched': len(new_M),
    'new': len(new.document_ids) - len(new_M),
    'removed': len(old.document_ids) - len(new_M),
    'lengths': {'now': new_ML.shape[1], 'before': old_ML.shape[1]},
    # An ID of another length is another ID.
    'changed': by_prefix[-1]['changed'] if same_length else 1.0,
    'positions': by_position,
    'prefixes': by_prefix,
  }
