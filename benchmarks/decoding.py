"""What constrained decoding costs above the model, and beside its rivals.

python benchmarks/decoding.py --documents=1000000 --codes=2048 --length=8 \
  --beams=70 --batch=2 --output=decoding.json

There is no model: as in the benchmark of STATIC (arXiv 2602.22647) the scores
of the next codes are log-softmax of uniform random numbers, drawn for every
beam at every position. A whole decode is timed (all positions, the whole
batch), the programs in turns, the median of all turns:

  model           the same random scores, no search
  search          ours: the exact beam search over the trie
  unconstrained   the same beam search over all codes
  dictionary, prefix_set   rivals of our own on the host, a query at a time and
                  from scores that lie ready there (up to --host_documents)
  static, static_inexact   with --peer=FOLDER, a checkout of
                  github.com/youtube/static-constraint-decoding: with as many
                  tokens a beam as beams (exact), and 30 (its own setting)

'above' is the time less that of the model. --sweep measures besides what
changes with documents, codes, length, beams and --skew, the Zipf exponent of
the codes.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import host_tries
import jax
import jax.numpy as jnp
import numpy as np
import unconstrained
from balance import hardware
from synthetic_ids import make_codes

from gr_jax import entry
from gr_jax.decoding import beam, trie
from gr_jax.types import UserError

_INEXACT_TOKENS = 30
_SWEEP = (
  {'documents': 10_000},
  {'documents': 100_000},
  {'documents': 10_000_000},
  {'codes': 256},
  {'codes': 16_384},
  {'length': 4},
  {'length': 16},
  {'beams': 10},
  {'beams': 300},
  {'skew': 0.5},
  {'skew': 1.0},
)


@dataclasses.dataclass(frozen=True)
class Setting:
  """What is measured; names as the flags."""

  documents: int
  codes: int
  length: int
  beams: int
  batch: int
  skew: float

  @property
  def sizes(self) -> tuple[int, ...]:
    """Codes of each position."""
    return (self.codes,) * self.length


class Programs:
  """The programs on the device."""

  def __init__(self, setting: Setting, tables: trie.TrieTables):
    """Compiles nothing yet.

    Args:
      setting: what is measured.
      tables: the trie of its identifiers.
    """
    self._setting = setting
    self.search = functools.partial(jax.jit(self._search), tables=tables)
    self.model = jax.jit(self._model)
    self.unconstrained = jax.jit(self._unconstrained)

  def _scores(self, key, level, beams):
    """[B, beams, K] scores of the next codes."""
    setting = self._setting
    shape = (setting.batch * beams, setting.codes)
    logits = jax.random.uniform(jax.random.fold_in(key, level), shape)
    scores = jax.nn.log_softmax(logits)
    return scores.reshape(setting.batch, beams, setting.codes)

  def _search(self, key, tables):
    """Our beams."""
    setting = self._setting

    def start(beams):
      return jnp.zeros((setting.batch, beams, 0))

    def step(state, codes_BW, level):
      return self._scores(key, level, codes_BW.shape[1]), state

    return beam.beam_search(start, step, tables, setting.beams, setting.length)

  def _model(self, key):
    """The scores alone; nothing of them is left out."""

    def draw(total, level):
      scores = self._scores(key, level, self._setting.beams)
      return total + jax.lax.optimization_barrier(scores)[0, 0, 0], None

    first = jax.lax.optimization_barrier(self._scores(key, 0, 1))[0, 0, 0]
    return jax.lax.scan(draw, first, jnp.arange(1, self._setting.length))[0]

  def _unconstrained(self, key):
    """Beams over all codes."""
    setting = self._setting

    return unconstrained.beam_search(
      lambda codes_BW, level: self._scores(key, level, codes_BW.shape[1]),
      setting.batch,
      setting.beams,
      setting.length,
    )


class Peer:
  """STATIC, from a checkout of its repository."""

  def __init__(self, folder: str, setting: Setting, codes_NL: np.ndarray):
    """Builds its index; it takes sorted identifiers, each once."""
    sys.path.insert(0, folder)
    from static_decoding import csr_utils, decoding_jax

    start = time.perf_counter()
    order = np.lexsort(codes_NL.T[::-1])
    sorted_NL = codes_NL[order].astype(np.int64)
    new = np.any(sorted_NL[1:] != sorted_NL[:-1], axis=1)
    sorted_NL = sorted_NL[np.concatenate([[True], new])]
    csr, indptr, branches, *masks = csr_utils.build_static_index(
      sorted_NL, setting.codes, dense_lookup_layers=2
    )
    self.build_seconds = time.perf_counter() - start
    arrays = csr, indptr, *masks
    self.bytes_per_id = sum(a.nbytes for a in arrays) / len(codes_NL)
    self._decode = functools.partial(
      decoding_jax.sparse_transition_jax,
      model=decoding_jax.RandomModel(setting.codes),
      batch_size=setting.batch,
      beam_size=setting.beams,
      start_token=0,
      max_sample_len=setting.length,
      vocab_size=setting.codes,
      max_branch_factors=tuple(int(size) for size in branches),
      **dict(
        zip(
          ('packed_csr', 'csr_indptr', 'start_mask', 'dense_mask',
           'dense_states'),
          map(jnp.asarray, arrays),
          strict=True,
        )
      ),
    )  # fmt: skip

  def decode(self, key, tokens: int):
    """Its beams, with so many tokens considered a beam."""
    return self._decode(key=key, tokens_per_beam=tokens)


def interleaved(
  programs: Mapping[str, Callable[[jax.Array], Any]], turns: int
) -> dict[str, list[float]]:
  """Milliseconds of each program, one after the other in every turn."""
  for program in programs.values():
    jax.block_until_ready(program(jax.random.key(0)))
  times: dict[str, list[float]] = {name: [] for name in programs}
  for turn in range(turns):
    key = jax.block_until_ready(jax.random.key(turn))
    for name, program in programs.items():
      start = time.perf_counter()
      jax.block_until_ready(program(key))
      times[name].append(1e3 * (time.perf_counter() - start))
  return times


def host_milliseconds(
  setting: Setting, codes_NL: np.ndarray, turns: int
) -> dict[str, float]:
  """Median milliseconds of a whole decode by each rival on the host."""
  rng = np.random.default_rng(3)
  shape = (setting.length, setting.beams, setting.codes)
  scores_LWK = np.log(rng.random(shape, np.float32))

  def scores(codes_WL, level):
    return scores_LWK[level, : len(codes_WL)]

  found = {}
  for name, kind in (
    ('dictionary', host_tries.DictionaryTrie),
    ('prefix_set', host_tries.PrefixSet),
  ):
    rival, times = kind(codes_NL), []
    for _ in range(turns):
      start = time.perf_counter()
      for _ in range(setting.batch):
        rival.search(scores, setting.beams, setting.length)
      times.append(1e3 * (time.perf_counter() - start))
    found[name] = statistics.median(times)
  return found


def measure(
  setting: Setting, turns: int, host_documents: int = 0, peer: str = ''
) -> dict[str, Any]:
  """One row of results: how the trie is built, and what a decode takes.

  Args:
    setting: what is measured.
    turns: of each program.
    host_documents: rivals on the host are left out above.
    peer: folder of a checkout of STATIC; empty for none.
  """
  kind = 'independent'
  codes_NL = make_codes(
    kind, setting.skew, setting.documents, setting.length, setting.codes, 0
  ).astype(trie.code_type(setting.sizes))
  start = time.perf_counter()
  built = trie.build_trie(codes_NL, setting.sizes)
  row = {
    **dataclasses.asdict(setting),
    'build_seconds': time.perf_counter() - start,
    'bytes_per_id': built.nbytes / setting.documents,
  }
  tables = built.tables()
  placed = sum(array.nbytes for array in jax.tree.leaves(tables))
  row['bytes_per_id_on_device'] = placed / setting.documents
  programs = Programs(setting, tables)
  timed = {
    'model': programs.model,
    'search': programs.search,
    'unconstrained': programs.unconstrained,
  }
  if peer:
    static = Peer(peer, setting, codes_NL)
    row['static_build_seconds'] = static.build_seconds
    row['static_bytes_per_id'] = static.bytes_per_id
    exact, inexact = setting.beams, min(_INEXACT_TOKENS, setting.beams)
    timed['static'] = lambda key: static.decode(key, exact)
    timed['static_inexact'] = lambda key: static.decode(key, inexact)
  times = interleaved(timed, turns)
  medians = {name: statistics.median(each) for name, each in times.items()}
  if setting.documents <= host_documents:
    medians |= host_milliseconds(setting, codes_NL, min(turns, 3))
  for name, median in medians.items():
    row[f'{name}_milliseconds'] = median
    if name in times and name != 'model':
      row[f'{name}_above_milliseconds'] = median - medians['model']
  row['search_above_milliseconds_a_step'] = (
    row['search_above_milliseconds'] / setting.length
  )
  row['quartiles'] = {
    name: statistics.quantiles(each, n=4)[::2] for name, each in times.items()
  }
  return row


def line(row: Mapping[str, Any]) -> str:
  """A row for a reader."""
  setting = ' '.join(
    f'{field.name}={row[field.name]:g}' for field in dataclasses.fields(Setting)
  )
  times = ', '.join(
    f'{name.removesuffix("_milliseconds")} {value:.2f}'
    for name, value in row.items()
    if name.endswith('_milliseconds')
  )
  built = f'built in {row["build_seconds"]:.2f} s'
  if 'static_build_seconds' in row:
    built += f' (static {row["static_build_seconds"]:.2f} s)'
  return (
    f'{setting}: {built}, {row["bytes_per_id"]:.1f} bytes an ID; ms {times}'
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python benchmarks/decoding.py',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  for name, value in (
    ('documents', 1_000_000), ('codes', 2048), ('length', 8), ('beams', 70),
    ('batch', 2), ('turns', 30), ('host_documents', 100_000),
  ):  # fmt: skip
    parser.add_argument(f'--{name}', type=int, default=value, metavar='N')
  parser.add_argument('--skew', type=float, default=0.0, metavar='X')
  parser.add_argument('--peer', default='', metavar='FOLDER')
  parser.add_argument('--sweep', action='store_true')
  parser.add_argument('--output', required=True, metavar='FILE')
  return parser


def main(arguments: Sequence[str]) -> int:
  """Flags to a file and lines."""
  flags = _parser().parse_args(arguments)
  fields = [field.name for field in dataclasses.fields(Setting)]
  for name in (*fields[:-1], 'turns'):
    if getattr(flags, name) < 1 + (name == 'turns'):
      raise UserError(f'--{name} is too small: {getattr(flags, name)}')
  setting = Setting(**{name: getattr(flags, name) for name in fields})
  settings = [setting]
  if flags.sweep:
    changed = [dataclasses.replace(setting, **change) for change in _SWEEP]
    settings += [other for other in changed if other != setting]
  rows = []
  for each in settings:
    # Compiled programs hold the tables of the row before.
    jax.clear_caches()
    rows.append(measure(each, flags.turns, flags.host_documents, flags.peer))
    print(line(rows[-1]), flush=True)
  contents = {
    'command': 'python benchmarks/decoding.py ' + shlex.join(arguments),
    'hardware': hardware(),
    'turns': flags.turns,
    **rows[0],
    'sweep': rows[1:],
  }
  path = pathlib.Path(flags.output)
  path.write_text(json.dumps(contents, indent=1) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
