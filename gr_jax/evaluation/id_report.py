"""All numbers of the report on an index's identifiers, as plain data."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from gr_jax.data.prepared import PreparedData
from gr_jax.evaluation import id_churn, id_measures, id_recall, id_treemap
from gr_jax.evaluation.identifiers import (
  code_usage,
  gini,
  identifier_statistics,
)
from gr_jax.evaluation.prefixes import PrefixTree, prefix_tree
from gr_jax.index.index import Index


@dataclasses.dataclass(frozen=True)
class RunOutputs:
  """What a run left that says how its documents are found.

  Attributes:
    directory: of the run.
    collection: folder of its collection, for the judgements.
    prepared: its training examples, None when they are not there.
  """

  directory: pathlib.Path
  collection: pathlib.Path
  prepared: PreparedData | None


def _prefix_rows(
  tree: PrefixTree, code_sizes: Sequence[int], entropies: Sequence[float]
) -> list[dict]:
  """Nodes, evenness and occupancy of the prefixes of each length."""
  documents = len(tree.order_N)
  log_cells = np.cumsum(np.log(code_sizes))
  rows = []
  for length, (cells, entropy) in enumerate(
    zip(log_cells.tolist(), entropies, strict=True), start=1
  ):
    counts = tree.counts(length)
    rows.append(
      {
        'length': length,
        'in_use': len(counts),
        'expected_in_use': id_measures.expected_in_use(documents, cells),
        'entropy': entropy,
        'documents': {
          'mean': float(counts.mean()),
          'p99': float(np.percentile(counts, 99)),
          'max': int(counts.max()),
        },
        'gini': gini(counts),
        'occupancy': id_measures.occupancy(counts, cells),
      }
    )
  return rows


def _recall(
  run: RunOutputs | None, tree: PrefixTree, document_ids: Sequence[str]
) -> dict[str, object]:
  """Recall by group, or 'missing': a sentence that says why there is none."""
  if run is None:
    return {
      'missing': 'Left out: no --run_dir was given, so there is no evaluation '
      'to read.'
    }
  split, runs = id_recall.find_runs(run.directory / 'runs')
  if not runs:
    return {
      'missing': f'Left out: {run.directory} holds no evaluation; '
      f'python -m gr_jax.evaluate --run_dir={run.directory} makes one.'
    }
  relevant = id_recall.read_relevant(run.collection, split)
  found = relevant and id_recall.recall_report(
    tree, document_ids, runs, relevant, run.prepared
  )
  if not found:
    return {
      'missing': f'Left out: {run.collection} has no relevant document of '
      f'split {split} that is in the index.'
    }
  return {'split': split, **found}


def collect(
  index: Index,
  name: str,
  against: id_churn.IdTable | None = None,
  run: RunOutputs | None = None,
) -> dict[str, object]:
  """Measures the identifiers of a saved index.

  Args:
    index: as loaded.
    name: what the report calls it.
    against: identifiers of an earlier index of the same corpus.
    run: where an evaluation of the index may lie.

  Returns:
    Plain values, ready for JSON.
  """
  codes_NL = np.asarray(index.codes_NL)
  code_sizes = index.trie.code_sizes
  # Before the tree: it refuses codes that are outside their position.
  usage = code_usage(codes_NL, code_sizes)
  tree = prefix_tree(codes_NL)
  found = identifier_statistics(codes_NL, code_sizes, tree)
  trie_bytes = index.trie.nbytes
  now = id_churn.IdTable(codes_NL, index.document_ids)
  return {
    'index': name,
    'version': id_churn.version_of(index),
    'model_sha256': index.manifest['model_sha256'],
    'code_sizes': list(code_sizes),
    'log10_space': sum(map(math.log10, code_sizes)),
    'verdicts': id_measures.verdicts(found, code_sizes),
    'statistics': dataclasses.asdict(found),
    'prefixes': _prefix_rows(tree, code_sizes, found.prefix_entropy),
    'usage': [count.tolist() for count in usage],
    'dead': [np.flatnonzero(count == 0).tolist() for count in usage],
    'decoding': {
      'steps': id_measures.decoding_cost(tree, code_sizes),
      'trie_bytes': trie_bytes,
      'trie_bytes_per_document': trie_bytes / len(index),
    },
    'churn': None if against is None else id_churn.churn(now, against),
    'recall': _recall(run, tree, index.document_ids),
    'tree': id_treemap.treemap(
      tree, (index.titles, index.snippets, index.document_ids)
    ),
  }


def scalars(report: Mapping[str, object]) -> dict[str, float]:
  """The numbers of a report that TensorBoard shows over versions."""
  found = report['statistics']
  values = {
    'ids/uniqueness': found['uniqueness'],
    'ids/sequence_entropy': found['sequence_entropy'],
    'ids/gini': found['gini'],
    'ids/dead_codes': found['dead_codes'],
    'ids/trie_bytes_per_document': report['decoding'][
      'trie_bytes_per_document'
    ],
  }
  for name, value in found['documents_per_id'].items():
    values[f'ids/documents_per_id/{name}'] = value
  for name in ('position_entropy', 'prefix_entropy', 'utilisation'):
    for position, value in enumerate(found[name], start=1):
      values[f'ids/{name}/{position}'] = value
  for step in report['decoding']['steps']:
    name = f'ids/continuations/{step["position"] + 1}'
    values[name] = step['continuations']
  churn = report['churn']
  if churn:
    values['ids/churn'] = churn['changed']
    for row in churn['prefixes']:
      if row['adjusted_rand'] is not None:
        values[f'ids/adjusted_rand/{row["length"]}'] = row['adjusted_rand']
  return values


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file by an atomic rename."""
  partial = path.with_name(path.name + '.partial')
  # A damaged title must not keep the report from being written.
  partial.write_text(text, encoding='utf-8', errors='replace')
  os.replace(partial, path)


def as_json(report: Mapping[str, object]) -> str:
  """A report as JSON text; NaN is refused, it is no JSON."""
  return json.dumps(report, ensure_ascii=False, allow_nan=False) + '\n'
