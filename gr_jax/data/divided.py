"""Writes a part of a collection, or other splits of it, as a collection."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Collection as Container
from collections.abc import Iterable, Mapping

from gr_jax.data.collection import Collection
from gr_jax.data.records import (
  BadRecordError,
  identifier_field,
  parse_object,
  read_lines,
)
from gr_jax.types import Judgement

_HEADER = 'query-id\tcorpus-id\tscore\n'


def write_divided(
  collection: Collection,
  folder: pathlib.Path,
  judgements: Mapping[str, Iterable[Judgement]],
  document_ids: Container[str] | None = None,
) -> None:
  """Writes a folder in the BEIR layout.

  Args:
    collection: whose texts are taken over. Files that stay whole are hard links
      where the file system has them, else copies.
    folder: where; made with its parents.
    judgements: by split; a split without one is left out.
    document_ids: of the documents to keep, None for all. With some documents
      the queries are those that are judged.
  """
  (folder / 'qrels').mkdir(parents=True)
  queries = set()
  for split, all_of_split in judgements.items():
    lines = []
    for judgement in all_of_split:
      queries.add(judgement.query_id)
      lines.append(
        f'{judgement.query_id}\t{judgement.document_id}\t'
        # BEIR has no negative grades, which TREC gives to junk.
        f'{max(judgement.relevance, 0)}\n'
      )
    if lines:
      path = folder / 'qrels' / f'{split}.tsv'
      path.write_text(_HEADER + ''.join(lines), 'utf-8')
  kept = {'corpus': document_ids, 'queries': queries}
  for path in collection.text_files():
    ids = kept[path.name.partition('.')[0]]
    if document_ids is None:
      _link(path, folder / path.name)
    else:
      _write_some(path, folder, ids)


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
  with contextlib.suppress(OSError):
    os.link(source.resolve(), target)
    return
  shutil.copyfile(source, target)


def _write_some(
  path: pathlib.Path, folder: pathlib.Path, ids: Container[str]
) -> None:
  """The lines of some records, as they stand, without compression."""
  bare, written = path.name.removesuffix('.gz'), set()
  with (folder / bare).open('wb') as file:
    for line in read_lines(path):
      # What is bad was left out of the collection, too.
      with contextlib.suppress(BadRecordError):
        name = identifier_field(parse_object(line))
        if name in ids and name not in written:
          file.write(line.content + b'\n')
          written.add(name)
