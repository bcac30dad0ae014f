"""What balance buys: the price of decoding as identifiers get skewed.

python benchmarks/balance.py --documents=1000000 --output=balance.json

Two shared cores (Intel Xeon at 2.5 GHz, jax 0.10.2): 90 seconds. Found there,
with 100 beams and 1M documents: the beam search takes .4 (even IDs) to 1.0 ms a
query (8 x 128, skew 1.5), where beams are at nodes of all kinds; the trie takes
9 to 19 bytes a document. Above all skew is paid for in documents: with even IDs
100 beams hold 100 of them, at skew 1.5 (4 x 256) 35,729 for one query in a
hundred, whose dot products take 13 ms instead of .02.

Synthetic identifiers of 8 codes out of 128 and of 4 out of 256 go through the
project's own trie and beam search. Codes are drawn from a Zipf
distribution with exponent `skew`: independently at each position, or
'hierarchical', where each prefix orders the codes anew, so that the codes of a
position are used evenly while whole identifiers are not (entropy per position
does not see it). 'even' spaces identifiers equally: the best there can be.

There is no model: a query asks for a document drawn at random, and a code's
score is noise plus a bonus where that document has the code. Columns:

  IDs             distinct identifiers
  entropy         of whole identifiers over log min(N, K^L)
  per position    mean normalised entropy of the codes of a position
  bytes/doc       of the trie
  children        of an inner node, mean and largest
  docs per ID     99 % of the identifiers hold at most so many, and largest
  trie, beam      ms a query that the beam search takes longer than one over all
                  codes (less, where it is negative), and that it takes
  docs in beams   documents of the identifiers that the beams reach, which all
                  are scored if all are to be ranked: median, 99 %, largest
  scoring         ms a query for the dot products of so many documents as 99 %
                  of the queries hold at most, 384 wide in float16
  docs to target  of the queries that reach their document: documents scored,
                  in generative order, until it is sure to be among them
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import platform
import shlex
import time
from collections.abc import Callable, Sequence

import numpy as np
from synthetic_ids import entropy, make_codes

from gr_jax import entry
from gr_jax.types import UserError

SPACES = ((8, 128), (4, 256))
# (kind, skew) of the rows.
ROWS = (
  ('even', 0.0),
  ('independent', 0.0),
  ('independent', 0.5),
  ('independent', 1.0),
  ('independent', 1.5),
  ('independent', 2.0),
  ('hierarchical', 1.0),
)
BATCH = 32
BATCHES = 4
_WIDTH = 384
# What the codes of the document that is asked for score above the noise.
_BONUS = 4.0


@dataclasses.dataclass(frozen=True)
class Cost:
  """One row of the table; names as in the docstring above."""

  positions: int
  codes: int
  kind: str
  skew: float
  identifiers: int
  entropy: float
  position_entropy: float
  trie_bytes_per_document: float
  children_mean: float
  children_max: int
  documents_per_id_p99: float
  documents_per_id_max: int
  constraint_ms: float
  beam_search_ms: float
  documents_in_beams: tuple[float, float, float]
  scoring_ms: float
  target_reached: float
  documents_to_target: tuple[float, float, float]
  build_seconds: float


def milliseconds(function: Callable[[int], object]) -> float:
  """Least time a query of calls with batch numbers, compilation apart.

  The least of many: others may be at work on the machine.
  """
  import jax

  jax.block_until_ready(function(0))
  times: list[float] = []
  while len(times) < 3 or (len(times) < 20 and sum(times) < 1):
    start = time.perf_counter()
    jax.block_until_ready(function(len(times) % BATCHES))
    times.append(time.perf_counter() - start)
  return 1e3 * min(times) / BATCH


@functools.cache
def _programs(positions: int, codes: int, beams: int):
  """Compiled beam searches, with the trie and over all codes."""
  import jax
  import jax.numpy as jnp
  import unconstrained

  from gr_jax.decoding.beam import beam_search

  def scores(noise_BLK, bigram_KK, targets_BL):
    bonus_BLK = _BONUS * jax.nn.one_hot(targets_BL, codes)
    unigram_BLK = noise_BLK + bonus_BLK

    def of_next(codes_BW, level):
      scores_B1K = jnp.take(unigram_BLK, level, axis=1)[:, None, :]
      # The code before matters too, so that no two beams score alike.
      return jax.nn.log_softmax(scores_B1K + bigram_KK[codes_BW])

    return of_next

  @jax.jit
  def search(tables, *inputs):
    of_next = scores(*inputs)
    return beam_search(
      lambda width: jnp.zeros((BATCH, width)),
      lambda state, codes_BW, level: (of_next(codes_BW, level), state),
      tables,
      beams,
      positions,
    )

  @jax.jit
  def free(*inputs):
    return unconstrained.beam_search(scores(*inputs), BATCH, beams, positions)

  return search, free


def _inputs(codes_NL: np.ndarray, codes: int, seed: int):
  """Scores and targets of each batch; the same for every skew."""
  import jax.numpy as jnp

  positions = codes_NL.shape[1]
  rng = np.random.default_rng(seed)
  bigram_KK = jnp.asarray(rng.normal(size=(codes, codes)), jnp.float32)
  batches = []
  for _ in range(BATCHES):
    noise_BLK = rng.normal(size=(BATCH, positions, codes)).astype(np.float32)
    targets_B = rng.integers(len(codes_NL), size=BATCH)
    targets_BL = jnp.asarray(codes_NL[targets_B], jnp.int32)
    batches.append((jnp.asarray(noise_BLK), bigram_KK, targets_BL))
  return batches


def _children(codes_NL: np.ndarray) -> np.ndarray:
  """Children of every inner node."""
  from gr_jax.evaluation.prefixes import prefix_tree

  tree = prefix_tree(codes_NL)
  return np.concatenate(
    [tree.children(length) for length in range(tree.positions)]
  )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
  """Median, 99 % and largest."""
  if not len(values):
    return (0.0, 0.0, 0.0)
  return (
    float(np.median(values)),
    float(np.percentile(values, 99)),
    float(np.max(values)),
  )


def _reached(found, targets_BL):
  """Documents in the beams of each query, and until its target's bucket."""
  valid_BW = np.asarray(found.valid_BW)
  sizes_BW = np.asarray(found.buckets[0].sizes_BW)
  hits_BW = valid_BW & np.all(
    np.asarray(found.codes_BWL) == np.asarray(targets_BL)[:, None], axis=2
  )
  until_BW = np.cumsum(sizes_BW, axis=1)
  reached_B = hits_BW.any(axis=1)
  places_B = hits_BW.argmax(axis=1)
  to_target_B = np.take_along_axis(until_BW, places_B[:, None], axis=1)[:, 0]
  return until_BW[:, -1], to_target_B[reached_B]


def _scoring_ms(documents: int, scored: float) -> float:
  """Time a query to score `scored` documents anywhere in the corpus."""
  import jax
  import jax.numpy as jnp

  from gr_jax.retrieval.program import dense_scores

  rng = np.random.default_rng(2)
  shape = (BATCH, max(int(np.ceil(scored)), 1))
  rows_BC = jnp.asarray(rng.integers(documents, size=shape), jnp.int32)
  queries_BD = jnp.ones((BATCH, _WIDTH))
  score = jax.jit(dense_scores)
  vectors = (jnp.ones((documents, _WIDTH), jnp.float16),)
  behind = jnp.int32(documents)
  return milliseconds(lambda _: score(queries_BD, vectors, rows_BC, behind))


def measure(
  kind: str,
  skew: float,
  documents: int,
  positions: int,
  codes: int,
  beams: int,
) -> Cost:
  """Builds the trie of synthetic identifiers and decodes with it."""
  from gr_jax.decoding.trie import build_trie

  codes_NL = make_codes(kind, skew, documents, positions, codes, seed=0)
  start = time.perf_counter()
  trie = build_trie(codes_NL, (codes,) * positions)
  build_seconds = time.perf_counter() - start
  tables = trie.tables()
  search, free = _programs(positions, codes, beams)
  batches, children = _inputs(codes_NL, codes, seed=1), _children(codes_NL)
  sizes = np.diff(trie.leaf_starts, append=documents)
  in_beams, to_target = [], []
  for inputs in batches:
    all_of_it, until = _reached(search(tables, *inputs), inputs[-1])
    in_beams.extend(all_of_it)
    to_target.extend(until)
  searching = milliseconds(lambda at: search(tables, *batches[at]))
  freely = milliseconds(lambda at: free(*batches[at]))
  return Cost(
    positions=positions,
    codes=codes,
    kind=kind,
    skew=skew,
    identifiers=len(sizes),
    entropy=entropy(sizes, min(documents, float(codes) ** positions)),
    position_entropy=sum(
      entropy(np.bincount(codes_NL[:, at], minlength=codes), codes)
      for at in range(positions)
    )
    / positions,
    trie_bytes_per_document=trie.nbytes / documents,
    children_mean=float(children.mean()),
    children_max=int(children.max()),
    documents_per_id_p99=float(np.percentile(sizes, 99)),
    documents_per_id_max=int(sizes.max()),
    constraint_ms=searching - freely,
    beam_search_ms=searching,
    documents_in_beams=_spread(in_beams),
    scoring_ms=_scoring_ms(documents, _spread(in_beams)[1]),
    target_reached=len(to_target) / len(in_beams),
    documents_to_target=_spread(to_target),
    build_seconds=build_seconds,
  )


_HEADINGS = (
  'identifiers', 'skew', 'IDs', 'entropy', 'per position', 'bytes/doc',
  'children', 'docs per ID', 'trie ms', 'beam ms', 'docs in beams',
  'scoring ms', 'reached', 'docs to target',
)  # fmt: skip


def table(costs: Sequence[Cost]) -> str:
  """Aligned lines for a reader."""
  rows = [_HEADINGS]
  for cost in costs:
    rows.append(
      (
        f'{cost.positions}x{cost.codes} {cost.kind}',
        f'{cost.skew:g}',
        f'{cost.identifiers:,}',
        f'{cost.entropy:.3f}',
        f'{cost.position_entropy:.3f}',
        f'{cost.trie_bytes_per_document:.0f}',
        f'{cost.children_mean:.2f} {cost.children_max}',
        f'{cost.documents_per_id_p99:.0f} {cost.documents_per_id_max:,}',
        f'{cost.constraint_ms:.2f}',
        f'{cost.beam_search_ms:.2f}',
        ' '.join(f'{value:,.0f}' for value in cost.documents_in_beams),
        f'{cost.scoring_ms:.2f}',
        f'{cost.target_reached:.2f}',
        ' '.join(f'{value:,.0f}' for value in cost.documents_to_target),
      )
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.rjust(width) for cell, width in zip(row, widths, strict=True)
    )
    for row in rows
  )


def hardware() -> str:
  """What the times were taken on."""
  import jax

  model = platform.processor() or platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.is_file() else []
  names = [x.partition(':')[2] for x in lines if x.startswith('model name')]
  model = names[0].strip() if names else model
  device = jax.devices()[0].device_kind
  return f'{os.cpu_count()} x {model}; jax {jax.__version__} on {device}'


def main(arguments: list[str]) -> int:
  """Flags to a file and a table."""
  parser = argparse.ArgumentParser(
    prog='python benchmarks/balance.py',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument('--documents', type=int, default=1_000_000, metavar='N')
  parser.add_argument('--beams', type=int, default=100, metavar='N')
  parser.add_argument('--output', required=True, metavar='FILE')
  flags = parser.parse_args(arguments)
  if flags.documents < 2 or flags.beams < 1:
    raise UserError(
      '--documents should be 2 or more and --beams 1 or more, got '
      f'{flags.documents} and {flags.beams}'
    )
  start = time.perf_counter()
  costs = [
    measure(kind, skew, flags.documents, positions, codes, flags.beams)
    for positions, codes in SPACES
    for kind, skew in ROWS
  ]
  contents = {
    'command': 'python benchmarks/balance.py ' + shlex.join(arguments),
    'hardware': hardware(),
    'seconds': time.perf_counter() - start,
    'documents': flags.documents,
    'beams': flags.beams,
    'queries_at_once': BATCH,
    'rows': [dataclasses.asdict(cost) for cost in costs],
  }
  path = pathlib.Path(flags.output)
  path.write_text(json.dumps(contents, indent=1) + '\n', encoding='utf-8')
  print(f'{contents["command"]}: {contents["seconds"]:.0f} s')
  print(contents['hardware'])
  print(table(costs))
  return 0


if __name__ == '__main__':
  entry.run_main(main)
