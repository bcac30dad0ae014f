"""Reports on the identifiers of an index: a page, a JSON file, TensorBoard.

python -m gr_jax.report_ids --index=RUN/index [--run_dir=RUN]
"""

import argparse
import io
import pathlib

from gr_jax import entry
from gr_jax.types import UserError

PAGE = 'report.html'
NUMBERS = 'report.json'
LOGS = 'logs'


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.report_ids',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument(
    '--index', required=True, metavar='PATH', help='as runs/quickstart/index'
  )
  parser.add_argument(
    '--against',
    metavar='PATH',
    help='an earlier index of the same corpus, or a version inside one '
    '(index/v000001): shows which identifiers changed',
  )
  parser.add_argument(
    '--run_dir',
    metavar='PATH',
    help='the run whose evaluation shows recall by size and training queries',
  )
  parser.add_argument(
    '--output',
    metavar='FOLDER',
    help='for report.html, report.json and logs/ (default: id_report beside '
    'the index)',
  )
  return parser


def _run_outputs(run_dir: pathlib.Path):
  """What the run says of where its collection and its examples lie."""
  from gr_jax import run_folder, run_settings
  from gr_jax.data.prepared import MANIFEST, PreparedData
  from gr_jax.evaluation.id_report import RunOutputs

  settings = run_folder.read_settings(run_dir)
  collection, _ = run_settings.collection_arguments(settings, run_dir)
  prepared = run_settings.cache_dir(settings, run_dir) / 'prepared'
  there = (prepared / MANIFEST).is_file()
  return RunOutputs(
    run_dir, collection, PreparedData(prepared) if there else None
  )


def _check_output(output: pathlib.Path, index: pathlib.Path) -> None:
  """An index refuses folders that are not its own."""
  if output.exists() and not output.is_dir():
    raise UserError(f'{output} should be a folder, it is a file: name another')
  if output.resolve().is_relative_to(index.resolve()):
    raise UserError(
      f'{output} should lie outside of the index {index}, which holds versions '
      'alone: name another --output'
    )


def report_ids(
  index_path: pathlib.Path,
  against: pathlib.Path | None = None,
  run_dir: pathlib.Path | None = None,
  output: pathlib.Path | None = None,
) -> pathlib.Path:
  """Writes the report on an index.

  Args:
    index_path: the folder of its versions.
    against: an earlier index of the same corpus, or a version of one.
    run_dir: the run whose evaluation is read.
    output: another folder than 'id_report' beside the index.

  Returns:
    The page.
  """
  from gr_jax.evaluation import id_page, id_report
  from gr_jax.evaluation.id_churn import read_id_table
  from gr_jax.index.reader import load_index
  from gr_jax.training.logs import MetricWriter

  index_path = index_path.absolute()
  output = output or index_path.parent / 'id_report'
  _check_output(output, index_path)
  report = id_report.collect(
    load_index(index_path),
    '/'.join(index_path.parts[-2:]),
    None if against is None else read_id_table(against.absolute()),
    None if run_dir is None else _run_outputs(run_dir),
  )
  page = id_page.page(report)
  output.mkdir(parents=True, exist_ok=True)
  id_report.write_text(output / NUMBERS, id_report.as_json(report))
  id_report.write_text(output / PAGE, page)
  # Versions are the steps; a report that is made again takes its own place.
  version = report['version']
  writer = MetricWriter(output / LOGS, version, version - 1, io.StringIO())
  writer.write(version, id_report.scalars(report))
  writer.close()
  for verdict in report['verdicts']:
    print(
      f'{verdict["status"]:<5} {verdict["name"]}: {verdict["shown"]} '
      f'({verdict["wanted"]})'
    )
  print(output / PAGE)
  return output / PAGE


def main(arguments: list[str]) -> int:
  """The door: flags to one call."""
  flags = _parser().parse_args(arguments)
  paths = {
    name: pathlib.Path(value) if value else None
    for name, value in vars(flags).items()
  }
  report_ids(
    paths['index'], paths['against'], paths['run_dir'], paths['output']
  )
  return 0


if __name__ == '__main__':
  entry.run_main(main)
