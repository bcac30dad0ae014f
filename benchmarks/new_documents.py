"""Withholds documents from a collection, to be inserted after training.

The experiment: how well are documents found that the model was not trained
with, and what do they cost those that it was? DATA is a folder in the BEIR
layout, here with ids that begin with their domain.

python benchmarks/new_documents.py --data_dir=DATA \
  --withhold='amazon_reviews-*' --output=OUT
python -m gr_jax.train --gin_file=gin/runs/quickstart.gin \
  --gin.DATA_DIR=OUT/known --gin.RUN_DIR=RUN
python -m gr_jax.evaluate --run_dir=RUN --output=RUN/results.before.json
python -m gr_jax.insert --index=RUN/index --corpus=OUT/new.jsonl.gz
python -m gr_jax.evaluate --run_dir=RUN --data_dir=DATA \
  --output=RUN/results.after.json

The last table has rows for queries whose relevant documents were seen and for
those whose were not; the rows of the former are to be compared with the table
before. With --controls=dense_only in both evaluations, insert the same file
into RUN/controls/dense_only/index as well.
"""

import argparse
import fnmatch
import gzip
import json
import pathlib
from collections.abc import Iterable, Mapping

from gr_jax import entry
from gr_jax.types import UserError


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python benchmarks/new_documents.py',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument(
    '--data_dir', required=True, metavar='FOLDER', help='in the BEIR layout'
  )
  parser.add_argument(
    '--withhold',
    required=True,
    metavar='IDS',
    help='beginning of the ids of documents, or a pattern with * and ?',
  )
  parser.add_argument(
    '--output', required=True, metavar='FOLDER', help='made or replaced'
  )
  return parser


def withheld_ids(ids: Iterable[str], pattern: str) -> set[str]:
  """The ids that a pattern matches, or that begin with it.

  Args:
    ids: of all documents.
    pattern: with wildcards, or a beginning.

  Raises:
    UserError: when none or all of them do.
  """
  glob = pattern if set(pattern) & set('*?[') else f'{pattern}*'
  ids = list(ids)
  found = {name for name in ids if fnmatch.fnmatchcase(name, glob)}
  if not found or len(found) == len(ids):
    raise UserError(
      f'--withhold should match some of {len(ids)} ids, as those from '
      f'{ids[0]!r} to {ids[-1]!r}; {pattern!r} matches '
      f'{"all" if found else "none"}'
    )
  return found


def write_lines(path: pathlib.Path, records: Iterable[Mapping]) -> int:
  """Writes gzipped JSON lines, the same bytes each time; counts them."""
  count = 0
  with (
    path.open('wb') as raw,
    gzip.GzipFile('', 'wb', fileobj=raw, mtime=0) as file,
  ):
    for record in records:
      line = json.dumps(record, ensure_ascii=False) + '\n'
      file.write(line.encode('utf-8'))
      count += 1
  return count


def _record(item) -> dict[str, object]:
  """A document or a query as it stands in a file."""
  record = {'_id': item.id}
  if hasattr(item, 'title'):
    record['title'] = item.title
  return {**record, 'text': item.text, 'metadata': dict(item.metadata)}


def _check_output(output: pathlib.Path) -> None:
  """Refuses to replace a folder that this did not write."""
  known = {'known', 'new.jsonl.gz'}
  there = {p.name for p in output.iterdir()} if output.is_dir() else set()
  if foreign := sorted(there - known):
    raise UserError(
      f'--output should be a new folder, {output} holds {foreign[0]}: name '
      'another one'
    )


def withhold(
  data_dir: pathlib.Path, pattern: str, output: pathlib.Path
) -> dict[str, int]:
  """Writes OUTPUT/known, a BEIR folder, and OUTPUT/new.jsonl.gz.

  Judgements of withheld documents go, and queries that are left without any;
  queries that nobody judged stay.

  Args:
    data_dir: the whole collection.
    pattern: see `withheld_ids`.
    output: replaced once the new one is whole.

  Returns:
    Counts of 'known' and 'new' documents and of 'queries' kept.
  """
  from gr_jax.data.collection import Collection
  from gr_jax.data.folders import new_folder

  _check_output(output)
  collection = Collection(data_dir)
  new = withheld_ids(collection.document_index(), pattern)
  kept, left = {}, set()
  for split in collection.splits():
    judgements = collection.judgements(split)
    kept[split] = [j for j in judgements if j.document_id not in new]
    left |= {j.query_id for j in judgements}
  left -= {j.query_id for rows in kept.values() for j in rows}
  with new_folder(output) as folder:
    (folder / 'known' / 'qrels').mkdir(parents=True)
    documents = collection.documents
    counts = {
      'known': write_lines(
        folder / 'known' / 'corpus.jsonl.gz',
        (_record(d) for d in documents() if d.id not in new),
      ),
      'new': write_lines(
        folder / 'new.jsonl.gz',
        (_record(d) for d in documents() if d.id in new),
      ),
      'queries': write_lines(
        folder / 'known' / 'queries.jsonl.gz',
        (_record(q) for q in collection.queries() if q.id not in left),
      ),
    }
    for split, rows in kept.items():
      # A split of withheld documents alone is no split any more.
      if rows:
        _write_judgements(folder / 'known' / 'qrels' / f'{split}.tsv', rows)
  return counts


def _write_judgements(path: pathlib.Path, judgements) -> None:
  lines = ['query-id\tcorpus-id\tscore']
  lines += [f'{j.query_id}\t{j.document_id}\t{j.relevance}' for j in judgements]
  path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def main(arguments: list[str]) -> int:
  """Flags to one call."""
  flags = _parser().parse_args(arguments)
  output = pathlib.Path(flags.output)
  counts = withhold(pathlib.Path(flags.data_dir), flags.withhold, output)
  print(
    f'{output / "known"}: {counts["known"]:,} documents, '
    f'{counts["queries"]:,} queries'
  )
  print(f'{output / "new.jsonl.gz"}: {counts["new"]:,} documents')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
