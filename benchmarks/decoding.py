"""What constrained decoding costs above the model, and beside its rivals.

python benchmarks/decoding.py --documents=1000000 --codes=2048 --length=8 \
  --beams=70 --batch=2 --output=decoding.json

There is no model: as in the benchmark of STATIC (arXiv 2602.22647) the scores
of the next codes are log-softmax of uniform random numbers, drawn for every
beam at every position. With --decoder_layers=6 the project's code decoder
scores them, a T5 stack of so many layers with random parameters and a cache
that moves with the beams (--decoder_width=512: that of t5.1.0.small). A whole
decode is timed (all positions, the whole batch), the programs in turns, the
median of all turns:

  model           the same scores (and cache moved), no search
  search          ours: the exact beam search over the trie
  unconstrained   the same beam search over all codes
  dictionary, prefix_set   rivals of our own on the host, a query at a time and
                  from random scores that lie ready there (up to
                  --host_documents, and not beside a decoder)
  static, static_inexact   with --peer=FOLDER, a checkout of
                  github.com/youtube/static-constraint-decoding: with as many
                  tokens a beam as beams (exact), and 30 (its own setting)

'above' is the time less that of the model. `constraint_percent` is how much
longer the search takes than that over all codes in the same turn (median and
quartiles); where others are at work on the machine, look at the time of this
process on all processors (`constraint_processor_percent`) and at the least
times. --sweep measures besides what changes with documents, codes, length,
beams and --skew, the Zipf exponent of the codes.
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
from collections.abc import Mapping, Sequence
from typing import Any

import host_tries
import interleaved
import jax
import jax.numpy as jnp
import numpy as np
import unconstrained
from balance import hardware
from scoring_models import DecoderScores, RandomScores
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
  decoder_layers: int
  decoder_width: int
  skew: float

  @property
  def sizes(self) -> tuple[int, ...]:
    """Codes of each position."""
    return (self.codes,) * self.length

  def scores(self) -> RandomScores | DecoderScores:
    """What scores the codes."""
    if not self.decoder_layers:
      return RandomScores(self.sizes, self.batch)
    return DecoderScores(
      self.sizes, self.batch, self.decoder_layers, self.decoder_width
    )


class Programs:
  """The programs on the device."""

  def __init__(self, setting: Setting, tables: trie.TrieTables):
    """Compiles nothing yet.

    Args:
      setting: what is measured.
      tables: the trie of its identifiers.
    """
    self._setting = setting
    self._scores = setting.scores()
    params = self._scores.params
    self.search = functools.partial(
      jax.jit(self._search), tables=tables, params=params
    )
    self.model = functools.partial(jax.jit(self._model), params=params)
    self.unconstrained = functools.partial(
      jax.jit(self._unconstrained), params=params
    )

  def _search(self, key, tables, params):
    """Our beams."""
    start, step = self._scores.functions(params, key)
    width, length = self._setting.beams, self._setting.length
    return beam.beam_search(start, step, tables, width, length)

  def _model(self, key, params):
    """The scores alone, of any codes; nothing of them is left out.

    A decoder's cache moves, to any beams. Measured on CPU, its steps take a
    tenth longer where the cache stays, which no search would do.
    """
    setting = self._setting
    start, step = self._scores.functions(params, key)

    def draw(carry, level):
      total, state = carry
      shape = (setting.batch, setting.beams)
      codes_key = jax.random.fold_in(key, level)
      codes_BW = jax.random.randint(codes_key, shape, 0, setting.codes)
      scores_BWK, state = step(state, codes_BW, level)
      state = jax.tree.map(
        lambda leaf: beam.gather_beams(leaf, codes_BW % setting.beams), state
      )
      total += jax.lax.optimization_barrier(scores_BWK)[0, 0, 0]
      return (total, state), None

    nothing_B1 = jnp.zeros((setting.batch, 1), jnp.int32)
    scores_B1K, first = step(start(1), nothing_B1, jnp.int32(0))
    total = jax.lax.optimization_barrier(scores_B1K)[0, 0, 0]
    state = unconstrained.for_beams(first, start, setting.beams)
    levels = jnp.arange(1, setting.length)
    return jax.lax.scan(draw, (total, state), levels)[0][0]

  def _unconstrained(self, key, params):
    """Beams over all codes."""
    return unconstrained.search_with_state(
      *self._scores.functions(params, key),
      self._setting.beams,
      self._setting.length,
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
  times = interleaved.measure(timed, turns)
  medians = times.medians()
  if not setting.decoder_layers and setting.documents <= host_documents:
    medians |= host_milliseconds(setting, codes_NL, min(turns, 3))
  for name, median in medians.items():
    row[f'{name}_milliseconds'] = median
    if name in timed and name != 'model':
      row[f'{name}_above_milliseconds'] = median - medians['model']
  row['search_above_milliseconds_a_step'] = (
    row['search_above_milliseconds'] / setting.length
  )
  row['quartiles'] = times.quartiles()
  row['least'] = times.least()
  row['processor'] = times.processor_medians()
  for name, percents in times.longer('search', 'unconstrained').items():
    row[f'constraint{name}_percent'] = statistics.median(percents)
    row['quartiles'][f'constraint{name}_percent'] = interleaved.outer(percents)
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
    f'{setting}: {built}, {row["bytes_per_id"]:.1f} bytes an ID; ms {times}; '
    f'constraint {row["constraint_percent"]:+.1f} % '
    f'({row["constraint_processor_percent"]:+.1f} % of processor time)'
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python benchmarks/decoding.py',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  for name, value in (
    ('documents', 1_000_000), ('codes', 2048), ('length', 8), ('beams', 70),
    ('batch', 2), ('decoder_layers', 0), ('decoder_width', 512),
    ('turns', 30), ('host_documents', 100_000),
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
  least = {'decoder_layers': 0, 'turns': 2}
  for name in (*fields[:-1], 'turns'):
    if getattr(flags, name) < least.get(name, 1):
      raise UserError(f'--{name} is too small: {getattr(flags, name)}')
  if flags.peer and flags.decoder_layers:
    raise UserError('--peer has random scores of its own: no --decoder_layers')
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
