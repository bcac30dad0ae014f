"""Inserts new documents into an index, without training.

python -m gr_jax.insert --index=runs/NAME/index --corpus=FILE.jsonl
"""

import argparse
import pathlib

from gr_jax import entry, search


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
  return parser


def insert(index: pathlib.Path, corpus: pathlib.Path):
  """Writes a new version of an index with the documents of a file.

  Args:
    index: the folder of all versions.
    corpus: JSON lines of documents whose ids are not in the index.

  Returns:
    retrieval.insertion.Inserted.
  """
  from gr_jax.data.documents import DocumentFile, document_text
  from gr_jax.retrieval.insertion import insert_documents

  entry.refuse_several_processes()
  documents = list(DocumentFile(corpus).documents())
  return insert_documents(
    index, documents, [document_text(document) for document in documents]
  )


def main(arguments: list[str]) -> int:
  """The door: flags to one call."""
  flags = _parser().parse_args(arguments)
  search.keep_compiled()
  inserted = insert(pathlib.Path(flags.index), pathlib.Path(flags.corpus))
  print(inserted)
  print(f'wrote {inserted.version}')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
