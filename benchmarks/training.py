"""What a training step costs, and the same T5 in T5X in the same run.

python benchmarks/training.py --size=tiny --batch=16 --output=training.json \
  --peer=T5X --peer=AIRIO --peer=JESTIMATOR

Two subjects, each in turns with all that it is compared with; times are medians
of the turns, and a turn is --steps steps and the log line after them:

  text       (--size=toy,tiny,small,base,...) a T5 1.1 that writes texts,
             dropout off: `ours` is models/t5_text.py and objectives/text.py in
             a step as training/step.py has it. With --peer (checkouts of
             google-research/t5x, google/airio and google-research/jestimator;
             pip install --no-deps cached-property fiddle) `t5x` is the trainer
             of T5X on its own T5 with PjitPartitioner: same sizes, optax chain
             and batches, which lie on the device already. Both losses are
             compared before anything is timed.
  retriever  (--retriever=frozen,trained) a step of ours while codes move, as
             in gin/runs/quickstart.gin (vectors of a frozen encoder) and
             gin/runs/full.gin with T5 1.1 tiny; --gin.NAME=VALUE changes both.
             `loop` is what a run does, with its loader; `step` the step alone
             on one batch; `loader` the batches alone, put on the device.
             `input_hidden` is the share of the loader's time that the loop
             does not show.

`product` is square products of matrices of the same dtype: the ceiling.
Utilisation is the share of its operations a second that a step reaches with
the operations of its model (`model_flops`: products of matrices and their
gradients, a formula for the T5 and counted in the program for the retriever;
`xla_flops` is what the compiler counts, everything included, but loops once).
`compile_seconds` starts from an empty cache on disk, `warm_seconds` has the
code in it and traces again; `peak_bytes` is what the compiled step holds at
once. Where others are at work on the machine look at `processor` (milliseconds
of all processors) and at `least`.

On a GPU, T5 base in bfloat16, with a trace of one turn beside it:

python benchmarks/training.py --size=base --dtype=bfloat16 --batch=128 \
  --length=512 --targets=128 --steps=20 --turns=10 --retriever= \
  --profile=FOLDER --output=gpu.json
"""

import argparse
import contextlib
import dataclasses
import importlib
import itertools
import json
import pathlib
import shlex
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import interleaved
import jax
import program_costs
import retriever_training
import text_training
from balance import hardware

from gr_jax import configuration, entry
from gr_jax.models.t5 import T5Config
from gr_jax.models.t5_sizes import T5_SIZES, t5_config
from gr_jax.run_settings import RunSettings
from gr_jax.training import mesh as meshes
from gr_jax.training.optimizer import OptimizerSettings, make_optimizer
from gr_jax.types import UserError, check_option

# As near to no arithmetic as a T5 comes: what is left is overhead.
_TOY = T5Config(
  vocab_size=256,
  emb_dim=32,
  num_heads=2,
  head_dim=16,
  num_encoder_layers=2,
  num_decoder_layers=2,
  mlp_dim=64,
)
_RETRIEVERS = {
  'frozen': ['gin/runs/quickstart.gin'],
  'trained': ['gin/runs/full.gin', 'gin/models/t5_1_1_tiny.gin'],
}
# Losses of the same parameters, ours and T5X's.
_SAME = 1e-5
_BATCHES = 4


@dataclasses.dataclass(frozen=True)
class Setting:
  """How steps are measured; names as the flags."""

  batch: int
  length: int
  targets: int
  dtype: str
  steps: int
  turns: int
  profile: str


def text_row(
  size: str, setting: Setting, mesh: jax.sharding.Mesh, peer: bool
) -> dict[str, Any]:
  """What a step of a T5 on texts costs, here and in T5X.

  Args:
    size: of the T5, or 'toy'.
    setting: how it is measured.
    mesh: of our steps; T5X makes its own.
    peer: whether T5X is measured too; it must be importable.
  """
  config = _TOY if size == 'toy' else t5_config(size)
  config = dataclasses.replace(config, dropout_rate=0.0, dtype=setting.dtype)
  # The rate has warmed up before the first step is timed, and stays.
  optimizer = make_optimizer(OptimizerSettings(warmup=0.0), 10**6)
  shape = setting.batch, setting.length, setting.targets
  batches = text_training.text_batches(config, *shape, _BATCHES)
  ours = text_training.TextTraining(config, optimizer, setting.batch, mesh)
  row = {'subject': f'text {size}'}
  with meshes.active(mesh):
    row |= program_costs.costs(ours.step, ours.state, batches[0])
  row['model_flops'] = program_costs.t5_flops(config, *shape)
  product = program_costs.Product(setting.dtype)
  programs = {
    'product': product.run,
    'ours': lambda _: ours.run(
      itertools.islice(itertools.cycle(batches), setting.steps)
    ),
  }
  with contextlib.ExitStack() as stack:
    if peer:
      other = importlib.import_module('t5x_training').T5xTraining(
        config, optimizer, batches
      )
      stack.callback(other.close)
      row |= _compared(ours, other, batches[0])
      programs['t5x'] = lambda _: other.run(setting.steps)
    times = interleaved.measure(programs, setting.turns)
    _profile(setting, f'text_{size}', programs['ours'])
  row |= _timed(times, setting.steps, product.flops, row['model_flops'])
  tokens = setting.batch * (setting.length + setting.targets)
  return row | _rates(row['milliseconds']['ours'], setting.batch, tokens)


def _compared(ours, other, batch: Mapping[str, Any]) -> dict[str, Any]:
  """What T5X compiled, after both losses of the same parameters agree."""
  total, count = ours.loss(ours.state.params, batch)[1]['text']
  here, there = float(total / count), other.loss(ours.state.params, batch)
  if abs(here - there) > _SAME * abs(there):
    raise UserError(
      f'expected equal losses, ours is {here} and T5X has {there}'
    )
  return {
    'losses': [here, there],
    't5x_compiled': {
      'trace_and_compile_seconds': other.compile_seconds,
      **program_costs.demands(other.compiled),
    },
  }


def retriever_row(
  kind: str, setting: Setting, mesh: jax.sharding.Mesh, overrides: list[str]
) -> dict[str, Any]:
  """What a step of the retriever costs, and what of it is input.

  Args:
    kind: of `_RETRIEVERS`.
    setting: how it is measured; the shapes are the run's.
    mesh: of the devices.
    overrides: 'NAME=value' for gin.
  """
  configuration.parse(_RETRIEVERS[kind], ['RUN_DIR=unused', *overrides])
  settings = configuration.build(RunSettings)
  with tempfile.TemporaryDirectory(prefix='gr_jax_') as folder:
    ours = retriever_training.RetrieverTraining(
      settings, pathlib.Path(folder), mesh
    )
    row = {'subject': f'retriever {kind}'}
    with meshes.active(mesh):
      given = ours.step, ours.state, ours.placed
      row |= program_costs.costs(*given)
      row['model_flops'] = program_costs.product_flops(*given)
    product = program_costs.Product('float32')
    programs = {
      'product': product.run,
      'step': lambda _: ours.run_placed(setting.steps),
      'loop': lambda _: ours.run(setting.steps),
      'loader': lambda _: ours.load(setting.steps),
    }
    times = interleaved.measure(programs, setting.turns)
    _profile(setting, f'retriever_{kind}', programs['loop'])
  row |= _timed(times, setting.steps, product.flops, row['model_flops'])
  shown = statistics.median(
    loop - step
    for loop, step in zip(times.clock['loop'], times.clock['step'], strict=True)
  )
  loaded = statistics.median(times.clock['loader'])
  # Nothing shown is all that can be hidden; what is above it is noise.
  row['input_hidden'] = min(1.0, 1 - shown / loaded)
  batch = settings.loader.batch_size
  shape = settings.preparation
  tokens = batch * (shape.query_length + shape.document_length)
  if not settings.training.train_encoder:
    tokens = 0
  return row | _rates(row['milliseconds']['loop'], batch, tokens)


def _timed(
  times: interleaved.Times, steps: int, product_flops: int, model_flops: int
) -> dict[str, Any]:
  """Milliseconds a step of each program, and shares of the ceiling."""
  ceiling = product_flops / (times.medians()['product'] / 1e3)

  def each(values):
    return {name: v / steps for name, v in values.items() if name != 'product'}

  milliseconds = each(times.medians())
  row = {
    'milliseconds': milliseconds,
    'quartiles': {
      name: [value / steps for value in outer]
      for name, outer in times.quartiles().items()
      if name != 'product'
    },
    'least': each(times.least()),
    'processor': each(times.processor_medians()),
    'ceiling_flops_per_second': ceiling,
    'utilisation': {
      name: model_flops / (value / 1e3) / ceiling
      for name, value in milliseconds.items()
      if name != 'loader'
    },
  }
  if 't5x' in milliseconds:
    for name, percents in times.longer('ours', 't5x').items():
      row[f'of_t5x{name}'] = 1 + statistics.median(percents) / 100
      row['quartiles'][f'of_t5x{name}'] = [
        1 + percent / 100 for percent in interleaved.outer(percents)
      ]
  return row


def _rates(milliseconds: float, examples: int, tokens: int) -> dict[str, float]:
  """Examples and tokens a second; no tokens where none is read."""
  rates = {'examples_per_second': 1e3 * examples / milliseconds}
  if tokens:
    rates['tokens_per_second'] = 1e3 * tokens / milliseconds
  return rates


def _profile(setting: Setting, name: str, program) -> None:
  """Writes a trace of one turn, for TensorBoard or Perfetto."""
  if setting.profile:
    with jax.profiler.trace(str(pathlib.Path(setting.profile) / name)):
      program(None)


def line(row: Mapping[str, Any]) -> str:
  """A row for a reader."""
  times = ', '.join(
    f'{name} {value:.2f} ({row["processor"][name]:.2f})'
    for name, value in row['milliseconds'].items()
  )
  text = f'{row["subject"]}: ms a step (of processors) {times}'
  if 'of_t5x' in row:
    text += (
      f'; {row["of_t5x"]:.2f} of t5x ({row["of_t5x_processor"]:.2f} of its '
      'processor time)'
    )
  if 'input_hidden' in row:
    text += f'; {row["input_hidden"]:.0%} of the input hidden'
  used = ', '.join(f'{n} {u:.0%}' for n, u in row['utilisation'].items())
  return (
    f'{text}; of the ceiling {used}; compiled in {row["compile_seconds"]:.1f} s'
    f' (warm {row["warm_seconds"]:.1f}); {row["peak_bytes"] / 1e6:.0f} MB'
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python benchmarks/training.py',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  for name, value in (
    ('batch', 16), ('length', 64), ('targets', 32), ('steps', 5), ('turns', 20),
  ):  # fmt: skip
    parser.add_argument(f'--{name}', type=int, default=value, metavar='N')
  parser.add_argument('--dtype', default='float32', metavar='NAME')
  parser.add_argument('--size', default='tiny', metavar='NAMES')
  parser.add_argument('--retriever', default='frozen,trained', metavar='NAMES')
  parser.add_argument('--peer', action='append', default=[], metavar='FOLDER')
  parser.add_argument('--profile', default='', metavar='FOLDER')
  parser.add_argument('--output', required=True, metavar='FILE')
  return parser


def _names(flag: str, value: str, options: Sequence[str]) -> list[str]:
  """The names of a flag, checked."""
  names = [name for name in value.split(',') if name]
  for name in names:
    check_option(f'--{flag}', name, options)
  return names


def main(arguments: Sequence[str]) -> int:
  """Flags to a file and lines."""
  flags, overrides = entry.parse_arguments(_parser(), arguments)
  sizes = _names('size', flags.size, ['toy', *T5_SIZES['1.1']])
  kinds = _names('retriever', flags.retriever, list(_RETRIEVERS))
  check_option('--dtype', flags.dtype, ['float32', 'bfloat16'])
  fields = [field.name for field in dataclasses.fields(Setting)]
  setting = Setting(**{name: getattr(flags, name) for name in fields})
  for name in ('batch', 'length', 'targets', 'steps', 'turns'):
    least = 2 if name == 'turns' else 1
    if getattr(setting, name) < least:
      raise UserError(f'--{name} is too small: {getattr(setting, name)}')
  sys.path += flags.peer
  rows = []
  mesh = meshes.make_mesh(meshes.MeshSettings())
  with program_costs.own_compilation_cache():
    for size in sizes:
      rows.append(text_row(size, setting, mesh, bool(flags.peer)))
      print(line(rows[-1]), flush=True)
    for kind in kinds:
      rows.append(retriever_row(kind, setting, mesh, overrides))
      print(line(rows[-1]), flush=True)
  contents = {
    'command': 'python benchmarks/training.py ' + shlex.join(arguments),
    'hardware': hardware(),
    **dataclasses.asdict(setting),
    'rows': rows,
  }
  path = pathlib.Path(flags.output)
  path.write_text(json.dumps(contents, indent=1) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
