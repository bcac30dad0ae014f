"""Judges a run: one table, results.json and TREC run files.

python -m gr_jax.evaluate --run_dir=runs/NAME [--controls=random_ids]
"""

import argparse
import dataclasses
import importlib.util
import pathlib
import shlex
from collections.abc import Mapping

from gr_jax import entry, processes, search
from gr_jax.types import UserError

_NEEDED = ('bm25s', 'Stemmer', 'ir_measures')


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.evaluate',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  entry.add_run_dir_flag(parser)
  parser.add_argument(
    '--split', default='test', help='of the judgements (default: test)'
  )
  parser.add_argument(
    '--index', metavar='PATH', help='default: the index of the run'
  )
  parser.add_argument(
    '--data_dir',
    metavar='FOLDER',
    help='judge with another folder than the run was trained on, as one with '
    'the documents that were inserted (default: that of the run)',
  )
  parser.add_argument(
    '--controls',
    default='',
    metavar='NAMES',
    help='random_ids, dense_only or both with a comma; trained when missing',
  )
  parser.add_argument(
    '--near_training',
    choices=('words', 'vectors'),
    help='shows the half of the queries that is nearer to a training query and '
    'the other apart, by shared words or by the vectors of the run',
  )
  parser.add_argument(
    '--output',
    metavar='PATH',
    help='default: results.json in the run folder, results.SPLIT.json for a '
    'split other than test',
  )
  parser.add_argument(
    '--batch',
    type=int,
    default=256,
    help='queries at once on a device (default: 256)',
  )
  search.add_search_flags(parser)
  processes.add_flags(parser)
  return parser


def _make_controls(names, settings, run_dir, index):
  """Trains and indexes the controls that are not there; returns folders."""
  from gr_jax import run_folder, run_settings
  from gr_jax.evaluation import controls
  from gr_jax.settings import to_json

  made_from, folders = index.manifest['inputs_sha256'], {}
  for name in names:
    changed = run_settings.control(settings, name, run_dir)
    # It is searched with the weights of the run: to fit others would be idle.
    search_settings = dataclasses.replace(changed.search, fit_on='')
    changed = dataclasses.replace(changed, search=search_settings)
    folder = run_dir / 'controls' / name

    def make(folder, changed=changed):
      from gr_jax import index_corpus, train

      # On data that changed since, it would be no control of the run.
      run_folder.check_settings(settings, run_dir)
      train.train(changed, folder)
      index_corpus.index_run(folder)
      controls.check_inputs(folder, made_from)

    processes.say(f'control {name}: {folder}')
    controls.ensure(folder, to_json(changed), made_from, make)
    folders[name] = folder
  return folders


def _open_control(folder, how, index):
  """A control with the documents of the run's index, searched alike."""
  from gr_jax.evaluation.generative import Generative
  from gr_jax.retrieval.opening import open_on_all_devices

  path = folder / 'index'
  searcher = open_on_all_devices(path, how)
  there = searcher.snapshot.document_ids_there()
  if set(there) != set(index.document_ids):
    raise UserError(
      f'{path} should hold the {len(index)} documents of the index that is '
      f'judged, it holds {len(there)}: insert the same ones '
      f'with python -m gr_jax.insert --index={path}, or leave out --controls'
    )
  return Generative(searcher)


def _systems(index_path, index, control_folders, collection, how):
  """Yields (row name, system) in the order of the table.

  A generator: a control is opened when its turn comes, and searched as the
  run is, whatever it was saved with.
  """
  from gr_jax.evaluation import report
  from gr_jax.evaluation.generative import Generative
  from gr_jax.evaluation.lexical import Lexical
  from gr_jax.retrieval.opening import open_on_all_devices

  yield report.BM25, Lexical(collection.documents())
  ours = Generative(open_on_all_devices(index_path, how))
  yield report.DENSE, ours.exact_dense()
  if 'dense_only' in control_folders:
    control = _open_control(control_folders['dense_only'], how, index)
    yield report.DENSE_ONLY, control.exact_dense()
  yield report.GR_JAX, ours
  if 'random_ids' in control_folders:
    folder = control_folders['random_ids']
    yield report.RANDOM_IDS, _open_control(folder, how, index)


def _setting(settings, data_dir, split, command, collection, how):
  """What is measured, for the table and results.json."""
  from gr_jax.evaluation import report

  documents = len(collection.document_index())
  return report.Setting(
    dataset=pathlib.Path(data_dir or settings.data_dir).resolve().name,
    split=split,
    documents=documents,
    command=command,
    seed=settings.seed,
    corpus_sha256=collection.corpus_sha256(),
    search={
      'beams': how.beams,
      'documents_scored': how.budget(documents),
      'dense_weight': how.dense_weight,
      'fusion': how.fusion,
      **(
        {'generative_weight': how.generative_weight}
        if how.fusion == 'log_linear'
        else {
          'reciprocal_weight': how.reciprocal_weight,
          'reciprocal_decay': how.reciprocal_decay,
        }
      ),
    },
  )


def _groups(index, index_path, asked, scored, settings, collection, near, how):
  """Which queries are shown apart.

  Args:
    index: what is judged.
    index_path: of it.
    asked: queries and judgements.
    scored: ids of the queries that have scores.
    settings: of the run.
    collection: with the training queries.
    near: 'words', 'vectors', or '' to tell none apart by training queries.
    how: it is searched.
  """
  from gr_jax.evaluation import near_far, seen_new
  from gr_jax.retrieval.opening import open_on_all_devices

  groups = dict(seen_new.query_groups(index, asked.judgements, scored))
  if near:
    split = settings.preparation.train_split
    trained = near_far.training_queries(collection, split)
    texts = {query.id: query.text for query in asked.queries}
    encode = None
    if near == near_far.VECTORS:
      encode = open_on_all_devices(index_path, how).encode
    groups |= near_far.halves([texts[name] for name in scored], trained, encode)
  return groups


def _results_name(split: str) -> str:
  return 'results.json' if split == 'test' else f'results.{split}.json'


def evaluate(
  run_dir: pathlib.Path,
  split: str = 'test',
  index_path: pathlib.Path | None = None,
  control_names: tuple[str, ...] = (),
  output: pathlib.Path | None = None,
  batch: int = 256,
  command: str = '',
  changes: Mapping[str, int | float | str] | None = None,
  data_dir: pathlib.Path | None = None,
  near_training: str = '',
) -> dict[str, object]:
  """Measures all systems on a split, prints the table, writes the files.

  Args:
    run_dir: the folder of a trained and indexed run.
    split: of the judgements.
    index_path: another index than the run's.
    control_names: of controls to show, trained when they are missing.
    output: another file than the run's results.json.
    batch: queries asked at once on a device.
    command: what results.json names as its origin.
    changes: fields of SearchSettings that differ from what the index saved.
    data_dir: another folder than the run was trained on.
    near_training: 'words' or 'vectors', to show near and far queries apart.

  Returns:
    The contents of results.json.
  """
  from gr_jax import run_folder
  from gr_jax.evaluation import judging
  from gr_jax.index.reader import load_index
  from gr_jax.retrieval.opening import saved_search

  settings = run_folder.read_settings(run_dir)
  collection = _collection(settings, run_dir, data_dir)
  asked = judging.questions(collection, split)
  index_path = index_path or run_dir / 'index'
  output = output or run_dir / _results_name(split)
  index = load_index(index_path)
  check = judging.check_documents
  processes.first(lambda: check(index, index_path, collection))
  how = dataclasses.replace(saved_search(index), **(changes or {}))
  folders = _make_controls(control_names, settings, run_dir, index)
  systems = _systems(index_path, index, folders, collection, how)
  batch = _at_once(batch, len(asked.queries))
  inputs = _inputs(index_path, folders, collection, asked, how, batch)

  # By the process that has the rows.
  def told(rows):
    setting = _setting(settings, data_dir, split, command, collection, how)
    groups = _groups(
      index, index_path, asked, rows[0].scores.query_ids, settings, collection,
      near_training, how,
    )  # fmt: skip
    return _told(setting, rows, index, groups, output)

  with judging.keeping_answers(run_dir / 'answers', output, inputs) as kept:
    rows = judging.judge(systems, asked, run_dir / 'runs', kept, batch)
    return processes.first(lambda: told(rows))


def _collection(settings, run_dir, data_dir):
  """What is judged with."""
  from gr_jax import run_settings
  from gr_jax.data.collection import Collection

  folder, bad_records = run_settings.collection_arguments(settings, run_dir)
  return Collection(data_dir or folder, bad_records)


def _at_once(batch: int, queries: int) -> int:
  """Queries of a part: a batch for each device, a part for each process."""
  import jax

  share = -(-queries // processes.count())
  return max(batch, min(batch * len(jax.local_devices()), share))


def _inputs(index_path, control_folders, collection, asked, how, batch):
  """All that answers depend on, JSON data."""
  from gr_jax.index.reader import state_sha256

  paths = [index_path, *(path / 'index' for path in control_folders.values())]
  return {
    'indexes': [state_sha256(path) for path in paths],
    'corpus': processes.first(collection.corpus_sha256),
    'queries': [[query.id, query.text] for query in asked.queries],
    'search': dataclasses.asdict(how),
    'batch': batch,
  }


def _told(setting, rows, index, groups, output):
  """Prints the table and writes its file; returns what is in it."""
  from gr_jax.evaluation import report
  from gr_jax.evaluation.identifiers import identifier_statistics

  id_space = identifier_statistics(index.codes_NL, index.trie.code_sizes)
  print(report.table(setting, rows, id_space, groups))
  results = report.results(setting, rows, id_space, groups)
  report.write_results(output, results)
  return results


def main(arguments: list[str]) -> int:
  """The door: flags to one call."""
  parser = _parser()
  flags = parser.parse_args(arguments)
  missing = [n for n in _NEEDED if importlib.util.find_spec(n) is None]
  if missing:
    raise UserError(
      f'evaluation needs {", ".join(missing)}: pip install gr_jax[baselines]'
    )
  if flags.batch < 1:
    raise UserError(f'--batch should be at least 1, got {flags.batch}')
  entry.keep_compiled()
  from gr_jax.evaluation import controls

  with processes.joined(flags):
    evaluate(
      pathlib.Path(flags.run_dir),
      flags.split,
      pathlib.Path(flags.index) if flags.index else None,
      controls.parse_names(flags.controls),
      pathlib.Path(flags.output) if flags.output else None,
      flags.batch,
      'python -m gr_jax.evaluate ' + shlex.join(arguments),
      search.search_changes(flags),
      pathlib.Path(flags.data_dir) if flags.data_dir else None,
      flags.near_training or '',
    )
  return 0


if __name__ == '__main__':
  entry.run_main(main)
