"""Inserts new documents into an index, without training.

python -m gr_jax.insert --index=runs/NAME/index --corpus=FILE.jsonl
"""

import argparse
import pathlib

from gr_jax import entry


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.insert',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  parser.add_argument(
    '--index', required=True, metavar='PATH', help='as runs/quickstart/index'
  )
  parser.add_argument(
    '--corpus',
    required=True,
    metavar='FILE',
    help='the new documents alone, as in corpus.jsonl or corpus.jsonl.gz',
  )
  parser.add_argument(
    '--replace',
    action='store_true',
    help='documents of the same ids go; without it they are refused',
  )
  return parser


def insert(index: pathlib.Path, corpus: pathlib.Path, replaces: bool = False):
  """Puts the documents of a file into an index.

  Args:
    index: the folder of all versions.
    corpus: JSON lines of documents.
    replaces: whether documents of the same ids go; otherwise there may be
      none.

  Returns:
    retrieval.insertion.Inserted.
  """
  from gr_jax.data.documents import DocumentFile
  from gr_jax.retrieval.insertion import insert_documents

  entry.refuse_several_processes()
  documents = list(DocumentFile(corpus).documents())
  return insert_documents(index, documents, replaces)


def main(arguments: list[str]) -> int:
  """The door: flags to one call."""
  flags = _parser().parse_args(arguments)
  entry.keep_compiled()
  print(
    insert(pathlib.Path(flags.index), pathlib.Path(flags.corpus), flags.replace)
  )
  return 0


if __name__ == '__main__':
  entry.run_main(main)
