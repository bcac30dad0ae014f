"""Compiles training and search for 256 chips, and tells what memory they take.

python benchmarks/topology.py --output=FILE

Nothing is trained or searched and no array is made: shapes with shardings are
lowered and compiled for `--topology` by libtpu (pip install '.[topology]'),
or, where that is not installed, for as many virtual CPU devices.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import time

import programs

from gr_jax.training.memory import peak_bytes

# Of a chip of v5e.
CHIP_BYTES = 16 * 2**30


def devices_of(topology: str, count: int) -> tuple[list, str]:
  """Devices to compile for, and what they are.

  Args:
    topology: as 'v5e:16x16'.
    count: virtual CPU devices in its place, where libtpu is not installed.
  """
  import jax

  if importlib.util.find_spec('libtpu') is None:
    return jax.devices()[:count], f'{count} virtual CPU devices'
  from jax.experimental import topologies

  # Asks no machine of Google's what it is.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  described = topologies.get_topology_desc(topology, platform='tpu')
  return list(described.devices), topology


def measured(program: programs.Program, devices: list) -> dict:
  """Compiles a program: its memory a device in bytes, and the seconds.

  Args:
    program: what is compiled.
    devices: what it is compiled for.
  """
  start = time.monotonic()
  with contextlib.ExitStack() as stack:
    lowered, held = program.lowered(stack, devices)
    analysis = lowered.compile().memory_analysis()
  peak = peak_bytes(analysis)
  return {
    'settings': program.described(),
    **held,
    'temporary': analysis.temp_size_in_bytes,
    'peak': peak,
    'fits': peak <= CHIP_BYTES,
    'seconds': round(time.monotonic() - start, 1),
  }


def table(results: dict[str, dict]) -> str:
  """The results in GiB a device, as a table of Markdown.

  Args:
    results: of `measured`, by name.
  """
  columns = 'parameters', 'optimizer', 'index', 'temporary', 'peak'
  lines = [
    f'| program | {" | ".join(columns)} | fits 16 GiB |',
    '|---|' + '---|' * (len(columns) + 1),
  ]
  for name, result in results.items():
    sizes = [
      f'{result[column] / 2**30:.2f}' if column in result else ''
      for column in columns
    ]
    fits = 'yes' if result['fits'] else 'no'
    lines.append(f'| {name} | {" | ".join(sizes)} | {fits} |')
  return '\n'.join(lines)


def main() -> None:
  """Compiles what is asked for, writing each result as it comes."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--topology', default='v5e:16x16')
  parser.add_argument(
    '--only', default='', help='programs whose names hold this'
  )
  parser.add_argument(
    '--layers', type=int, help='of the encoder, in place of all of them'
  )
  flags = parser.parse_args()
  import jax

  # Nothing runs: what is compiled for is asked for by name.
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', programs.CHIPS)
  devices, kind = devices_of(flags.topology, programs.CHIPS)
  results = {}
  for name, program in programs.PROGRAMS.items():
    if flags.only not in name:
      continue
    if flags.layers:
      program = programs.shallower(program, flags.layers)
    results[name] = measured(program, devices)
    print(f'{name}: {results[name]}', flush=True)
    report = {'compiled_for': kind, 'jax': jax.__version__, 'programs': results}
    flags.output.write_text(json.dumps(report, indent=1) + '\n')
  print(table(results))


if __name__ == '__main__':
  main()
