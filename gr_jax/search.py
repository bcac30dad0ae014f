"""Searches an index: documents with title, score and code path.

python -m gr_jax.search --index=runs/quickstart/index "my query"
"""

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Iterator

from gr_jax import entry
from gr_jax.types import UserError

_SNIPPET = 240
_LINES_AT_ONCE = 32
_SEARCH = {
  'beams': (int, 'identifiers kept while decoding'),
  'documents_scored': (int, 'documents scored for a query at most'),
  'planning_weight': (float, 'of what is seen beneath a prefix, 0 for none'),
  'dense_weight': (float, 'of the dot product of the vectors'),
  'fusion': (str, 'log_linear or reciprocal: how the identifier counts'),
  'generative_weight': (float, "of the identifier's score (log_linear)"),
  'reciprocal_weight': (float, "of the identifier's place (reciprocal)"),
  'reciprocal_decay': (float, 'how fast a place loses worth (reciprocal)'),
}
# Which fusion reads a flag: naming the flag asks for the fusion.
_READ_BY = {
  'generative_weight': 'log_linear',
  'reciprocal_weight': 'reciprocal',
  'reciprocal_decay': 'reciprocal',
}
_METAVARS = {int: 'N', float: 'WEIGHT', str: 'KIND'}


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.search',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument(
    'queries', nargs='*', help='default: read from stdin, one a line'
  )
  parser.add_argument(
    '--index', required=True, metavar='PATH', help='as runs/quickstart/index'
  )
  parser.add_argument(
    '--k', type=int, default=5, help='documents shown (default: 5)'
  )
  parser.add_argument(
    '--json', action='store_true', help='one JSON object a query and line'
  )
  parser.add_argument(
    '--where',
    action='append',
    default=[],
    metavar='FILTER',
    help='of the metadata, as tenant=acme, language=en,de or year>=2020; '
    'several must all hold',
  )
  parser.add_argument(
    '--verify', action='store_true', help='check every byte of the index first'
  )
  add_search_flags(parser)
  return parser


def add_search_flags(parser: argparse.ArgumentParser) -> None:
  """Adds how to search; `search_changes` reads them."""
  group = parser.add_argument_group(
    'how to search', 'default: what the index was saved with'
  )
  for name, (kind, meaning) in _SEARCH.items():
    group.add_argument(
      f'--{name}', type=kind, metavar=_METAVARS[kind], help=meaning
    )


def search_changes(flags: argparse.Namespace) -> dict[str, int | float | str]:
  """The fields of SearchSettings that the flags change.

  A weight asks for the fusion that reads it, whatever the index was saved
  with; a weight that the fusion would not read is refused.
  """
  given = {name: getattr(flags, name) for name in _SEARCH}
  changes = {name: value for name, value in given.items() if value is not None}
  for name, kind in _READ_BY.items():
    if name in changes and changes.setdefault('fusion', kind) != kind:
      raise UserError(
        f'--{name} is of --fusion={kind}, the other flags ask for '
        f'{changes["fusion"]!r}: leave out one of them'
      )
  return changes


def _stdin_queries() -> Iterator[str]:
  """Lines of stdin; blank ones are no queries."""
  for number, line in enumerate(sys.stdin.buffer, start=1):
    try:
      text = line.decode('utf-8').strip()
    except UnicodeDecodeError as error:
      raise UserError(
        f'stdin, line {number}: expected UTF-8, byte {error.start} is none'
      ) from error
    if text:
      yield text


def _checked(queries: list[str]) -> list[str]:
  """Refuses arguments that are no text."""
  for query in queries:
    if not query.strip():
      raise UserError('a query should have some text, got a blank one')
    try:
      query.encode('utf-8')
    except UnicodeEncodeError as error:
      raise UserError(f'expected a query in UTF-8, got {query!r}') from error
  return queries


def _one_line(text: str) -> str:
  """Printable text: a document must not steer the terminal."""
  printable = (c if c.isprintable() else ' ' for c in text)
  return ' '.join(''.join(printable).split())


def _show(query: str, hits) -> None:
  print(f'> {_one_line(query)}')
  for rank, hit in enumerate(hits, start=1):
    title = _one_line(hit.title) or hit.document_id
    codes = '-'.join(map(str, hit.codes))
    print(f'{rank:3}. {title}')
    snippet = _one_line(hit.snippet)
    if len(snippet) > _SNIPPET:
      snippet = snippet[:_SNIPPET].rsplit(' ', 1)[0] + ' ...'
    if snippet:
      print(f'     {snippet}')
    print(f'     score {hit.score:.4f}, codes {codes}, id {hit.document_id}')
  print(flush=True)


def _as_json(query: str, hits) -> str:
  import dataclasses

  found = [dataclasses.asdict(hit) for hit in hits]
  return json.dumps({'query': query, 'hits': found}, ensure_ascii=False)


def main(arguments: list[str]) -> int:
  """The door: flags to a searcher, queries to lines."""
  flags = _parser().parse_args(arguments)
  if flags.k < 1:
    raise UserError(f'--k should be 1 or more, got {flags.k}')
  _checked(flags.queries)
  entry.keep_compiled()
  from gr_jax.index.filters import parse_filters
  from gr_jax.retrieval.opening import open_searcher

  where = parse_filters(flags.where)
  searcher = open_searcher(
    pathlib.Path(flags.index), flags.verify, changes=search_changes(flags)
  )
  among = searcher.select(where=where) if where else None
  # A person at the terminal wants each answer before the next question.
  at_once = 1 if sys.stdin.isatty() else _LINES_AT_ONCE
  waiting = iter(flags.queries or _stdin_queries())
  while queries := list(itertools.islice(waiting, at_once)):
    for query, hits in zip(
      queries, searcher.search(queries, flags.k, among), strict=True
    ):
      if flags.json:
        print(_as_json(query, hits), flush=True)
      else:
        _show(query, hits)
  return 0


if __name__ == '__main__':
  entry.run_main(main)
